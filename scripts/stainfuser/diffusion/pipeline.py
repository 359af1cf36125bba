"""`StainFuserPipeline`: source and target images in, the source in the target's stain out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor

from stainfuser import __version__
from stainfuser.diffusion.call_arguments import (
    check_count,
    check_parts,
    checked_mode,
    checked_steps,
    initial_seed,
)
from stainfuser.diffusion.context import StainTarget
from stainfuser.diffusion.encoding import encode_target, join_targets
from stainfuser.diffusion.images import collected, image_list
from stainfuser.diffusion.model_folder import (
    align,
    check_component,
    check_finite,
    read_model_index,
)
from stainfuser.diffusion.objectives import objective_named
from stainfuser.diffusion.operator_mode import (
    SlideFit,
    apply_operator,
    fit_images,
    load_head,
    save_head,
    summarise_each,
    warn_of_remarks,
)
from stainfuser.diffusion.published import PublishedLayout
from stainfuser.diffusion.tile_rendering import RenderCall, TileRendering
from stainfuser.errors import InputError
from stainfuser.nn.operator_head import OperatorHead
from stainfuser.nn.operator_safety import Solution
from stainfuser.nn.stain_statistics import StainStatistics, stain_statistics
from stainfuser.nn.token_attention import WeightedTokenProcessor
from stainfuser.presets import DIFFUSION_PARTS, HEAD_FOLDER, find_model

# What model_index.json says of a model, besides its components.
SETTINGS = (
    "preset",
    "objective",
    "mpp",
    "patch_size",
    "context_tokens",
    "start",
    "target_range",
    "control_range",
    "control_unshuffle",
    "mode",
    "software_version",
)


@dataclass
class StainFuserOutput(BaseOutput):
    """What a call returns.

    Attributes
    ----------
    images
        As `output_type` says; "np" is (N, H, W, 3) uint8, a list if the sizes differ.
    confidence
        Per source, how sure the operator head is that source and target are H&E, [0, 1]; None
        without a head.
    remarks
        Per source, sentences that say what makes its result doubtful; None without a head.
    """

    images: Any
    confidence: list[float] | None = None
    remarks: list[list[str]] | None = None


class StainFuserPipeline(TileRendering, PublishedLayout, DiffusionPipeline):
    """Conditional latent diffusion for stain normalisation.

    The source's pixels steer the structure through a ControlNet; the target's VAE latents are the
    tokens of the cross-attention, in place of text. Beside this diffusion part, or alone, there can
    be an operator head, which yields one colour operator from source to target.

    Parameters
    ----------
    vae, unet, controlnet, scheduler
        diffusers components; UNet and ControlNet project tokens (`encoder_hid_dim`). All None: a
        model with nothing but a head.
    operator_head
        An `OperatorHead`, or None. It works on the CPU wherever the diffusion part is.
    preset, objective
        Architecture ("compact", "sd21") and what it was trained to predict (see `objectives`).
    mpp
        Micrometres per px the model was trained at; None if it is not known.
    patch_size
        Side of its training images, px.
    context_tokens
        Tokens a target is summarised to; None: all of them.
    start
        Objective bridge: "source", "statistics" for the source with the target's mean and
        covariance of optical density, or "operator_head" for what the head makes of it.
    target_range, control_range
        What the VAE sees of the target and the ControlNet of the source: "zero_one" (published
        weights) or "minus_one_one". Images the VAE encodes as content are always [-1, 1].
    control_unshuffle
        Side of the pixel blocks folded into channels for the ControlNet.
    mode
        What a call does unless it says: "operator" or "render"; None: operator with a head.
    software_version
        Version of this package that trained the model.
    """

    model_cpu_offload_seq = "vae->controlnet->unet->vae"
    _optional_components: ClassVar[list[str]] = list(DIFFUSION_PARTS)

    def __init__(
        self,
        vae: Any,
        unet: Any,
        controlnet: Any,
        scheduler: Any,
        preset: str = "compact",
        objective: str = "bridge",
        mpp: float | None = None,
        patch_size: int = 256,
        context_tokens: int | None = None,
        start: str = "source",
        target_range: str = "minus_one_one",
        control_range: str = "minus_one_one",
        control_unshuffle: int = 1,
        mode: str | None = None,
        software_version: str = __version__,
        operator_head: OperatorHead | None = None,
    ) -> None:
        super().__init__()
        objective_named(objective)
        parts = {"vae": vae, "unet": unet, "controlnet": controlnet, "scheduler": scheduler}
        check_parts(parts, operator_head, start)
        # Not a component of diffusers' kind: it stays on the CPU, in its own format.
        self.operator_head = operator_head
        self.register_modules(**parts)
        self.register_to_config(
            preset=preset,
            objective=objective,
            mpp=mpp,
            patch_size=patch_size,
            context_tokens=context_tokens,
            start=start,
            target_range=target_range,
            control_range=control_range,
            control_unshuffle=control_unshuffle,
            mode=mode or ("operator" if operator_head is not None else "render"),
            software_version=software_version,
        )
        if unet is not None:
            for network in (unet, controlnet):
                network.set_attn_processor(WeightedTokenProcessor())
            for module in (vae, unet, controlnet):
                module.eval()
        self.set_progress_bar_config(disable=None)

    @classmethod
    def from_pretrained(cls, model: str | Path, **keywords: Any) -> StainFuserPipeline:
        """Load a shipped preset by its name, or a model folder.

        The keywords are those of `DiffusionPipeline.from_pretrained`. Nothing is downloaded. A text
        that names a preset means the preset; a folder of the same name is given as ``./compact``.

        Raises `InputError` if the folder is missing, incomplete, damaged, of another architecture
        or holds weights that are not finite.
        """
        folder = find_model(model)
        index = read_model_index(folder, cls.__name__)
        if "operator_head" not in keywords and (folder / HEAD_FOLDER).is_dir():
            keywords["operator_head"] = load_head(folder / HEAD_FOLDER)
        components = {
            name: value
            for name, value in index.items()
            if isinstance(value, list) and value[0] is not None and name != "scheduler"
        }
        if not components:
            given = {**index, **keywords}
            known = {name: given[name] for name in (*SETTINGS, "operator_head") if name in given}
            return cls(**dict.fromkeys(DIFFUSION_PARTS), **known)
        for name, (library, class_name) in components.items():
            if keywords.get(name) is None:
                check_component(folder / name, library, class_name)
        keywords = {"local_files_only": True, "use_safetensors": True, **keywords}
        pipeline = super().from_pretrained(str(folder), **keywords)
        for name in components:
            module = getattr(pipeline, name)
            check_finite(module, folder / name)
            align(module)
        return pipeline

    def save_pretrained(self, folder: str | Path, **keywords: Any) -> None:
        """Write a model folder; the keywords are those of `DiffusionPipeline.save_pretrained`."""
        super().save_pretrained(str(folder), **keywords)
        if self.operator_head is not None:
            save_head(self.operator_head, Path(folder) / HEAD_FOLDER)

    @property
    def can_render(self) -> bool:
        """Tell whether there is a diffusion part."""
        return self.unet is not None

    @torch.no_grad()
    def encode_target(self, images: Any) -> StainTarget:
        """Encode one or more target images once, for any number of calls.

        Accepts what the call accepts. The diffusion part sees a large image through up to 16
        windows spread over it (one central window without `context_tokens`), never resized; the
        operator head sees all of it.
        """
        targets = image_list(images, "target")
        joined = join_targets([self._encoded(image) for image in targets])
        if self.operator_head is None:
            return joined
        return replace(joined, classes=summarise_each(self.operator_head, targets))

    def _encoded(self, image: Tensor) -> StainTarget:
        config = self.config
        if not self.can_render:
            return StainTarget(torch.zeros(1, 0, 0), None, stain_statistics(image[None]))
        return encode_target(
            self.vae, image, self.latent_factor, config.target_range, config.context_tokens
        )

    @torch.no_grad()
    def fit_slide(self, images: Any, target: Any) -> SlideFit:
        """Learn from tiles of one slide what all its tiles share, on the way to one target.

        With an operator head that is one colour operator; its confidence and remarks stand in
        ``.solution``.
        """
        tiles, encoded = image_list(images, "images"), self._target(target, 1)
        every = [stain_statistics(tile[None]) for tile in tiles]
        sample = torch.cat([statistics.sample for statistics in every])
        solution = None
        if self.operator_head is not None:
            solution = fit_images(self.operator_head, tiles, encoded.classes, 0)
        return SlideFit(StainStatistics.of_sample(sample).pooled(), solution)

    @torch.no_grad()
    def __call__(
        self,
        source: Any,
        target: Any,
        num_inference_steps: int | None = None,
        generator: torch.Generator | int | None = None,
        output_type: str = "pil",
        latents: Tensor | None = None,
        batch_size: int = 8,
        slide: SlideFit | None = None,
        mode: str | None = None,
    ) -> StainFuserOutput:
        """Normalise every source to the stain of its target.

        With an operator head every source gets a confidence and remarks; where the confidence is
        low (no tissue, not H&E), its pixels stay nearly as they are, whatever the mode.

        Parameters
        ----------
        source
            (H, W, 3) or (N, H, W, 3) uint8, PIL, float tensor (N, 3, H, W) in [0, 1], or a list of
            these; any height and width (mirrored to a multiple inside, cropped after).
        target
            The same, or what `encode_target` returned; one for all sources, or one for each.
        num_inference_steps
            Network calls (PNDM makes one more); None: as the objective was trained for.
        generator
            Seed or generator of the initial noise; None: seed 0. All tiles get the same noise, so
            that a tile's result depends neither on its neighbours nor on `batch_size`.
        output_type
            "pil", "np" (uint8), "pt" (float in [0, 1]) or "latent" (of a rendering, padding
            included).
        latents
            (1 or N, C, h, w) where sampling starts, in place of noise or the source.
        batch_size
            Tiles per network call on an accelerator; a CPU takes tiles one by one.
        slide
            What `fit_slide` learned of the slide the sources come from: its statistics and its
            operator take the place of each tile's own, so that a slide gets one colour change.
        mode
            "operator": one colour map per source, from the operator head; "render": through the
            diffusion part; None: the model's own default.

        Raises
        ------
        InputError
            For an argument that is not what is described here.
        """
        sources = image_list(source, "source")
        steps = checked_steps(num_inference_steps, self.config.objective, output_type, batch_size)
        wants_latents = latents is not None or output_type == "latent"
        mode = mode or ("render" if wants_latents else self.config.mode)
        mode = checked_mode(mode, self.operator_head is not None, self.can_render, wants_latents)
        encoded = self._target(target, len(sources))
        solutions = self._solutions(sources, encoded, slide)
        with self.progress_bar(total=len(sources)) as bar:
            if mode == "operator":
                results = []
                for image, solution in zip(sources, solutions or (), strict=True):
                    results.append(apply_operator(image, solution))
                    bar.update()
            else:
                call = RenderCall(steps, initial_seed(generator), latents, slide, output_type)
                results = self._render(sources, encoded, solutions, batch_size, call, bar)
        images = collected(results, output_type)
        if solutions is None:
            return StainFuserOutput(images=images)
        remarks = [list(solution.diagnostics["remarks"]) for solution in solutions]
        if slide is None:
            warn_of_remarks(remarks)
        confidence = [float(solution.confidence) for solution in solutions]
        return StainFuserOutput(images=images, confidence=confidence, remarks=remarks)

    def _target(self, target: Any, sources: int) -> StainTarget:
        """Return the encoded target(s), checked against the number of sources and the model."""
        encoded = target if isinstance(target, StainTarget) else self.encode_target(target)
        check_count("target", len(encoded), sources)
        if self.operator_head is not None and encoded.classes is None:
            raise InputError("target", "another model encoded it", "encode it with this pipeline")
        return encoded.to(self.unet.device) if self.can_render else encoded

    def _solutions(
        self, sources: list[Tensor], target: StainTarget, slide: SlideFit | None
    ) -> list[Solution] | None:
        """Return the head's operator for every source; None without a head."""
        if self.operator_head is None or target.classes is None:
            return None
        if slide is not None and slide.solution is not None:
            return [slide.solution] * len(sources)
        return [
            fit_images(self.operator_head, [image], target.classes, i if len(target) > 1 else 0)
            for i, image in enumerate(sources)
        ]
