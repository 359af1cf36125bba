"""A slide on its way to the target's stain: planned, painted block by block, and described."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.changes import Change, make_change
from stainfuser.diffusion.fidelity import fidelity_of
from stainfuser.diffusion.forked import ForkedCall, can_fork
from stainfuser.diffusion.normalize_options import NormalizeOptions
from stainfuser.diffusion.painting import SlidePainter, paint_slide
from stainfuser.diffusion.planned_change import PlannedChange
from stainfuser.diffusion.planning import Plan
from stainfuser.diffusion.slide_planning import MaskedSlide
from stainfuser.diffusion.stage_model import StageModel
from stainfuser.errors import StainFuserError
from stainfuser.files import read_json, write_json
from stainfuser.io.filling_reader import FillingReader
from stainfuser.io.pyramid_writer import PyramidWriter
from stainfuser.io.regions import RegionReader
from stainfuser.io.slide_layout import SlideSpec
from stainfuser.io.slides import SlideReader
from stainfuser.io.tile_cache import TileCache
from stainfuser.stamps import OF_THE_CODE

LOGGER = logging.getLogger("stainfuser")
PLAN_NAME = "plan.json"
# mpp → the objective power microscopes of that resolution state.
OBJECTIVE_POWERS = {0.25: 40.0, 0.5: 20.0, 1.0: 10.0}


@dataclass
class SlideJob:
    """One slide on its way; everything costly is made when it is first asked for."""

    slide: str
    slide_path: Path
    masked: MaskedSlide
    options: NormalizeOptions
    seed: int
    threads: int
    model: StageModel
    run_dir: Path = Path()
    planner: ForkedCall | None = None

    def open_reader(self) -> RegionReader:
        """Open the slide; with `corrupt_tiles: fill`, so that damage is filled with glass."""
        reader = SlideReader(self.slide_path, self.masked.probe["mpp"])
        if self.options.corrupt_tiles == "fail":
            return reader
        is_known = "white" in vars(self)  # not while it is being found
        colour = tuple(round(value) for value in self.white) if is_known else (255,) * 3
        return FillingReader(reader, colour)

    @cached_property
    def white(self) -> NDArray[np.float64]:
        """Colour of the slide's glass."""
        with self.open_reader() as reader:
            return self.masked.glass(reader)

    @cached_property
    def plan(self) -> Plan:
        """How the slide is normalised; a killed run's decision stands."""
        path = self.run_dir / PLAN_NAME
        if not path.exists():
            plan = self.planner and self.planner.result()
            if self.planner and not plan:
                LOGGER.warning("%s: the process that plans ended early; planning here", self.slide)
            write_json(path, plan or self._make_plan())
        return Plan.from_json(read_json(path))

    def plan_ahead(self, run_dir: Path) -> None:
        """Start planning while other work is done, unless a killed run has planned already."""
        if self.threads < 2 or not self.model.uses_head or (run_dir / PLAN_NAME).exists():
            return
        if self.options.corrupt_tiles == "fill":
            self.white  # noqa: B018 - both processes fill damage with it
        self.masked.weight  # noqa: B018 - both processes need it
        if can_fork():
            self.planner = ForkedCall(self._make_plan)
        else:
            threading.Thread(target=self._warm_up, daemon=True).start()

    def _warm_up(self) -> None:
        with contextlib.suppress(StainFuserError):  # raised again where it can be answered
            self.model.warm_up()

    def _make_plan(self) -> dict[str, Any]:
        white = self.white  # before the reader is opened, which fills damage with it
        with self.open_reader() as reader:
            return self.masked.plan(reader, self.model, self.options, white, self.seed).to_json()

    def fidelity(self) -> dict[str, Any] | None:
        """Return how near the operator comes to rendering, if that was asked for."""
        if not self.options.fidelity_tiles:
            return None
        with self.open_reader() as reader:
            return fidelity_of(self.plan, self.masked, self.model, self.options, reader)

    def write(self, output_path: Path, run_dir: Path, stamp: dict[str, str]) -> list[Any]:
        """Write the slide and return the rectangles that had to be filled."""
        self.run_dir = run_dir
        if self.options.corrupt_tiles == "fill":
            self.white  # noqa: B018 - before any pixel: damage is filled with this colour
        view = self.masked.view(self.masked.probe["mpp"])
        reader = self.open_reader()
        change = PlannedChange(lambda: self._plan_change(reader), ahead=self.threads > 1)
        with PyramidWriter(
            output_path,
            run_dir / "slide",
            self.spec(stamp),
            key=stamp["config_sha256"],
            threads=self.threads,
            is_early=view.is_glass,
        ) as writer:
            painter = SlidePainter(self.open_reader, view, change, self.threads)
            paint_slide(self.slide, painter, writer, self.threads)
            change.close()
            painter.close()
            reader.close()
            holes = [hole for note in writer.notes for hole in note]
            writer.finish()
        return holes

    def _plan_change(self, reader: RegionReader) -> Change | None:
        started_s = time.monotonic()
        view = self.masked.view(self.plan.model_mpp)
        memory = TileCache(self.run_dir / "tiles", self.options.tile_px)
        change = make_change(
            self.plan,
            view,
            self.options,
            lambda: self.model.taught_renderer(self.plan, view, reader, self.options),
            reader,
            memory,
        )
        elapsed_s = time.monotonic() - started_s
        LOGGER.info("%s: planned in %.1f s: %s", self.slide, elapsed_s, self.plan.mode_used)
        return change

    @cached_property
    def icc_profile(self) -> bytes | None:
        """The source's colour profile."""
        with SlideReader(self.slide_path, self.masked.probe["mpp"]) as reader:
            return reader.icc_profile

    def spec(self, stamp: dict[str, str]) -> SlideSpec:
        """Return what the written slide is, apart from its pixels."""
        hashes = ("config_sha256", "model_sha256", "source_sha256", "target_sha256")
        told = ("version", "seed", *OF_THE_CODE, *hashes)
        probe = self.masked.probe
        return SlideSpec(
            probe["width_px"],
            probe["height_px"],
            probe["mpp"],
            probe["objective_power"] or _likely_objective_power(probe["mpp"]),
            self.options.jpeg_quality,
            self.options.output_tile_px,
            self.options.block_px,
            self.icc_profile if self.options.icc_profile == "carry" else None,
            {f"StainFuser {name}": stamp[name] for name in told},
        )

    def describe(self, target: str, holes: list[Any], stamp: dict[str, str]) -> dict[str, Any]:
        """Return the record of the slide."""
        spec = self.spec(stamp)
        return {
            "slide": self.slide,
            "target": target,
            "kind": "slide",
            "width_px": spec.width_px,
            "height_px": spec.height_px,
            "mpp": spec.mpp,
            "objective_power": spec.objective_power,
            "levels_px": spec.level_sizes_px(),
            "icc_profile": _fate_of_profile(self.icc_profile, spec.icc_profile),
            "mode": self.options.mode,
            **self.plan.to_json(),
            "fidelity": self.fidelity(),
            "filled_rectangles_px": holes,
            "stamp": stamp,
        }


def _fate_of_profile(of_source: bytes | None, of_result: bytes | None) -> str:
    if of_source is None:
        return "none"
    return "dropped" if of_result is None else "carried"


def _likely_objective_power(mpp: float) -> float | None:
    """Return the objective power of an mpp within 15 %, else None."""
    for likely_mpp, power in OBJECTIVE_POWERS.items():
        if abs(mpp / likely_mpp - 1.0) < 0.15:
            return power
    return None
