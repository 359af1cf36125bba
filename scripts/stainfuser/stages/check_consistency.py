"""Is a normalised slide of one piece: no seams, no drift, and none of the known failures?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.invariance import measure_invariance
from stainfuser.diffusion.loading import fingerprint_model, load_pipeline
from stainfuser.diffusion.seam_check import measure_seams
from stainfuser.errors import StainFuserError
from stainfuser.files import read_json, sha256_file, write_json
from stainfuser.io.evaluation_store import ArmStore, EvaluationSample, read_sample
from stainfuser.io.images import read_image
from stainfuser.io.masks import read_mask
from stainfuser.io.slides import SlideReader
from stainfuser.logs import LOGGER
from stainfuser.seeds import generator
from stainfuser.stain.colour_drift import colour_drift
from stainfuser.stain.failure_signatures import (
    Finding,
    desaturated,
    disagreeing,
    distorted,
    drifting,
)
from stainfuser.stain.seams import Line
from stainfuser.stamps import make_stamp

Images = NDArray[np.uint8]
# Tiles on which the model is run several times.
INVARIANCE_TILES = 4


def check_consistency(
    *,
    slide: str,
    slide_path: str | Path,
    normalized_path: str | Path,
    record_path: str | Path,
    mask_path: str | Path,
    sample_path: str | Path,
    delivered_path: str | Path,
    target_path: str | Path,
    model_dir: str | Path,
    report_path: str | Path,
    seed: int,
    threads: int = 1,
    device: str | None = None,
    load_model: Callable[[str | Path, str | None], Any] = load_pipeline,
) -> None:
    """Write what was found on one normalised slide.

    Parameters
    ----------
    slide
        The slide's name.
    slide_path, normalized_path, record_path, mask_path
        The slide, its normalised copy with the JSON beside it, and its tissue mask.
    sample_path, delivered_path
        Its tiles, and those of all normalised slides (the arm "delivered").
    target_path, model_dir
        Reference image and model.
    report_path
        JSON: `seam_score`, `drift` per tissue class, `invariance` (largest difference, grey
        levels) and `findings`: one per failure signature, with cause and remedy.
    seed
        Draws the strips across borders.
    threads, device, load_model
        They do not change the result (up to the arithmetic of the device).

    What cannot be measured is null, with the reason in the log; nothing is raised for it.
    """
    record = read_json(record_path)
    target_name, target = Path(target_path).stem, read_image(target_path)
    sample = read_sample(sample_path)
    sources, results, coords = _tiles(sample, ArmStore(delivered_path), target_name)
    seam_score = _attempt(
        f"{slide}: seams",
        lambda: _seam_score(slide, slide_path, normalized_path, record, read_mask(mask_path), seed),
    )
    drift = colour_drift(sources, results, coords)
    findings = [
        desaturated(results, target),
        distorted(sources, results),
        disagreeing(seam_score),
        drifting(drift),
    ]
    content = {
        "slide": slide,
        "target": target_name,
        "tiles": len(results),
        "seam_score": None if seam_score is None else round(seam_score, 4),
        "drift": {name: _rounded(part._asdict()) for name, part in drift.items()},
        "invariance": _attempt(
            f"{slide}: invariance",
            lambda: _invariance(
                sources, target, record, lambda: load_model(model_dir, device), threads
            ),
        ),
        "findings": [finding.to_json() for finding in findings],
        "stamp": make_stamp(
            "check_consistency",
            {"seed": seed},
            normalized_sha256=sha256_file(normalized_path),
            model_sha256=fingerprint_model(model_dir),
        ),
    }
    write_json(report_path, content)
    _warn_of(slide, findings)


def _tiles(
    sample: EvaluationSample, delivered: ArmStore, target: str
) -> tuple[Images, Images, NDArray[np.int64]]:
    """Return the tiles before and after, and their places, of those that could be read."""
    slide = str(sample.attrs["slide"])
    if (target, slide) not in delivered.groups:
        return sample.source[:0], sample.source[:0], sample.coords[:0]
    result = delivered.read(target, slide)
    return (
        sample.source[result.is_made],
        result.image[result.is_made],
        sample.coords[result.is_made],
    )


def _attempt(what: str, measure: Callable[[], Any]) -> Any:
    try:
        return measure()
    except (StainFuserError, RuntimeError, ValueError, OSError) as error:
        LOGGER.warning("%s could not be measured: %s", what, error)
        return None


def _seam_score(
    slide: str,
    slide_path: str | Path,
    normalized_path: str | Path,
    record: Mapping[str, Any],
    mask: NDArray[np.bool_],
    seed: int,
) -> float | None:
    width_px, mpp = int(record["width_px"]), float(record["mpp"])
    scale = mask.shape[1] / width_px

    def is_tissue(line: Line) -> bool:
        width, height = line.size_px
        rows, columns = (
            slice(int(start * scale), int((start + size) * scale) + 1)
            for start, size in ((line.y_px, height), (line.x_px, width))
        )
        return bool(mask[rows, columns].all())

    rng = generator(seed, "seams", slide)
    with SlideReader(slide_path, mpp) as source, SlideReader(normalized_path, mpp) as result:
        return measure_seams(source, result, borders_px(record), is_tissue, rng)


def borders_px(record: Mapping[str, Any]) -> list[int]:
    """Return where a slide may have seams, level-0 px along both axes, from its record.

    Borders of the output's tiles and blocks; of a rendered slide, of the model's tiles, too.
    """
    options = json.loads(record["stamp"]["config"])
    longest = max(int(record["width_px"]), int(record["height_px"]))
    places: set[int] = set()
    for side_px in (options["output_tile_px"], options["block_px"]):
        places |= set(range(side_px, longest, side_px))
    if record["mode_used"] == "render":
        scale = float(record.get("model_mpp") or record["mpp"]) / float(record["mpp"])
        stride = options["tile_px"] - options["overlap_px"]
        starts = range(stride, int(longest / scale), stride)
        ends = [start + options["overlap_px"] for start in starts]
        places |= {round(place * scale) for place in (*starts, *ends)}
    return sorted(places)


def _invariance(
    sources: Images,
    target: NDArray[np.uint8],
    record: Mapping[str, Any],
    load: Callable[[], Any],
    threads: int,
) -> dict[str, int] | None:
    if not len(sources):
        return None
    from stainfuser.diffusion.torch_threads import torch_threads

    with torch_threads(threads):
        pipe = load()
        mode = "operator" if record.get("operator_from") == "head" else "render"
        return measure_invariance(pipe, sources[:INVARIANCE_TILES], target, mode)


def _rounded(numbers: Mapping[str, float]) -> dict[str, float]:
    return {
        name: value if isinstance(value, int) else round(value, 5)
        for name, value in numbers.items()
    }


def _warn_of(slide: str, findings: list[Finding]) -> None:
    for finding in findings:
        if finding.is_found:
            LOGGER.warning(
                "%s: %s (%s %.3g, limit %.3g). Likely cause: %s. Remedy: %s.",
                slide,
                finding.signature,
                finding.what,
                finding.value,
                finding.limit,
                finding.cause,
                finding.remedy,
            )
