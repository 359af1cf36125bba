"""What is decided of a slide before its first pixel is written: its glass, its sample, its plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.normalize_options import NormalizeOptions
from stainfuser.diffusion.planning import Plan, Sample
from stainfuser.diffusion.slide_view import SlideView, choose_plane_mpp, draw_tiles
from stainfuser.diffusion.stage_model import StageModel
from stainfuser.io.regions import RegionReader
from stainfuser.seeds import generator
from stainfuser.stain.blend import glass_colour, soften_mask


@dataclass(frozen=True)
class MaskedSlide:
    """A slide's geometry and where its tissue is.

    Attributes
    ----------
    name
        The slide.
    probe
        Its record by `probe_slide`: `width_px`, `height_px`, `mpp`.
    mask
        (H, W) bool tissue mask of all of it.
    """

    name: str
    probe: Mapping[str, Any]
    mask: NDArray[np.bool_]

    @property
    def um_per_mask_px(self) -> float:
        """Resolution of the mask."""
        return self.probe["mpp"] * self.probe["width_px"] / self.mask.shape[1]

    def glass(self, reader: RegionReader) -> NDArray[np.float64]:
        """Return the colour of the slide's glass, (3,) RGB in [0, 255]."""
        height, width = self.mask.shape
        rgba = np.asarray(reader.read_scaled(0, 0, *reader.size_px, (width, height)))
        # Where the scanner recorded nothing there is no glass to learn from.
        rgb = np.where(rgba[..., 3:] < 128, 0, rgba[..., :3]).astype(np.uint8)
        return glass_colour(rgb, self.mask, self.um_per_mask_px)

    @cached_property
    def weight(self) -> NDArray[np.uint8]:
        """How strongly each place is changed, (H, W) uint8 like the mask."""
        return soften_mask(self.mask, self.um_per_mask_px)

    def view(self, plane_mpp: float) -> SlideView:
        """Return the slide as a model of this resolution sees it."""
        size_px = (self.probe["width_px"], self.probe["height_px"])
        return SlideView(*size_px, self.probe["mpp"], plane_mpp, self.weight)

    def plan(
        self,
        reader: RegionReader,
        model: StageModel,
        options: NormalizeOptions,
        white: NDArray[np.float64],
        seed: int,
    ) -> Plan:
        """Show the model a sample of the slide's tissue and decide how it is normalised."""
        rng = generator(seed, "normalize", self.name)
        view = self.view(choose_plane_mpp(model.mpp, self.probe["mpp"]))
        side_px = model.sample_px(options)
        corners = draw_tiles(view, side_px, options.sample_tiles, rng)
        tiles = [view.read_tile(reader, x, y, side_px) for x, y in corners]
        return model.plan(Sample(self.name, corners, tiles, white, view.plane_mpp), options, rng)
