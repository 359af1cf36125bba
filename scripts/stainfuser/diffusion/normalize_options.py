"""The section `normalize` of the configuration, checked."""

from __future__ import annotations

from dataclasses import dataclass

from stainfuser.errors import ConfigError


@dataclass(frozen=True)
class NormalizeOptions:
    """Keys of the section `normalize`; what they mean stands in config.yaml."""

    mode: str
    tile_px: int
    overlap_px: int
    sample_tiles: int
    residual_limit_de: float
    structure_guard_um: float
    num_inference_steps: int | None
    jpeg_quality: int
    output_tile_px: int
    block_px: int
    corrupt_tiles: str
    icc_profile: str

    def __post_init__(self) -> None:
        _require("mode", self.mode, self.mode in ("operator", "render"), "operator or render")
        _require(
            "corrupt_tiles",
            self.corrupt_tiles,
            self.corrupt_tiles in ("fail", "fill"),
            "fail or fill",
        )
        _require(
            "icc_profile", self.icc_profile, self.icc_profile in ("carry", "drop"), "carry or drop"
        )
        _require("tile_px", self.tile_px, self.tile_px >= 64, "at least 64")
        fits = 0 <= self.overlap_px <= self.tile_px // 2
        _require("overlap_px", self.overlap_px, fits, f"0 to {self.tile_px // 2}, half of tile_px")
        _require("sample_tiles", self.sample_tiles, self.sample_tiles >= 1, "at least 1")
        _require(
            "residual_limit_de", self.residual_limit_de, self.residual_limit_de >= 0, "0 or more"
        )
        _require(
            "structure_guard_um", self.structure_guard_um, self.structure_guard_um >= 0, "0 or more"
        )
        _require("jpeg_quality", self.jpeg_quality, 1 <= self.jpeg_quality <= 100, "1 to 100")
        tile_px = self.output_tile_px
        _require(
            "output_tile_px",
            tile_px,
            tile_px >= 64 and tile_px % 16 == 0,
            "a multiple of 16, at least 64",
        )
        fits = self.block_px >= tile_px and self.block_px % tile_px == 0
        _require("block_px", self.block_px, fits, f"a multiple of output_tile_px, {tile_px}")


def _require(key: str, value: object, is_right: bool, expected: str) -> None:
    if not is_right:
        raise ConfigError(f"normalize.{key}", f"{value!r} is out of range", f"give {expected}")
