"""Every metric of one normalised tile, by the names of `evaluation_terms.METRICS`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stainfuser.stain.invented_structure import invented_structure
from stainfuser.stain.metrics import ciede2000, gradient_correlation, psnr, ssim
from stainfuser.stain.nucleus_agreement import nucleus_agreement
from stainfuser.stain.nucleus_style import NucleusReference
from stainfuser.stain.published_metrics import published_metrics
from stainfuser.stain.style_distance import StyleReference

Image = NDArray[np.uint8]
PROTOCOLS = ("own", "published")
NUCLEUS_METRICS = ("nucleus_f1", "nucleus_area_change", "nucleus_shape_change")


class TileMeter:
    """A target measured once, to measure many tiles against it.

    Parameters
    ----------
    target
        (H, W, 3) uint8 RGB reference.
    mpp
        Resolution of target and tiles, um per px.
    protocol
        "own", or "published": PSNR and SSIM exactly as published, too.
    """

    def __init__(self, target: Image, mpp: float, protocol: str = "own") -> None:
        if protocol not in PROTOCOLS:
            raise ValueError(f"unknown protocol {protocol!r}, expected one of {PROTOCOLS}")
        self._style = StyleReference(target)
        self._nuclei = NucleusReference(target, mpp)
        self._mpp, self._protocol = mpp, protocol

    def measure(
        self,
        result: Image,
        source: Image,
        truth: Image | None,
        source_nuclei: NDArray[np.integer],
    ) -> dict[str, float]:
        """Return name → value; NaN where a metric is not defined for the tile.

        `source` is the tile before, `truth` the same tissue in the target's stain (None: those
        metrics are left out), `source_nuclei` `segment_nuclei` of the source. All tiles are
        (H, W, 3) uint8 RGB of one shape.
        """
        return {
            **self._against_source(result, source, source_nuclei),
            **self._against_target(result, source, source_nuclei),
            **(_against_truth(result, truth) if truth is not None else {}),
        }

    def _against_source(
        self, result: Image, source: Image, source_nuclei: NDArray[np.integer]
    ) -> dict[str, float]:
        agreement = nucleus_agreement(source, result, self._mpp, source_nuclei)
        return {
            "gradient_correlation_source": gradient_correlation(source, result),
            "invented_structure_source": invented_structure(source, result),
            **{f"{name}_source": agreement[name] for name in NUCLEUS_METRICS},
            "ssim_source": ssim(source, result),
            "psnr_source": psnr(source, result),
            **(published_metrics(source, result) if self._protocol == "published" else {}),
        }

    def _against_target(
        self, result: Image, source: Image, source_nuclei: NDArray[np.integer]
    ) -> dict[str, float]:
        by_class = self._style.class_distances(result, source)
        defined = [value for value in by_class.values() if np.isfinite(value)]
        return {
            "style_distance_target": float(np.mean(defined)) if defined else float("nan"),
            "style_nuclei_target": by_class["nuclei"],
            "style_stroma_target": by_class["stroma"],
            "nucleus_style_target": self._nuclei.distance(result, source_nuclei),
            "sliced_wasserstein_target": self._style.sliced_wasserstein(result),
        }


def _against_truth(result: Image, truth: Image) -> dict[str, float]:
    return {
        "ciede2000_truth": ciede2000(truth, result),
        "psnr_truth": psnr(truth, result),
        "ssim_truth": ssim(truth, result),
    }
