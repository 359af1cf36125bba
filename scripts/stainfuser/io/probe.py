"""May this slide be used? Asked in a child process with limits, which a bad file may kill.

OpenSlide aborts the whole process on some damaged headers, and others make it allocate without
end, so nothing here opens a slide in the calling process.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.errors import SlideError
from stainfuser.io.images import read_image, write_image
from stainfuser.io.slides import (
    CorruptRegionError,
    SlideReader,
    check_slide_file,
    without_paths,
)
from stainfuser.io.tiff_headers import walk_directories

Record = dict[str, Any]

_PROBE_PX = 256
_MAX_OVERVIEW_READ_PX = 400_000_000  # about 10 s; larger slides without a pyramid are sampled
_SAMPLED_WINDOWS = 32
_AGAIN = "copy or download it again"


def probe_file(
    path: Path,
    *,
    mpp_override: float | None,
    mpp_default: float | None,
    overview_um_per_px: float,
    max_side_px: int,
    timeout_s: float,
    memory_mb: int,
) -> tuple[Record, NDArray[np.uint8] | None]:
    """Open and read a slide in a child process and return what was found.

    `mpp_override` (um per level-0 px) takes the place of what the slide says, `mpp_default` is
    for slides that do not say it.

    Returns
    -------
    record
        `verdict` ("ok", or why the slide cannot be used), `reason`, `remedy`, and as far as the
        slide could be opened: `width_px`, `height_px`, `mpp`, `mpp_source`, `objective_power`,
        `vendor`, `levels`, `has_icc_profile`, `corrupt_regions`. Nothing else is taken from the
        slide: labels, users and dates can identify a patient.
    overview
        (H, W, 4) uint8 RGBA at `overview_um_per_px` if the verdict is ok.
    """
    with tempfile.TemporaryDirectory(prefix="probe-") as folder:
        request = {
            "path": os.path.abspath(path),
            "mpp_override": mpp_override,
            "mpp_default": mpp_default,
            "overview_um_per_px": overview_um_per_px,
            "max_side_px": max_side_px,
            "cpu_s": int(timeout_s) + 5,
            "memory_mb": memory_mb,
        }
        Path(folder, "request.json").write_text(json.dumps(request), encoding="utf-8")
        failure = _run_child(Path(folder), timeout_s)
        if failure is not None:
            return failure, None
        record = json.loads(Path(folder, "record.json").read_text(encoding="utf-8"))
        rgb, alpha = Path(folder, "overview.png"), Path(folder, "alpha.png")
        if not rgb.exists():
            return record, None
        return record, np.dstack([read_image(rgb), read_image(alpha)[..., 0]])


def _run_child(folder: Path, timeout_s: float) -> Record | None:
    """Run `inspect_request` on a folder; return a record if the child did not survive it."""
    package_root = str(Path(__file__).parents[2])
    # One BLAS thread: the thread stacks would count against the memory limit.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [package_root, os.environ.get("PYTHONPATH")])
    )
    command = [sys.executable, "-m", "stainfuser.io.probe", str(folder)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        reason = f"it could not be opened and read within {timeout_s:g} s"
        remedy = "check the file and the disk, or raise the configuration key probe: timeout_s"
        return verdict_record("unreadable", reason, remedy)
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        reason = f"reading it crashed OpenSlide ({name}): its header is damaged"
        return verdict_record("unreadable", reason, _AGAIN)
    if done.returncode > 0 or not Path(folder, "record.json").exists():
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        reason = f"reading it failed ({without_paths(lines[-1])})"
        return verdict_record("unreadable", reason, _AGAIN)
    return None


def verdict_record(verdict: str, reason: str, remedy: str, **properties: Any) -> Record:
    """Return a record that states a verdict."""
    return {"verdict": verdict, "reason": reason, "remedy": remedy, **properties}


def inspect_request(folder: Path) -> None:
    """Answer `request.json` in a folder with `record.json` and an overview; runs in the child."""
    request = json.loads(Path(folder, "request.json").read_text(encoding="utf-8"))
    _limit(resource.RLIMIT_CPU, request["cpu_s"])
    _limit(resource.RLIMIT_AS, request["memory_mb"] * 2**20)
    _limit(resource.RLIMIT_CORE, 0)
    path, properties = Path(request["path"]), {}
    try:
        overview = _inspect(path, request, properties)
        record = verdict_record("ok", "", "", **properties)
        write_image(folder / "overview.png", overview[..., :3])
        write_image(folder / "alpha.png", overview[..., 3])
    except SlideError as error:
        reason = error.wrong
        record = verdict_record(error.verdict, reason, error.remedy, **properties)
    except MemoryError:
        reason = f"reading it takes more than {request['memory_mb']} MiB"
        remedy = "check the file, or raise the configuration key probe: memory_mb"
        record = verdict_record("unreadable", reason, remedy, **properties)
    Path(folder, "record.json").write_text(json.dumps(record), encoding="utf-8")


def _limit(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (value if hard < 0 else min(value, hard), hard))


def _inspect(path: Path, request: Record, properties: Record) -> NDArray[np.uint8]:
    """Fill `properties` as far as possible and return the overview; raise `SlideError`."""
    check_slide_file(path)
    check_not_truncated(path)
    with SlideReader(path) as reader:
        sizes = [asdict(level) for level in reader.levels]
        properties |= {
            "width_px": reader.size_px[0],
            "height_px": reader.size_px[1],
            "levels": sizes,
            "vendor": reader.vendor,
            "objective_power": reader.objective_power,
            "has_icc_profile": reader.icc_profile is not None,
        }
        _check_size(path, reader, request["max_side_px"])
        mpp, source = _resolution(reader, request["mpp_override"], request["mpp_default"])
        properties |= {"mpp": mpp, "mpp_source": source}
        properties["corrupt_regions"] = _try_regions(reader)
    with SlideReader(path, mpp, fill_corrupt=True) as reader:
        return _overview(reader, request["overview_um_per_px"])


def _resolution(
    reader: SlideReader, override: float | None, default: float | None
) -> tuple[float, str]:
    """Return um per level-0 px and who said so."""
    if override is not None:
        return override, "override"
    try:
        return reader.mpp, "slide"
    except SlideError:
        if default is None:
            raise
        return default, "default"


def _check_size(path: Path, reader: SlideReader, max_side_px: int) -> None:
    width_px, height_px = reader.size_px
    if not 0 < min(width_px, height_px) <= max(width_px, height_px) <= max_side_px:
        wrong = f"it claims {width_px} x {height_px} px, expected sides of at most {max_side_px}"
        remedy = "check the file, or raise the configuration key probe: max_side_px"
        raise SlideError(path.name, "too_large", wrong, remedy)


def check_not_truncated(path: Path) -> None:
    """Raise `SlideError` if a TIFF refers to data beyond its end; other files pass."""
    import tifffile

    size = path.stat().st_size
    needed = size + 1 if _chain_is_broken(path, size) else 0
    try:
        with tifffile.TiffFile(path) as tiff:
            needed = max([needed, *map(_last_byte, tiff.pages)])
    except (tifffile.TiffFileError, struct.error, OSError, ValueError, IndexError, KeyError):
        pass  # not a TIFF, or none that tifffile understands: OpenSlide decides
    if needed > size:
        wrong = f"it ends after {size} bytes, before the data its header lists: it is truncated"
        raise SlideError(path.name, "truncated", wrong, _AGAIN)


def _last_byte(page: Any) -> int:
    if not page.dataoffsets:
        return 0
    offsets = np.asarray(page.dataoffsets, np.int64)
    counts = np.asarray(page.databytecounts, np.int64)
    rows = min(len(offsets), len(counts))
    return int(((offsets[:rows] + counts[:rows]) * (counts[:rows] > 0)).max(initial=0))


def _chain_is_broken(path: Path, size: int) -> bool:
    """Return whether an image directory lies beyond the end (writers often put them last)."""
    if size >= 2**32:
        return False  # the chain of large .ndpi files is not that of a TIFF
    try:
        with open(path, "rb") as handle:
            for _ in walk_directories(handle):
                pass
    except EOFError:
        return True
    except ValueError:
        return False
    return False


def _try_regions(reader: SlideReader) -> list[list[int]]:
    """Read the middle of every level and four more places of level 0; return those that fail.

    Raises `CorruptRegionError` if nothing of level 0 can be read.
    """
    width_px, height_px = reader.size_px
    middle = (0.5, 0.5)
    places = [(0, at) for at in (middle, (0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))]
    places += [(level, middle) for level in range(1, len(reader.levels))]
    failed = []
    for level, (across, down) in places:
        x_px, y_px = int(width_px * across), int(height_px * down)
        try:
            reader.read(x_px, y_px, _PROBE_PX, _PROBE_PX, level)
        except CorruptRegionError as error:
            failed.append(list(error.rectangle))
            last = error
    if sum(rectangle[4] == 0 for rectangle in failed) == 5:
        raise last
    return failed


def _overview(reader: SlideReader, um_per_px: float) -> NDArray[np.uint8]:
    """Return the slide at `um_per_px` as RGBA, or windows all over it if that takes too long."""
    width_px, height_px = reader.size_px
    scale = reader.mpp / um_per_px
    out_px = (max(1, round(width_px * scale)), max(1, round(height_px * scale)))
    downsample = max(
        (level.downsample for level in reader.levels if level.downsample * scale <= 1), default=1.0
    )
    if width_px * height_px / downsample**2 <= _MAX_OVERVIEW_READ_PX:
        return np.asarray(reader.read_scaled(0, 0, width_px, height_px, out_px))
    side = max(1, round(_PROBE_PX * scale))
    grid = np.zeros((_SAMPLED_WINDOWS * side, _SAMPLED_WINDOWS * side, 4), np.uint8)
    for row in range(_SAMPLED_WINDOWS):
        for column in range(_SAMPLED_WINDOWS):
            x_px = int((column + 0.5) * width_px / _SAMPLED_WINDOWS) - _PROBE_PX // 2
            y_px = int((row + 0.5) * height_px / _SAMPLED_WINDOWS) - _PROBE_PX // 2
            window = reader.read_scaled(x_px, y_px, _PROBE_PX, _PROBE_PX, (side, side))
            place = np.s_[row * side : (row + 1) * side, column * side : (column + 1) * side]
            grid[place] = np.asarray(window)
    return grid


if __name__ == "__main__":
    inspect_request(Path(sys.argv[1]))
