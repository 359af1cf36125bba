"""A slide's ICC colour profile without the words in it: who made it, with which scanner, when.

ICC.1:2022, sections 7.2 (header), 7.3 (tag table) and 10 (types). Numbers that say what a colour
means stay byte for byte; texts are blanked in place, so that no offset moves.
"""

from __future__ import annotations

import struct

HEADER_BYTES, ENTRY_BYTES = 132, 12
# Types that hold nothing but words.
TEXT_TYPES = {
    b"text",
    b"desc",
    b"mluc",
    b"dict",
    b"utf8",
    b"ut16",
    b"utf7",
    b"zut8",
    b"data",
    b"dtim",
}
SIGNATURE = slice(36, 40)
# Date of creation, preferred engine, device's maker and model, creator, and the hash of it all.
DATE, PERSONAL = slice(24, 36), ((4, 8), (48, 56), (80, 100))
NEUTRAL_DATE = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)


def without_words(profile: bytes) -> bytes | None:
    """Return a profile with its texts blanked; None if it is no whole ICC profile."""
    if len(profile) < HEADER_BYTES or profile[SIGNATURE] != b"acsp":
        return None
    cleaned = bytearray(profile)
    cleaned[DATE] = NEUTRAL_DATE
    for start, stop in PERSONAL:
        cleaned[start:stop] = bytes(stop - start)
    count = struct.unpack_from(">I", profile, 128)[0]
    if HEADER_BYTES + count * ENTRY_BYTES > len(profile):
        return None
    used = bytearray(len(profile))
    used[: HEADER_BYTES + count * ENTRY_BYTES] = b"\1" * (HEADER_BYTES + count * ENTRY_BYTES)
    for number in range(count):
        offset, size = struct.unpack_from(">II", profile, HEADER_BYTES + number * ENTRY_BYTES + 4)
        if offset + size > len(profile) or size < 8:
            return None
        used[offset : offset + size] = b"\1" * size
        if profile[offset : offset + 4] in TEXT_TYPES:
            cleaned[offset + 8 : offset + size] = _blank(profile[offset : offset + size])
    # Nothing hides between the tags or behind them.
    return bytes(byte if is_used else 0 for byte, is_used in zip(cleaned, used, strict=True))


def _blank(tag: bytes) -> bytes:
    """Return the bytes behind the first 8 of a text's tag, as the shortest valid text."""
    kind, room = tag[:4], len(tag) - 8
    if kind == b"mluc" and room >= 8:
        return (struct.pack(">II", 0, 12) + bytes(room))[:room]
    if kind == b"desc" and room >= 5:
        return (struct.pack(">I", 1) + bytes(room))[:room]
    if kind == b"dtim":
        return (NEUTRAL_DATE + bytes(room))[:room]
    return bytes(room)
