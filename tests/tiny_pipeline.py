"""An untrained pipeline, small enough to be made for every test."""

from __future__ import annotations

from typing import Any


def untrained_pipeline(**changes: Any) -> Any:
    """Return `compact_pipeline` of a few thousand weights; `changes` are its keywords."""
    from stainfuser.diffusion.assemble import compact_pipeline

    options = dict(
        seed=3,
        objective="bridge",
        start="source",
        mpp=0.5,
        patch_size=64,
        context_tokens=8,
        latent_patch_px=4,
        latent_channels=6,
        channels=(16, 16),
        decoder_channels=8,
    )
    return compact_pipeline(**{**options, **changes})
