"""Run the stages from slide to tiles on a folder, as the workflow does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stainfuser.files import read_json
from stainfuser.stages.extract_tiles import extract_tiles
from stainfuser.stages.mask_tissue import mask_tissue
from stainfuser.stages.probe_slide import probe_slide

PROBE = {
    "mpp_override": None,
    "mpp_default": None,
    "timeout_s": 60,
    "memory_mb": 8192,
    "max_side_px": 1_000_000,
    "min_tissue_fraction": 0.001,
}
TILES = {
    "seed": 1,
    "tile_px": 128,
    "mpp": 0.5,
    "min_tissue_fraction": 0.5,
    "max_per_slide": 10,
    "encoding": "raw",
    "jpeg_quality": 95,
}


@dataclass(frozen=True)
class Entry:
    """One slide and where its products go."""

    path: Path
    folder: Path
    name: str = 'a "b" façade'

    @property
    def json_path(self) -> Path:
        return self.folder / "slides" / f"{self.name}.json"

    @property
    def mask_path(self) -> Path:
        return self.folder / "masks" / f"{self.name}.png"

    @property
    def overlay_path(self) -> Path:
        return self.folder / "masks" / "overlay" / f"{self.name}.jpg"

    @property
    def tiles_path(self) -> Path:
        return self.folder / "tiles" / f"{self.name}.h5"

    def probe(self, **changes) -> dict:
        """Probe and return the record."""
        paths = {"slide": self.name, "slide_path": self.path, "json_path": self.json_path}
        probe_slide(**paths, **{**PROBE, **changes})
        return read_json(self.json_path)

    def mask(self, um_per_px: float = 8.0) -> Path:
        """Write the mask and the overlay and return the mask's path."""
        mask_tissue(
            slide=self.name,
            slide_path=self.path,
            json_path=self.json_path,
            mask_path=self.mask_path,
            overlay_path=self.overlay_path,
            um_per_px=um_per_px,
        )
        return self.mask_path

    def tiles(self, **changes) -> Path:
        """Write the tiles and return their path."""
        extract_tiles(
            slide=self.name,
            slide_path=self.path,
            json_path=self.json_path,
            mask_path=self.mask_path,
            tiles_path=self.tiles_path,
            **{**TILES, **changes},
        )
        return self.tiles_path
