"""The downstream task from data to scores: phantoms and outlined nuclei, and arms that fail."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import roifile
from PIL import Image

from painted_tiles import paint_tile
from stainfuser.errors import ConfigError, InputError
from stainfuser.files import read_json
from stainfuser.io.downstream_store import DownstreamData, read_downstream
from stainfuser.stages import segment_arm as segment_arm_module
from stainfuser.stages.prepare_downstream import prepare_downstream
from stainfuser.stages.score_downstream import score_downstream
from stainfuser.stages.segment_arm import segment_arm
from stainfuser.stages.train_segmenter import train_segmenter

OPTIONS = {
    "seed": 1,
    "dataset": "phantoms",
    "laboratory": "harbour",
    "train_on": None,
    "shifts": 2,
    "train_tiles": 3,
    "test_tiles": 2,
    "references": 2,
    "tile_px": 96,
    "mpp": 0.5,
}
TRAINING = {
    "seed": 1,
    "steps": 30,
    "batch_size": 4,
    "crop_px": 64,
    "learning_rate": 0.01,
    "widths": [12, 16, 16],
}


def prepared(path: Path, **changes: object) -> DownstreamData:
    prepare_downstream(data_path=path, **OPTIONS | changes)
    return read_downstream(path)


def roi_archive(path: Path, seed: int, side_px: int = 128) -> None:
    """Write a tile with square outlines of where it is dark."""
    inner, image = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w") as zipped:
        for number in range(9):
            y, x = 10 + 40 * (number // 3), 10 + 40 * (number % 3)
            square = np.array([(x, y), (x + 12, y), (x + 12, y + 12), (x, y + 12)])
            zipped.writestr(f"{number}.roi", roifile.ImagejRoi.frompoints(square).tobytes())
    Image.fromarray(paint_tile(seed, side_px=side_px)).save(image, "TIFF")
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("tile.tif", image.getvalue())
        zipped.writestr("RoiSet.zip", inner.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Phantoms, a network trained on them, and what it makes of three arms."""
    folder = tmp_path_factory.mktemp("downstream")
    prepared(folder / "data.h5")
    train(folder)
    for arm in ("identity", "reinhard", "nst", "training_stain"):
        segmented(folder, arm)
    return folder


def train(folder: Path, name: str = "segmenter") -> Path:
    train_segmenter(data_path=folder / "data.h5", segmenter_dir=folder / name, **TRAINING)
    return folder / name


def segmented(folder: Path, arm: str) -> pd.DataFrame:
    segment_arm(
        arm=arm,
        data_path=folder / "data.h5",
        segmenter_dir=folder / "segmenter",
        baseline_dirs=[],
        model_dir=None,
        trained_dir=None,
        table_path=folder / f"{arm}.parquet",
        record_path=folder / f"{arm}.json",
        picture_path=folder / f"{arm}.png",
        seed=1,
        style_options={},
        slow_arm_tiles=1,
    )
    return pd.read_parquet(folder / f"{arm}.parquet")


def scores(folder: Path, arms: list[str], out: Path) -> pd.DataFrame:
    out.mkdir(exist_ok=True)
    score_downstream(
        table_paths=[folder / f"{arm}.parquet" for arm in arms],
        record_paths=[folder / f"{arm}.json" for arm in arms],
        picture_paths=[folder / f"{arm}.png" for arm in arms],
        scores_path=out / "scores.parquet",
        summary_path=out / "summary.csv",
        figure_path=out / "overview.png",
        sheet_path=out / "sheet.jpg",
        seed=1,
        bootstrap_samples=50,
        confidence=0.95,
    )
    return pd.read_csv(out / "summary.csv")


def test_phantoms_are_the_same_tissue_under_every_shift(folder):
    data = read_downstream(folder / "data.h5")
    assert data.train_images.shape == (3, 96, 96, 3) and data.train_labels.shape == (3, 96, 96, 2)
    assert data.test_shift == ("cedar", "fjord", "mesa", "unshifted") * 2
    assert data.test_tile == ("section-1",) * 4 + ("section-2",) * 4
    assert np.array_equal(data.test_images[3], data.test_original[0])
    assert np.array_equal(data.test_labels[0], data.test_labels[2])
    assert not np.array_equal(data.test_images[0], data.test_images[1])
    assert list(data.references) == ["reference-1", "reference-2"]
    assert data.test_labels[..., 0].max() > 0


def test_the_same_seed_gives_the_same_bytes(folder, tmp_path):
    prepared(tmp_path / "data.h5")
    assert (tmp_path / "data.h5").read_bytes() == (folder / "data.h5").read_bytes()
    again = train(tmp_path)
    first = folder / "segmenter" / "model.safetensors"
    assert (again / "model.safetensors").read_bytes() == first.read_bytes()


def test_the_network_learns(folder):
    with open(folder / "segmenter" / "losses.csv", newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 30 and np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_an_arm_without_targets_counts_for_each(folder):
    table = pd.read_parquet(folder / "identity.parquet")
    assert table.columns.tolist() == list(segment_arm_module.COLUMNS)
    # 2 references x 2 tiles x (3 shifts, unshifted) x 3 classes.
    assert len(table) == 48
    first, second = (table[table["target"] == f"reference-{n}"] for n in (1, 2))
    assert np.array_equal(first["tp"], second["tp"])


def test_an_arm_that_is_not_available_is_named_and_the_others_are_scored(folder, tmp_path):
    arms = ["training_stain", "reinhard", "nst", "identity"]
    summary = scores(folder, arms, tmp_path)
    assert summary.columns.tolist() == [
        "method",
        "dataset",
        "metric",
        "value",
        "ci_low",
        "ci_high",
        "n",
    ]
    assert summary["method"].unique().tolist() == ["identity", "reinhard", "nst", "training_stain"]
    assert read_json(folder / "nst.json")["state"] == "not run"
    assert "weights" in read_json(folder / "nst.json")["failure"]
    nst = summary[summary["method"] == "nst"]
    assert nst["value"].isna().all() and (nst["n"] == 0).all()
    assert (summary[summary["method"] == "reinhard"]["n"] == 6).all()
    assert "mpq_plus_gain" in set(summary[summary["method"] == "reinhard"]["metric"])
    assert len(pd.read_parquet(tmp_path / "scores.parquet")) == 3 * 48


def test_an_arm_that_fails_is_named_and_nothing_is_raised(folder, tmp_path, monkeypatch):
    def broken(*args: object, **options: object):
        raise RuntimeError("it broke\nin two lines")

    monkeypatch.setattr(segment_arm_module, "build_arm", broken)
    for name in ("data.h5", "segmenter"):
        (tmp_path / name).symlink_to(folder / name)
    assert segmented(tmp_path, "macenko").empty
    record = read_json(tmp_path / "macenko.json")
    assert (record["state"], record["failure"]) == ("failed", "it broke in two lines")
    summary = scores(tmp_path, ["macenko"], tmp_path / "out")
    assert summary["value"].isna().all()


def test_a_slow_arm_gets_fewer_tiles_and_its_gain_is_over_the_same(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(segment_arm_module, "build_arm", lambda *args, **options: np.copy)
    for name in ("data.h5", "segmenter", "identity.parquet", "identity.json", "identity.png"):
        (tmp_path / name).symlink_to(folder / name)
    assert set(segmented(tmp_path, "render_50")["tile"]) == {"section-1"}
    summary = scores(tmp_path, ["identity", "render_50"], tmp_path / "out").set_index("metric")
    slow = summary[summary["method"] == "render_50"]
    assert slow.loc["mpq_plus_mean", "n"] == 3
    assert slow.loc["mpq_plus_gain", "value"] == 0.0
    assert np.isnan(slow.loc["mpq_plus_gain", "ci_low"])


def test_arms_are_compared_with_ours_on_the_same_tiles(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(segment_arm_module, "build_arm", lambda *args, **options: np.copy)
    for name in ("data.h5", "segmenter", *(f"reinhard.{s}" for s in ("parquet", "json", "png"))):
        (tmp_path / name).symlink_to(folder / name)
    segmented(tmp_path, "operator")
    summary = scores(tmp_path, ["operator", "reinhard"], tmp_path / "out")
    means = summary[summary["metric"] == "mpq_plus_mean"].set_index("method")["value"]
    paired = summary[summary["metric"] == "mpq_plus_mean_minus_operator"].set_index("method")
    assert list(paired.index) == ["reinhard"]
    difference = means["reinhard"] - means["operator"]
    assert paired.loc["reinhard", "value"] == pytest.approx(difference, abs=1e-5)


def test_outlined_nuclei_are_divided_by_image_and_recoloured(tmp_path):
    for number in range(3):
        roi_archive(tmp_path / f"slide-{number}.zip", number)
    options = {"dataset": str(tmp_path), "mpp": 0.25, "tile_px": 64, "train_tiles": 8}
    data = prepared(tmp_path / "data.h5", **options)
    assert (data.dataset, data.classes) == ("imagej", ("nucleus",))
    assert len(data.train_images) == 8 and len(data.test_images) == 6
    assert set(data.test_shift) == {"scanner-1", "spectral-2", "unshifted"}
    assert len(set(data.test_group)) == 1
    assert data.test_original is not None and (data.test_original != data.test_images).any()
    assert not np.array_equal(data.test_images[0], data.test_images[2])
    unchanged = prepared(tmp_path / "b.h5", **options, shifts=0, train_on="slide-1")
    assert set(unchanged.test_shift) == {"as scanned"} and unchanged.test_original is None
    assert set(unchanged.test_group) < {"slide-0", "slide-2"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_on": "nowhere"}, "leave 0 images to train"),
        ({"train_on": "slide"}, "and 0 to test"),
        ({"tile_px": 256}, "lower downstream.tile_px"),
        ({"dataset": "missing"}, "no such folder"),
    ],
)
def test_data_that_cannot_be_divided_is_refused(tmp_path, changes, said):
    for number in range(2):
        roi_archive(tmp_path / f"slide-{number}.zip", number)
    options = {"dataset": str(tmp_path), "mpp": 0.25, "tile_px": 64} | changes
    with pytest.raises(InputError) as error:
        prepared(tmp_path / "data.h5", **options)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_laboratory_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"downstream\.laboratory"):
        prepared(tmp_path / "data.h5", laboratory="nowhere")


def test_a_file_that_is_no_data_set_is_refused(tmp_path):
    (tmp_path / "data.h5").write_bytes(b"none")
    with pytest.raises(InputError, match="no data set of the downstream task"):
        read_downstream(tmp_path / "data.h5")
