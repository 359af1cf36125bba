"""Output folders: may they be written to, is the disk full, and how a result gets its name."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from stainfuser.errors import InputError
from stainfuser.files import sync_file

_FULL = ("the disk is full", "free some space")
NO_ROOM = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: ("a file may not become that large there", "raise the limit (ulimit -f)"),
}


def check_writable(folder: Path) -> None:
    """Create `folder` and make sure that files can be written there, before hours of work.

    Raises
    ------
    InputError
        It cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(
            folder, f"cannot be written to ({reason})", "give a folder you may write to"
        ) from error


@contextlib.contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Turn a full disk, quota or limit into one sentence for the user."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        wrong, remedy = NO_ROOM[error.errno]
        raise InputError(folder, wrong, f"{remedy} and run again: it goes on there") from error


def move_into_place(finished: Path, final: Path) -> None:
    """Give a finished file or folder its final name at once, also across file systems."""
    if final.is_dir():
        shutil.rmtree(final)
    try:
        os.replace(finished, final)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy = final.with_name(f".{final.name}.tmp")
        if finished.is_dir():
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(finished, copy)
        else:
            shutil.copyfile(finished, copy)
            sync_file(copy)
        os.replace(copy, final)
    sync_file(final.parent)
