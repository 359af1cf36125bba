"""The model as a stage uses it: with one target, loading only the part that is needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.normalize_options import NormalizeOptions
from stainfuser.diffusion.planning import Plan, Sample, plan_by_head, plan_by_model
from stainfuser.diffusion.rendering import Renderer
from stainfuser.diffusion.slide_view import SlideView
from stainfuser.errors import ConfigError
from stainfuser.io.regions import RegionReader
from stainfuser.presets import HEAD_FOLDER, ModelContents, read_contents

HEAD_TILE_PX = 256


class StageModel:
    """A model folder and a target, for all slides or images of a stage.

    Parameters
    ----------
    model_dir
        Folder of the model.
    target
        (H, W, 3) uint8 RGB reference image.
    options
        Section `normalize`: `mode` and `operator` choose the part of the model.
    seed
        Seed of the noise field, for models that start from noise.
    load_pipe
        Returns the pipeline; called only if the diffusion part is used.
    threads
        Threads in which the head looks at tiles; they do not change what it finds.

    Raises
    ------
    InputError
        The folder holds no model.
    ConfigError
        The model lacks the part the options ask for.
    """

    def __init__(
        self,
        model_dir: str | Path,
        target: NDArray[np.uint8],
        options: NormalizeOptions,
        seed: int,
        load_pipe: Callable[[], Any],
        threads: int = 1,
    ) -> None:
        self._contents = read_contents(model_dir)
        self._target, self._options = target, options
        self._seed, self._load_pipe, self._threads = seed, load_pipe, threads
        self.uses_head = chooses_head(options, self._contents)

    @property
    def can_render(self) -> bool:
        """Tell whether the model has a diffusion part."""
        return self._contents.can_render

    @cached_property
    def mpp(self) -> float | None:
        """Resolution at which the model sees a slide, um per px; None: the slide's own."""
        return self._contents.mpp if self.uses_head else self.renderer.mpp

    @cached_property
    def renderer(self) -> Renderer:
        """The diffusion part with the target."""
        steps = self._options.num_inference_steps
        return Renderer(self._load_pipe(), self._target, seed=self._seed, num_inference_steps=steps)

    def warm_up(self) -> None:
        """Load what a plan needs and look at the target, so that `plan` need not.

        May run beside the reading of the sample: most of it is importing.
        """
        if self.uses_head:
            self._head_and_target  # noqa: B018 - remembered

    def sample_px(self, options: NormalizeOptions) -> int:
        """Return the side of the tiles of a sample, px at the model's resolution.

        The head sees small ones: they can be chosen with less glass, which makes it doubtful.
        """
        return min(options.tile_px, HEAD_TILE_PX) if self.uses_head else options.tile_px

    def taught_renderer(
        self, plan: Plan, view: SlideView, reader: RegionReader, options: NormalizeOptions
    ) -> Renderer:
        """Return the diffusion part after it has seen the sample a plan was made from."""
        side_px = self.sample_px(options)
        tiles = [view.read_tile(reader, x, y, side_px) for x, y in plan.tiles]
        self.renderer.learn_slide(np.stack(tiles))
        return self.renderer

    def plan(self, sample: Sample, options: NormalizeOptions, rng: np.random.Generator) -> Plan:
        """Decide how a slide is normalised; `options` may have smaller tiles than the stage's."""
        if not sample.tiles:
            return sample.plan("unchanged", "there is no tissue")
        if not self.uses_head:
            return plan_by_model(sample, options, self.renderer, rng)
        from stainfuser.diffusion.operator_mode import fit_tiles
        from stainfuser.diffusion.torch_threads import torch_threads

        head, target = self._head_and_target
        with torch_threads(1):
            return plan_by_head(sample, fit_tiles(head, sample.tiles, target, self._threads))

    @cached_property
    def _head_and_target(self) -> tuple[Any, Any]:
        from stainfuser.diffusion.operator_mode import load_head, windows_of
        from stainfuser.diffusion.torch_threads import torch_threads

        head = load_head(self._contents.folder / HEAD_FOLDER)
        with torch_threads(1):
            return head, head.summarise(windows_of(self._target))


def chooses_head(options: NormalizeOptions, contents: ModelContents) -> bool:
    """Tell whether the operator comes from the model's head; raise `ConfigError` without a way."""
    remedy = "use a model that has one"
    if options.mode == "operator":
        if options.operator == "head" and not contents.has_head:
            found = f"the model {contents.folder.name} has no operator head"
            raise ConfigError("configuration key normalize: operator", found, remedy)
        if options.operator != "model" and contents.has_head:
            return True
    if not contents.can_render:
        key = "mode" if options.mode == "render" else "operator"
        found = f"the model {contents.folder.name} has no diffusion part"
        raise ConfigError(f"configuration key normalize: {key}", found, remedy)
    return False
