"""The section `normalize` of the configuration, checked."""

from __future__ import annotations

from dataclasses import dataclass

from stainfuser.errors import ConfigError


@dataclass(frozen=True)
class NormalizeOptions:
    """Keys of the section `normalize`; what they mean stands in config.yaml."""

    mode: str
    operator: str
    tile_px: int
    overlap_px: int
    sample_tiles: int
    residual_limit_de: float
    fidelity_tiles: int
    structure_guard_um: float
    num_inference_steps: int | None
    jpeg_quality: int
    output_tile_px: int
    block_px: int
    corrupt_tiles: str
    icc_profile: str
    image_operator: str

    def __post_init__(self) -> None:
        self._one_of("mode", "operator", "render")
        self._one_of("operator", "auto", "head", "model")
        self._one_of("corrupt_tiles", "fail", "fill")
        self._one_of("icc_profile", "carry", "drop")
        self._one_of("image_operator", "per_image", "per_folder")
        self._check("tile_px", self.tile_px >= 64, "at least 64")
        half_px = self.tile_px // 2
        self._check("overlap_px", 0 <= self.overlap_px <= half_px, f"0 to {half_px}")
        self._check("sample_tiles", self.sample_tiles >= 1, "at least 1")
        self._check("residual_limit_de", self.residual_limit_de >= 0, "0 or more")
        self._check("fidelity_tiles", self.fidelity_tiles >= 0, "0 or more")
        self._check("structure_guard_um", self.structure_guard_um >= 0, "0 or more")
        steps = self.num_inference_steps
        self._check("num_inference_steps", steps is None or steps >= 1, "null, or at least 1")
        self._check("jpeg_quality", 1 <= self.jpeg_quality <= 100, "1 to 100")
        tile_px, block_px = self.output_tile_px, self.block_px
        self._check("output_tile_px", tile_px >= 64 and tile_px % 16 == 0, "a multiple of 16")
        is_multiple = block_px >= tile_px and block_px % tile_px == 0
        self._check("block_px", is_multiple, f"a multiple of output_tile_px ({tile_px})")

    def _one_of(self, key: str, *known: str) -> None:
        self._check(key, getattr(self, key) in known, " or ".join(known))

    def _check(self, key: str, is_right: bool, expected: str) -> None:
        if not is_right:
            found = f"{getattr(self, key)!r} is out of range"
            raise ConfigError(f"configuration key normalize: {key}", found, f"give {expected}")
