"""StainFuser: stain normalisation of H&E whole-slide images as conditional diffusion.

Importing the package is light; heavy libraries are imported by the modules that use them.
"""

from __future__ import annotations

__version__ = "0.1.0"
