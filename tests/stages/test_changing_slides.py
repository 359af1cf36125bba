"""Slides that change while they are read, and work that belongs to what they were."""

from __future__ import annotations

import os

import numpy as np
import pytest
from normalize_files import Case

from fake_pipe import FakePipe
from slide_files import tissue_picture, write_tiff_slide
from stainfuser.errors import SlideError
from stainfuser.io.pyramid_writer import PyramidWriter


def meddle(monkeypatch, change, at_block: int = 2) -> None:
    """Do something to the source when a block is written."""
    write = PyramidWriter.write

    def meddled(self, block, *given, **more):
        if block.index == at_block:
            change()
        return write(self, block, *given, **more)

    monkeypatch.setattr(PyramidWriter, "write", meddled)


def one_byte_is_rewritten(path) -> None:
    stat = path.stat()
    with open(path, "r+b") as handle:
        handle.write(handle.read(1))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))


def it_grows(path) -> None:
    with open(path, "ab") as handle:
        handle.write(b"more")


def it_is_replaced(path) -> None:
    other = path.with_name("other.tiff")
    write_tiff_slide(other, tissue_picture(900, seed=4))
    os.replace(other, path)


@pytest.mark.parametrize("policy", ["fail", "fill"])
@pytest.mark.parametrize("change", [one_byte_is_rewritten, it_grows, it_is_replaced])
def test_a_slide_that_changes_while_it_is_read_gives_no_result(
    tmp_path, monkeypatch, change, policy
):
    case = Case(tmp_path, tissue_picture(900))
    meddle(monkeypatch, lambda: change(case.slide_path))
    with pytest.raises(SlideError, match="changed while it was read") as caught:
        case.run(corrupt_tiles=policy, threads=2)
    assert caught.value.verdict == "changed"
    assert not case.output_path.exists() and not case.record_path.exists()
    assert not case.work_dir.exists()


@pytest.mark.parametrize("policy", ["fail", "fill"])
def test_a_slide_that_is_cut_while_it_is_read_gives_no_result(tmp_path, monkeypatch, policy):
    case = Case(tmp_path, tissue_picture(900))
    meddle(monkeypatch, lambda: os.truncate(case.slide_path, 20_000), at_block=0)
    with pytest.raises(SlideError):
        case.run(corrupt_tiles=policy)
    assert not case.output_path.exists() and not case.record_path.exists()


def test_work_on_another_file_of_the_same_name_is_not_gone_on_with(tmp_path, monkeypatch):
    case = Case(tmp_path, tissue_picture(900))

    def stop():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        meddle(patch, stop)
        case.run()
    assert list(case.work_dir.glob("*/slide/journal"))
    picture = tissue_picture(900, seed=9)
    write_tiff_slide(case.slide_path, picture)
    pipe = FakePipe()
    case.run(pipe)
    assert pipe.tiles > 0  # planned anew
    fresh_dir = tmp_path / "fresh"
    fresh_dir.mkdir()
    fresh = Case(fresh_dir, picture)
    fresh.run(mask_path=case.folder / "mask.png", json_path=case.folder / "probe.json")
    assert np.array_equal(case.pixels(), fresh.pixels())
