"""A small set of plain images with everything `normalize_images` takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from normalize_files import MODEL_INDEX, OPTIONS

from fake_pipe import FakePipe
from slide_files import tissue_picture
from stainfuser.files import read_json, sha256_content, sha256_file, write_json
from stainfuser.io.images import write_image
from stainfuser.stages.normalize_images import normalize_images


def make_set(folder: Path, **pictures: np.ndarray) -> Path:
    """Write images (`a_png` becomes a.png) and the probe's record of them."""
    images = folder / "my tiles"
    images.mkdir()
    listed = []
    for key, picture in pictures.items():
        name = ".".join(key.rsplit("_", 1))
        write_image(images / name, picture, quality=95)
        size = {"width_px": picture.shape[1], "height_px": picture.shape[0]}
        listed.append({"name": name, **size, "sha256": sha256_file(images / name)})
    record = {
        "kind": "images",
        "sha256": sha256_content(listed),
        "mpp": None,
        "images": listed,
        "left_out": [],
    }
    write_json(folder / "probe.json", record)
    write_image(folder / "my target.png", tissue_picture(128))
    (folder / "model").mkdir()
    (folder / "model" / "model_index.json").write_text(MODEL_INDEX)
    return images


def run_set(folder: Path, pipe: FakePipe | None = None, **changes) -> dict:
    """Normalise the set in a folder and return the record."""
    given = {
        "slide": "my tiles",
        "slide_path": folder / "my tiles",
        "json_path": folder / "probe.json",
        "target_path": folder / "my target.png",
        "model_dir": folder / "model",
        "output_dir": folder / "out" / "my tiles",
        "record_path": folder / "out" / "my tiles.json",
        "work_dir": folder / "work",
        "seed": 1,
        "load_model": lambda *_: pipe or FakePipe(),
        **OPTIONS,
    }
    normalize_images(**{**given, **changes})
    return read_json(folder / "out" / "my tiles.json")
