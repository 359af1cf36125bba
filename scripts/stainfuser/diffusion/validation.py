"""How well held-out pairs are rendered, beside what doing nothing gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stainfuser.diffusion.encoding import encode_latents, to_range
from stainfuser.diffusion.pairs import PARTS, PairImages, Split, as_tensor, spread_rows
from stainfuser.diffusion.pipeline import StainFuserPipeline

Images = list[NDArray[np.uint8]]
ARMS = ("identity", "autoencoder", "untrained", "trained")
"""Source as it is; its round trip through the autoencoder; before training; after it."""
# Distances go down, everything else goes up.
METRICS = ("ciede2000", "psnr_db", "gradient_correlation")


@dataclass(frozen=True)
class RenderedPart:
    """The images of one part of the pairs: `arms` maps each of `ARMS` to as many images."""

    source: Images
    target: Images
    truth: Images
    arms: dict[str, Images]


def render_parts(
    trained: StainFuserPipeline,
    make_untrained: Callable[[], StainFuserPipeline],
    images: PairImages,
    split: Split,
    pairs_per_part: int,
) -> dict[str, RenderedPart]:
    """Render at most `pairs_per_part` pairs of every part that has any."""
    chosen = {name: spread_rows(split[name], pairs_per_part) for name in PARTS}
    parts = {name: _render(trained, images, rows) for name, rows in chosen.items() if len(rows)}
    untrained = make_untrained()
    for part in parts.values():
        part.arms["untrained"] = _rendered(untrained, part.source, part.target)
    return parts


def better_arm(scores: dict[str, Any]) -> str:
    """Return "trained" or "untrained": the one nearer to the truth on what was held out.

    `scores` is what `score_parts` returned; with nothing held out, "trained".
    """
    trained, untrained = _held_out_errors(scores)
    return "untrained" if trained > untrained else "trained"


def describe_gain(scores: dict[str, Any], saved: str) -> str:
    """Say in a sentence what training did on what was held out, and which model was saved."""
    trained, untrained = _held_out_errors(scores)
    kept = {"trained": "the trained model", "untrained": "the model it began with"}[saved]
    if trained != trained:
        return f"nothing was held out, so that no gain was measured; {kept} is saved"
    verb = "improved the model" if trained < untrained else "did not improve the model"
    pairs = sum(part["n"] for name, part in scores.items() if name != "train")
    change = f"mean CIEDE2000 of {pairs} held-out pairs {untrained:.2f} before, {trained:.2f} after"
    return f"training {verb} ({change}); {kept} is saved"


def _held_out_errors(scores: dict[str, Any]) -> tuple[float, float]:
    """Return the mean CIEDE2000 after and before training; NaN where nothing was held out."""
    held_out = [part for name, part in scores.items() if name != "train"]
    pairs = sum(part["n"] for part in held_out)
    if not pairs:
        return float("nan"), float("nan")
    trained, untrained = (
        sum(part["n"] * part[arm][METRICS[0]] for part in held_out) / pairs
        for arm in ("trained", "untrained")
    )
    return trained, untrained


def _rendered(pipeline: StainFuserPipeline, source: Images, target: Images) -> Images:
    return list(pipeline(source, target, output_type="np", mode="render").images)


def score_parts(parts: dict[str, RenderedPart]) -> dict[str, Any]:
    """Return part → {n, arm → {metric → mean over the images}}.

    CIEDE2000 and PSNR are against the truth, the gradient correlation is with the source.
    """
    return {
        name: {
            "n": len(part.source),
            **{arm: _scores(part.source, images, part.truth) for arm, images in part.arms.items()},
        }
        for name, part in parts.items()
    }


def _render(
    trained: StainFuserPipeline, images: PairImages, rows: NDArray[np.int64]
) -> RenderedPart:
    source, target = images.sources(rows), images.targets(rows)
    arms = {
        "identity": source,
        "autoencoder": [round_trip(trained, image) for image in source],
        "trained": _rendered(trained, source, target),
    }
    return RenderedPart(source, target, images.stylized(rows), arms)


@torch.no_grad()
def round_trip(pipeline: StainFuserPipeline, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 RGB encoded and decoded by the pipeline's autoencoder."""
    from stainfuser.diffusion.images import reflect_pad, to_uint8

    rgb = as_tensor([image]).to(pipeline.vae.device)
    padded = reflect_pad(rgb, pipeline.size_multiple)
    latents = encode_latents(pipeline.vae, to_range(padded, "minus_one_one"))
    decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample[0]
    return to_uint8(decoded[:, : image.shape[0], : image.shape[1]] / 2.0 + 0.5)


def _scores(source: Images, result: Images, truth: Images) -> dict[str, float]:
    from stainfuser.stain.metrics import ciede2000, gradient_correlation, psnr

    values = [
        (ciede2000(image, true), psnr(image, true), gradient_correlation(original, image))
        for original, image, true in zip(source, result, truth, strict=True)
    ]
    means = np.mean(values, axis=0)
    return {name: round(float(mean), 4) for name, mean in zip(METRICS, means, strict=True)}
