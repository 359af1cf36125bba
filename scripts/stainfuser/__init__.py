"""StainFuser: stain normalisation of H&E whole-slide images as conditional diffusion.

Importing the package is light; heavy libraries are imported by the modules that use them.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["StainFuserPipeline", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the pipeline, and torch with it, only when it is asked for."""
    if name == "StainFuserPipeline":
        from stainfuser.diffusion.pipeline import StainFuserPipeline

        return StainFuserPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
