"""Give one slide, or one set of images, a verdict: may it be used, and if not, why and what now."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from stainfuser.errors import InputError
from stainfuser.files import sha256_content, sha256_file, write_json
from stainfuser.io.images import read_image
from stainfuser.io.kinds import kind_of, list_images, visible_paths
from stainfuser.io.probe import probe_file, verdict_record
from stainfuser.io.slides import MPP_REMEDY, is_plausible_mpp
from stainfuser.logs import LOGGER, progress
from stainfuser.stain.tissue import (
    REFERENCE_UM_PER_PX,
    image_tissue_mask,
    tissue_fraction,
    tissue_mask,
)
from stainfuser.stamps import make_stamp

Record = dict[str, Any]


def probe_slide(
    *,
    slide: str,
    slide_path: str | Path,
    json_path: str | Path,
    mpp_override: float | None,
    mpp_default: float | None,
    timeout_s: float,
    memory_mb: int,
    max_side_px: int,
    min_tissue_fraction: float,
) -> None:
    """Write a slide's verdict, reason, remedy and properties; a bad slide is no error here.

    Parameters
    ----------
    slide
        Name of the entry.
    slide_path
        The slide file, an image, or a folder of images.
    json_path
        Where the record goes. It holds no path, label, user or date of the slide.
    mpp_override
        Um per level-0 px in place of what the slide says, or None.
    mpp_default
        Um per level-0 px where the slide does not say it, or None.
    timeout_s, memory_mb
        Limits of the child process that opens the slide.
    max_side_px
        Largest plausible side of level 0.
    min_tissue_fraction
        Below this fraction of tissue the verdict is no_tissue.
    """
    path = Path(slide_path)
    for key, mpp in (("mpp of the slide table", mpp_override), ("mpp", mpp_default)):
        if mpp is not None and not is_plausible_mpp(mpp):
            raise InputError(key, f"it is {mpp}, expected 0.05 to 20 um per px", MPP_REMEDY)
    record = _empty_record(slide, path)
    if record["kind"] == "images":
        record |= _probe_images(path, min_tissue_fraction)
        record["mpp"] = mpp_override or mpp_default
        record["mpp_source"] = "assumed" if record["mpp"] is None else "override"
    else:
        limits = {"timeout_s": timeout_s, "memory_mb": memory_mb, "max_side_px": max_side_px}
        found, overview = probe_file(
            path,
            mpp_override=mpp_override,
            mpp_default=mpp_default,
            overview_um_per_px=REFERENCE_UM_PER_PX,
            **limits,
        )
        record |= found
        if overview is not None:
            record |= _tissue_verdict(overview, min_tissue_fraction)
        if path.is_file():
            record["sha256"] = _slide_sha256(path)
    options = {"mpp": record["mpp"], "min_tissue_fraction": min_tissue_fraction}
    stamp = make_stamp("probe_slide", options, source_sha256=record["sha256"] or "")
    write_json(json_path, {**record, "stamp": stamp})
    LOGGER.info("%s: %s %s", slide, record["verdict"], record["reason"])


def _empty_record(slide: str, path: Path) -> Record:
    """Return a record with every key, so that a reader never has to ask whether one is there."""
    unknown = ("sha256", "width_px", "height_px", "mpp", "mpp_source", "objective_power", "vendor")
    record: Record = dict.fromkeys(unknown)
    record |= {"slide": slide, "file_name": path.name, "kind": kind_of(path)}
    record |= {"levels": [], "has_icc_profile": False, "corrupt_regions": []}
    return record | {"tissue_fraction": None, "images": [], "left_out": []}


def _tissue_verdict(overview: Any, min_tissue_fraction: float) -> Record:
    alpha = overview[..., 3]
    mask = tissue_mask(overview[..., :3], alpha, um_per_px=REFERENCE_UM_PER_PX)
    fraction = tissue_fraction(mask, alpha)
    return {"tissue_fraction": round(fraction, 6)} | _no_tissue(fraction, min_tissue_fraction)


def _no_tissue(fraction: float, min_tissue_fraction: float) -> Record:
    if fraction >= min_tissue_fraction:
        return {}
    reason = (
        f"{100 * fraction:.2f} % of it is tissue, expected at least {100 * min_tissue_fraction:g} %"
    )
    remedy = "leave it out, or lower the configuration key probe: min_tissue_fraction"
    return verdict_record("no_tissue", reason, remedy)


def _probe_images(path: Path, min_tissue_fraction: float) -> Record:
    """Read every image of a set; unreadable ones are listed and left out."""
    if not path.exists():
        return verdict_record("missing", "there is no such file", "check the path")
    images, left_out, tissue_px, all_px = [], [], 0, 0
    for image_path in progress(list_images(path), "images"):
        try:
            rgb = read_image(image_path)
        except InputError as error:
            left_out.append({"name": image_path.name, "reason": error.wrong})
            LOGGER.warning("%s", error)
            continue
        mask = image_tissue_mask(rgb, None)[1]
        tissue_px, all_px = tissue_px + int(mask.sum()), all_px + mask.size
        size = {"width_px": rgb.shape[1], "height_px": rgb.shape[0]}
        digest = sha256_file(image_path)
        images.append({"name": image_path.name, **size, "sha256": digest})
    if not images:
        reason = left_out[0]["reason"] if len(left_out) == 1 else "none of its images can be read"
        verdict = verdict_record("unreadable", reason, "copy or download them again")
        return {**verdict, "left_out": left_out}
    fraction = tissue_px / all_px
    return {
        **verdict_record("ok", "", ""),
        "images": images,
        "left_out": left_out,
        "sha256": sha256_content({image["name"]: image["sha256"] for image in images}),
        "tissue_fraction": round(fraction, 6),
        **_no_tissue(fraction, min_tissue_fraction),
    }


def _slide_sha256(path: Path) -> str:
    """Return the fingerprint of a slide with the files that belong to it."""
    companions = []
    if path.suffix.lower() == ".mrxs" and path.with_suffix("").is_dir():
        companions = visible_paths(path.with_suffix(""))
    elif path.suffix.lower() == ".dcm":
        companions = [other for other in visible_paths(path.parent) if other.suffix == ".dcm"]
    if not companions:
        return sha256_file(path)
    digest = hashlib.sha256(sha256_file(path).encode())
    for companion in companions:
        digest.update(f"{companion.name}\0{sha256_file(companion)}\n".encode())
    return digest.hexdigest()
