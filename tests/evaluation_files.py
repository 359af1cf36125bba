"""A small folder of results for the tests of evaluation and report, and a model that needs none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from slide_files import tissue_picture
from stainfuser.files import write_json
from stainfuser.io.images import write_image
from stainfuser.io.pyramid_writer import write_slide
from stainfuser.io.tile_store import open_tile_writer
from stainfuser.stain.optical_density import od_to_rgb, rgb_to_od

TILE_PX, SLIDE_PX, MPP = 64, 512, 0.5
STAIN = np.array([[0.9, 0.2, 0.0], [0.1, 0.8, 0.1], [0.3, 0.1, 1.1]])


def restain(rgb: np.ndarray) -> np.ndarray:
    """Return an image in the look that is the truth here, (H, W, 3) uint8."""
    return od_to_rgb(rgb_to_od(rgb) @ STAIN.T.astype(np.float32))


class TrueModel:
    """Called like the pipeline; it knows the truth, so that its numbers can be predicted."""

    config = SimpleNamespace(mpp=MPP)
    operator_head = "a head"
    can_render = True

    def encode_target(self, image: np.ndarray) -> str:
        """Return something that is passed back with every call."""
        assert image.dtype == np.uint8
        return "encoded"

    def fit_slide(self, images: np.ndarray, target: str) -> int:
        """Return something that is passed back with the same tile."""
        assert target == "encoded"
        return int(images.sum())

    def __call__(
        self,
        source: np.ndarray,
        target: str,
        *,
        generator: int,
        output_type: str,
        slide: int,
        mode: str | None,
        num_inference_steps: int | None,
    ):
        """Return the truth of (N, H, W, 3) uint8 tiles."""
        assert target == "encoded" and output_type == "np" and 0 <= generator < 2**63
        assert slide == source.sum() and mode in ("render", "operator")
        return SimpleNamespace(images=restain(source))


class FailingModel(TrueModel):
    """A model that has no memory left."""

    def __call__(self, *_: object, **__: object):
        """Raise what torch raises."""
        raise RuntimeError("out of memory")


@dataclass
class Cohort:
    """Paths of the products of one small run, by kind."""

    folder: Path
    tiles_paths: list[Path] = field(default_factory=list)
    normalized_paths: list[Path] = field(default_factory=list)
    record_paths: list[Path] = field(default_factory=list)
    truth_paths: list[Path] = field(default_factory=list)
    target_paths: list[Path] = field(default_factory=list)
    slide_paths: dict[str, Path] = field(default_factory=dict)

    @property
    def model_dir(self) -> Path:
        """A folder that holds something to be fingerprinted."""
        path = self.folder / "model"
        path.mkdir(exist_ok=True)
        (path / "model_index.json").write_text("{}")
        return path


def make_cohort(
    folder: Path,
    slides: Sequence[str] = ("one", "two"),
    targets: Sequence[str] = ("demo",),
    tiles: int = 4,
    with_truth: bool = True,
) -> Cohort:
    """Write slides, tiles, targets, normalised slides with records and, if wanted, the truth."""
    cohort = Cohort(folder)
    for number, target in enumerate(targets):
        cohort.target_paths.append(folder / "targets" / f"{target}.png")
        write_image(cohort.target_paths[-1], restain(tissue_picture(256, seed=90 + number)))
    for number, slide in enumerate(slides):
        picture = tissue_picture(SLIDE_PX, seed=number)
        cohort.slide_paths[slide] = folder / "source" / f"{slide}.svs"
        _write(cohort.slide_paths[slide], picture)
        cohort.tiles_paths.append(folder / "tiles" / f"{slide}.h5")
        write_tiles(cohort.tiles_paths[-1], slide, picture, tiles)
        if with_truth:
            cohort.truth_paths.append(folder / "truth" / f"{slide}.svs")
            _write(cohort.truth_paths[-1], restain(picture))
        for target in targets:
            add_normalized(cohort, slide, target, restain(picture))
    return cohort


def add_normalized(cohort: Cohort, slide: str, target: str, picture: np.ndarray) -> None:
    """Write one normalised slide and its record."""
    path = cohort.folder / "normalized" / target / f"{slide}.svs"
    _write(path, picture)
    cohort.normalized_paths.append(path)
    record = path.with_name(f"{slide}.json")
    residual = {
        "median_de": 1.25,
        "median_de_95_percent_low": 1.1,
        "median_de_95_percent_high": 1.4,
        "median_px_de": 1.0,
        "tiles": 32,
        "on_held_out_tiles": True,
    }
    write_json(
        record,
        {
            "slide": slide,
            "target": target,
            "kind": "slide",
            "width_px": SLIDE_PX,
            "height_px": SLIDE_PX,
            "mpp": MPP,
            "objective_power": 20.0,
            "mode": "operator",
            "mode_used": "operator",
            "reason": None,
            "tiles": [[200, 200]] * 32,
            "residual": residual,
            "filled_rectangles_px": [],
            "stamp": {"version": "0.1.0", "model_sha256": "0" * 64},
        },
    )
    cohort.record_paths.append(record)


def write_tiles(path: Path, slide: str, picture: np.ndarray, tiles: int) -> None:
    """Write tiles from the middle row of a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    attributes = {"slide": slide, "mpp": MPP, "level0_tile_px": TILE_PX}
    with open_tile_writer(path, tile_px=TILE_PX, attributes=attributes) as writer:
        for index in range(tiles):
            x, y = 96 + 40 * index, 220
            writer.append(picture[y : y + TILE_PX, x : x + TILE_PX], x, y)


def _write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_slide(path, picture, mpp=MPP, objective_power=20.0, quality=95)
