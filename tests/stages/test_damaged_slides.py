"""Damaged copies of slides: no crash, no hang, no result that is not what the file shows.

STAINFUSER_DAMAGED_COPIES says how many copies are made (seeded); ``make test-damage`` makes 200.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from normalize_files import OPTIONS

from fake_pipe import FakePipe, recolour
from slide_files import tissue_picture, write_tiff_slide
from stainfuser.errors import SlideError
from stainfuser.files import read_json
from stainfuser.io.images import write_image
from stainfuser.io.masks import read_mask
from stainfuser.io.pyramid_writer import write_slide
from stainfuser.io.slides import SlideReader
from stainfuser.stages.mask_tissue import mask_tissue
from stainfuser.stages.normalize_slide import normalize_slide
from stainfuser.stages.probe_slide import probe_slide
from stainfuser.stain.blend import soften_mask

COPIES = int(os.environ.get("STAINFUSER_DAMAGED_COPIES", "24"))
LIMIT_S = 120.0
SIDE_PX = 1300
PROBE = {"mpp_override": None, "mpp_default": None, "timeout_s": 60.0, "memory_mb": 4096}
PROBE |= {"max_side_px": 400_000, "min_tissue_fraction": 0.001}


def flip(content: bytearray, rng: np.random.Generator) -> None:
    for at in rng.integers(0, len(content), int(rng.integers(1, 65))):
        content[at] ^= int(rng.integers(1, 256))


def flip_header(content: bytearray, rng: np.random.Generator) -> None:
    """Directories and headers lie at the ends."""
    reach = min(3000, len(content) // 2)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(0, reach))
        content[at if rng.random() < 0.5 else -1 - at] ^= int(rng.integers(1, 256))


def zero(content: bytearray, rng: np.random.Generator) -> None:
    count = int(rng.integers(16, 20_000))
    at = int(rng.integers(0, len(content)))
    content[at : at + count] = bytes(len(content[at : at + count]))


def scramble(content: bytearray, rng: np.random.Generator) -> None:
    count = int(rng.integers(16, 20_000))
    at = int(rng.integers(0, len(content)))
    content[at : at + count] = rng.bytes(len(content[at : at + count]))


def cut(content: bytearray, rng: np.random.Generator) -> None:
    del content[int(rng.integers(0, len(content))) :]


def shift(content: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(0, len(content)))
    content[at:at] = rng.bytes(int(rng.integers(1, 600)))


DAMAGES = (flip, flip_header, zero, scramble, cut, shift)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> list[Path]:
    """Slides as this package, a scanner and a converter write them."""
    folder = tmp_path_factory.mktemp("sources")
    picture = tissue_picture(SIDE_PX)
    write_slide(folder / "own.svs", picture, mpp=0.5, objective_power=20)
    scanner = {
        "compression": "jpeg",
        "tile": (240, 240),
        "aperio": "Aperio x|AppMag = 20|MPP = 0.5",
    }
    write_tiff_slide(folder / "scanner.svs", picture, levels=2, **scanner)
    write_tiff_slide(folder / "converter.tif", picture)
    return [folder / name for name in ("own.svs", "scanner.svs", "converter.tif")]


class Copy:
    """One damaged copy in a folder, and what became of it."""

    def __init__(self, folder: Path, source: Path, number: int) -> None:
        rng = np.random.default_rng([1, number])
        content = bytearray(source.read_bytes())
        self.damage = DAMAGES[number % len(DAMAGES)]
        self.damage(content, rng)
        self.folder, self.path = folder, folder / source.name
        self.path.write_bytes(bytes(content))
        write_image(folder / "target.png", tissue_picture(128))
        (folder / "model").mkdir()
        (folder / "model" / "model_index.json").write_text('{"unet": ["a", "b"]}')
        self.output = folder / "out" / "a.svs"

    def chain(self) -> str:
        """Probe, mask and normalise the copy; return a word for how it ended."""
        folder = self.folder
        json_path, mask_path = folder / "probe.json", folder / "mask.png"
        probe_slide(slide="a", slide_path=self.path, json_path=json_path, **PROBE)
        if (verdict := read_json(json_path)["verdict"]) != "ok":
            return f"probe: {verdict}"
        files = {"slide": "a", "slide_path": self.path, "json_path": json_path}
        try:
            overlay = folder / "overlay.jpg"
            mask_tissue(**files, mask_path=mask_path, overlay_path=overlay, um_per_px=8.0)
            normalize_slide(
                **files,
                mask_path=mask_path,
                target_path=folder / "target.png",
                model_dir=folder / "model",
                output_path=self.output,
                record_path=folder / "out" / "a.json",
                work_dir=folder / "work",
                seed=1,
                load_model=lambda *_: FakePipe(),
                **OPTIONS,
            )
        except SlideError as error:
            assert str(error).count("\n") == 0
            return f"normalize: {error.verdict}"
        return "finished"

    def judge(self) -> str:
        """Compare the result with what OpenSlide alone shows of the damaged file."""
        record = read_json(self.folder / "out" / "a.json")
        mpp = record["mpp"]
        with SlideReader(self.path, mpp, fast=False) as reader:
            shown = reader.read(0, 0, *reader.size_px)
        with SlideReader(self.output, mpp, fast=False) as reader:
            assert reader.size_px == (shown.shape[1], shown.shape[0])
            result = reader.read(0, 0, *reader.size_px)
            assert reader.mpp == pytest.approx(mpp, rel=1e-6)
        mask = read_mask(self.folder / "mask.png")
        weight = soften_mask(mask, mpp * shown.shape[1] / mask.shape[1])
        rows, columns = (
            np.arange(side) * count // side
            for side, count in zip(shown.shape[:2], weight.shape, strict=True)
        )
        weight = weight[rows][:, columns]
        wanted = np.where(
            (weight == 255)[..., None], recolour(shown, record["background_rgb"]), shown
        )
        error = np.abs(result.astype(int) - wanted).mean(-1)
        error[(weight > 0) & (weight < 255)] = 0
        count = tuple(side // 50 * 50 for side in error.shape)
        boxes = error[: count[0], : count[1]].reshape(count[0] // 50, 50, -1, 50).mean((1, 3))
        assert np.quantile(boxes, 0.98) < 12, np.quantile(boxes, [0.5, 0.9, 0.98, 1.0])
        if not np.array_equal(shown.shape, (SIDE_PX, SIDE_PX, 3)):
            return "finished: another size"
        differs = np.abs(shown.astype(int) - tissue_picture(SIDE_PX)).max(-1) > 60
        return "finished: other pixels" if differs.mean() > 1e-4 else "finished: intact"


def in_a_child(work, limit_s: float = LIMIT_S) -> str:
    """Return what `work` returns, done in a fork that may crash or hang."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(receive)
        try:
            answer = work()
        except BaseException:
            answer = "error: " + traceback.format_exc()
        os.write(send, answer.encode()[-60_000:])
        os._exit(0)
    os.close(send)
    ends_s = time.monotonic() + limit_s
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() > ends_s:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(receive)
            return "error: it hung"
        time.sleep(0.005)
    with os.fdopen(receive, "rb") as handle:
        answer = handle.read().decode()
    code = os.waitstatus_to_exitcode(ended[1])
    return answer if code == 0 else f"error: it crashed ({code})"


def test_damaged_copies(sources, tmp_path, record_property):
    outcomes: Counter[str] = Counter()
    bad = []
    for number in range(COPIES):
        folder = tmp_path / str(number)
        folder.mkdir()
        copy = Copy(folder, sources[number // len(DAMAGES) % len(sources)], number)
        outcome = in_a_child(copy.chain)
        if outcome == "finished":
            outcome = in_a_child(copy.judge)
        elif copy.output.exists():
            outcome = f"error: a slide in spite of {outcome}"
        outcomes[outcome if not outcome.startswith("error") else "error"] += 1
        if outcome.startswith("error"):
            bad.append(f"{number} ({copy.path.name}, {copy.damage.__name__}): {outcome}")
    print("\n".join(f"{count:4} {outcome}" for outcome, count in outcomes.most_common()))
    assert not bad, "\n".join(bad)
    assert sum(count for name, count in outcomes.items() if "finished" not in name) > COPIES / 4
