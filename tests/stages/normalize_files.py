"""One small slide with everything `normalize_slide` takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide

from fake_pipe import FakePipe
from slide_files import tissue_picture, write_tiff_slide
from stainfuser.files import read_json, sha256_file, write_json
from stainfuser.io.images import write_image
from stainfuser.io.masks import write_mask
from stainfuser.io.pyramid_writer import write_slide
from stainfuser.io.slides import SlideReader
from stainfuser.stages.normalize_slide import normalize_slide
from stainfuser.stain.tissue import tissue_mask

OPTIONS = {
    "mode": "operator",
    "operator": "auto",
    "tile_px": 256,
    "overlap_px": 64,
    "sample_tiles": 12,
    "residual_limit_de": 6.0,
    "fidelity_tiles": 0,
    "structure_guard_um": 2.0,
    "num_inference_steps": None,
    "jpeg_quality": 95,
    "output_tile_px": 256,
    "block_px": 512,
    "corrupt_tiles": "fail",
    "icc_profile": "carry",
    "image_operator": "per_image",
}
# A model with a diffusion part, which the tests replace.
MODEL_INDEX = '{"unet": ["a library", "a class"]}'
INK = np.s_[20:60, 100:350]


def ink_picture(side_px: int = 1300) -> np.ndarray:
    """Tissue on glass, and a stroke of blue pen far from it."""
    picture = tissue_picture(side_px)
    picture[INK] = (40, 60, 190)
    return picture


class Case:
    """A slide in a folder; `run` normalises it."""

    def __init__(self, folder: Path, picture: np.ndarray, mpp: float = 0.5, **tiff) -> None:
        self.folder = folder
        self._name_files()
        write_tiff_slide(self.slide_path, picture, mpp=mpp, **tiff)
        self.picture = picture
        self._prepare(mpp)

    @classmethod
    def at(cls, folder: str) -> Case:
        """Return the case that another process made in a folder; it knows no pixels."""
        case = cls.__new__(cls)
        case.folder = Path(folder)
        case._name_files()
        return case

    def _name_files(self) -> None:
        self.slide_path = self.folder / "source.tiff"
        self.output_path = self.folder / "out" / "my slide.svs"
        self.record_path = self.folder / "out" / "my slide.json"
        self.work_dir = self.folder / "work" / "my slide"

    def _prepare(self, mpp: float) -> None:
        height, width = self.picture.shape[:2]
        size = (max(1, round(width * mpp / 8)), max(1, round(height * mpp / 8)))
        with SlideReader(self.slide_path, mpp) as reader:
            # The overview may be of a damaged slide: take it from the picture.
            step_y, step_x = height / size[1], width / size[0]
            rows = (np.arange(size[1]) * step_y + step_y / 2).astype(int)
            columns = (np.arange(size[0]) * step_x + step_x / 2).astype(int)
            overview = self.picture[rows][:, columns]
            record = {"width_px": width, "height_px": height, "mpp": mpp}
            record["objective_power"] = reader.objective_power
        record["sha256"] = sha256_file(self.slide_path)
        self.mask = tissue_mask(overview, um_per_px=8.0)
        write_mask(self.folder / "mask.png", self.mask, {})
        write_json(self.folder / "probe.json", record)
        write_image(self.folder / "my target.png", tissue_picture(128))
        (self.folder / "model").mkdir(exist_ok=True)
        (self.folder / "model" / "model_index.json").write_text(MODEL_INDEX)

    def run(self, pipe: FakePipe | None = None, **changes) -> dict:
        """Normalise and return the record."""
        given = {
            "slide": "my slide",
            "slide_path": self.slide_path,
            "json_path": self.folder / "probe.json",
            "mask_path": self.folder / "mask.png",
            "target_path": self.folder / "my target.png",
            "model_dir": self.folder / "model",
            "output_path": self.output_path,
            "record_path": self.record_path,
            "work_dir": self.work_dir,
            "seed": 1,
            "load_model": lambda *_: pipe or FakePipe(),
            **OPTIONS,
        }
        normalize_slide(**{**given, **changes})
        return read_json(self.record_path)

    def pixels(self) -> np.ndarray:
        """Return level 0 of the result."""
        with openslide.OpenSlide(self.output_path) as slide:
            return np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]

    def recompressed(self) -> np.ndarray:
        """Return the source's pixels after the JPEG the results go through."""
        path = self.folder / "recompressed.svs"
        if not path.exists():
            quality, tile_px = OPTIONS["jpeg_quality"], OPTIONS["output_tile_px"]
            options = {"mpp": 0.5, "objective_power": None, "quality": quality}
            write_slide(path, self.picture, tile_px=tile_px, **options)
        with openslide.OpenSlide(path) as slide:
            return np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]

    def place(self, of_tissue: bool) -> np.ndarray:
        """Return (H, W) bool: well inside the tissue, or well outside of it."""
        from scipy import ndimage

        mask = self.mask if of_tissue else ~self.mask
        inner = ndimage.binary_erosion(mask, iterations=3 if of_tissue else 12, border_value=1)
        height, width = self.picture.shape[:2]
        rows = np.arange(height) * mask.shape[0] // height
        columns = np.arange(width) * mask.shape[1] // width
        return inner[rows][:, columns]
