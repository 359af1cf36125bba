"""Kills, full disks, two runs at once: nothing is lost, no final name on anything unfinished."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from normalize_files import Case

from slide_files import tissue_picture
from stainfuser.errors import InputError
from stainfuser.io.slides import SlideReader

TESTS = Path(__file__).parents[1]
CHILD = """
import sys; sys.path[:0] = {paths!r}
import resource, signal
from normalize_files import Case
from stainfuser.diffusion.slide_arms import peak_memory_mb
from stainfuser.errors import StainFuserError
options = {options!r}
limit, peak = (options.pop(key, None) for key in ("file_size", "peak"))
case = Case.at({folder!r})
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
print("ready", flush=True)
try:
    case.run(**{{"threads": 2, "block_px": 256, **options}})
except StainFuserError as error:
    sys.exit(str(error))
if peak:
    print(peak_memory_mb())
"""


def start(case: Case, **options) -> subprocess.Popen:
    """Normalise in a process of its own; wait until its imports are done."""
    paths = [str(TESTS.parent / "scripts"), str(TESTS), str(TESTS / "stages")]
    code = CHILD.format(paths=paths, folder=str(case.folder), options=options)
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "ready\n"
    return child


def blocks_noted(case: Case) -> int:
    journals = list(case.work_dir.glob("*/slide/journal"))
    return journals[0].read_bytes().count(b'"end":') if journals else 0


def products(case: Case) -> tuple[bytes, bytes]:
    return case.output_path.read_bytes(), case.record_path.read_bytes()


@pytest.mark.parametrize("mode", ["operator", "render"])
def test_killed_ten_times_at_random_moments(tmp_path, mode):
    """The bytes are those of an undisturbed run, and no noted block is done twice."""
    case = Case(tmp_path, tissue_picture(1100))
    began_s = time.monotonic()
    case.run(mode=mode, block_px=256, threads=2)
    took_s = time.monotonic() - began_s
    whole = products(case)
    case.output_path.unlink()
    case.record_path.unlink()
    rng = np.random.default_rng(7 if mode == "render" else 8)
    kills, noted = 0, 0
    for _ in range(40):
        child = start(case, mode=mode)
        time.sleep(rng.uniform(0.0, 0.5 * took_s))
        child.send_signal(signal.SIGKILL)
        finished = child.wait() == 0
        child.stderr.close()
        if finished or case.record_path.exists():
            case.output_path.unlink()
            case.record_path.unlink(missing_ok=True)
            shutil.rmtree(case.work_dir, ignore_errors=True)
            noted = 0
            continue
        kills += 1
        if case.output_path.exists():  # killed between the slide and its record
            assert case.output_path.read_bytes() == whole[0]
            noted = 0
        elif list(case.work_dir.glob("*/slide/journal")):
            assert blocks_noted(case) >= noted
            noted = blocks_noted(case)
        if kills == 10:
            break
    assert kills == 10
    case.run(mode=mode, block_px=256, threads=2)
    assert products(case) == whole
    assert not case.work_dir.exists()


def test_two_runs_on_one_folder_at_once_end_in_one_result(tmp_path):
    case = Case(tmp_path, tissue_picture(900))
    case.run(block_px=256)
    whole = products(case)
    case.output_path.unlink()
    children = [start(case) for _ in range(2)]
    errors = [child.communicate()[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], errors
    assert products(case) == whole


def test_a_limit_in_the_middle_is_one_sentence_and_loses_nothing(tmp_path):
    """With room again the run goes on behind what it has."""
    case = Case(tmp_path, tissue_picture(1100))
    case.run(block_px=256)
    whole = products(case)
    for path in (case.output_path, case.record_path):
        path.unlink()
    limit = len(whole[0]) // 2
    child = start(case, file_size=limit)
    message = child.communicate()[1]
    assert child.returncode == 1
    assert "a file may not become that large there; raise the limit" in message.splitlines()[-1]
    assert not case.output_path.exists() and not case.record_path.exists()
    assert blocks_noted(case) >= 2
    case.run(block_px=256)
    assert products(case) == whole


def mounted(folder: Path, size: str) -> bool:
    """Mount a small disk in memory; False where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    return shutil.which("mount") and subprocess.run(command, capture_output=True).returncode == 0


def test_a_disk_that_is_really_full(tmp_path):
    disk = tmp_path / "disk"
    if not mounted(disk, "600k"):
        pytest.skip("mounting a small disk is not allowed here")
    try:
        folder = tmp_path / "case"
        folder.mkdir()
        case = Case(folder, tissue_picture(1100))
        with pytest.raises(InputError, match="the disk is full"):
            case.run(work_dir=disk / "work", block_px=256)
        assert not case.output_path.exists()
        with pytest.raises(InputError, match="the disk is full"):
            case.run(output_path=disk / "out" / "a.svs", block_px=256)
        assert [path.name for path in (disk / "out").iterdir() if path.suffix == ".svs"] == []
        case.run(block_px=256)
        assert case.output_path.exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_read_only_output_folder_is_one_sentence():
    """As another user, since root may write everywhere; with leave to write the same run ends."""
    folder = Path(tempfile.mkdtemp())  # pytest's own folders let no other user in
    try:
        case = Case(folder, tissue_picture(300))
        case.run()  # imports everything: the other user may not be able to
        shutil.rmtree(case.output_path.parent)
        shutil.rmtree(case.work_dir.parent)
        case.output_path.parent.mkdir()
        folder.chmod(0o777)
        case.output_path.parent.chmod(0o555)
        assert _as_another_user(lambda: _is_refused(case))
        assert list(case.output_path.parent.iterdir()) == []
        case.output_path.parent.chmod(0o777)
        assert _as_another_user(lambda: not _is_refused(case))
        assert case.output_path.exists()
    finally:
        shutil.rmtree(folder)


def _as_another_user(claim: Callable[[], bool]) -> bool:
    """Return whether something is true for a user without root's rights."""
    if os.geteuid() != 0:
        return claim()
    pid = os.fork()
    if pid == 0:
        is_true = False
        try:
            os.seteuid(65534)
            is_true = claim()
        finally:
            os._exit(not is_true)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _is_refused(case: Case) -> bool:
    try:
        case.run()
    except InputError as error:
        return "out: cannot be written to (permission denied)" in str(error)
    return False


@pytest.mark.parametrize("changes", [{"jpeg_quality": 80}, {"seed": 2}, {"block_px": 512}])
def test_what_another_configuration_left_is_not_reused(tmp_path, changes):
    case = Case(tmp_path, tissue_picture(900))
    child = start(case)
    while blocks_noted(case) < 3 and child.poll() is None:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    case.run(**{"block_px": 256, **changes})
    mixed = products(case)
    shutil.rmtree(case.output_path.parent)
    case.run(**{"block_px": 256, **changes})
    assert products(case) == mixed


def test_memory_does_not_grow_with_the_slide(tmp_path):
    """Nine times the pixels: at most a tenth more memory at its peak."""
    peaks = []
    for times in (2, 6):
        folder = tmp_path / str(times)
        folder.mkdir()
        picture = np.tile(tissue_picture(1500), (times, times, 1))
        child = start(Case(folder, picture, compression="jpeg"), peak=True)
        output, message = child.communicate()
        assert child.returncode == 0, message
        peaks.append(float(output))
    assert 50 < peaks[1] <= 1.1 * peaks[0], peaks


def test_the_source_is_never_touched(tmp_path):
    case = Case(tmp_path, tissue_picture(600))
    before = case.slide_path.read_bytes(), case.slide_path.stat().st_mtime_ns
    case.run()
    assert (case.slide_path.read_bytes(), case.slide_path.stat().st_mtime_ns) == before
    with SlideReader(case.slide_path) as reader:
        assert reader.size_px == (600, 600)
