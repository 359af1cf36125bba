import csv

import numpy as np
import pytest
from PIL import Image

from stainfuser.errors import InputError
from stainfuser.nn.operator_head import OperatorHead
from stainfuser.stages import train_operator_head as stage
from stainfuser.stain.optical_density import od_to_rgb

OPTIONS = {
    "classes": 6,
    "widths": [8, 8, 16],
    "context_width": 8,
    "token_width": 16,
    "token_layers": 1,
    "token_heads": 2,
    "max_side_px": 64,
    "steps": 2,
    "tiles_per_step": 4,
    "tile_px": 32,
    "learning_rate": 1e-3,
    "weight_decay": 1e-4,
}


def tissue(seed, side=160):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    amounts = np.zeros((side, side, 2))
    amounts[..., 1] = 0.35 + 0.1 * np.sin(x / 5) * np.cos(y / 7)
    for _ in range(60):
        cy, cx = rng.uniform(0, side, 2)
        amounts[..., 0] += 0.9 * (np.hypot(y - cy, x - cx) < 3.5)
    amounts[y > 0.85 * side] = 0
    od = np.minimum(amounts, 1) @ np.array([[0.8, 0.75, 0.4], [0.1, 0.7, 0.35]]) + 0.03
    return od_to_rgb(od + rng.normal(0, 0.01, od.shape))


@pytest.fixture
def collection(tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "draw_phantoms", lambda tile_px, seed: [])
    rows = ["file,split,stain,licence"]
    for seed, (split, stain) in enumerate(
        [("train", "he"), ("train", "he"), ("test", "he"), ("test", "he"), ("test", "ihc")]
    ):
        Image.fromarray(tissue(seed)).save(tmp_path / f"{seed}.png")
        rows.append(f"{seed}.png,{split},{stain},CC0")
    (tmp_path / "split.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def run(folder, name, **changes):
    out = folder / name
    arguments = {
        "images_dir": folder,
        "split_path": folder / "split.csv",
        "head_dir": out / "head",
        "losses_path": out / "losses.csv",
        "summary_path": out / "summary.csv",
        "sheet_path": out / "sheet.png",
        "work_dir": out / "work",
        "seed": 1,
        "threads": 1,
    }
    stage.train_operator_head(**arguments, **(OPTIONS | changes))
    return out


def test_head_losses_numbers_and_sheet_are_written(collection):
    out = run(collection, "a")
    head = OperatorHead.from_pretrained(out / "head")
    assert np.isfinite(head.solve(*[head.summarise([tissue(9)])] * 2).coefficients).all()
    with open(out / "losses.csv") as handle:
        assert len(list(csv.DictReader(handle))) == 2
    with open(out / "summary.csv") as handle:
        rows = list(csv.DictReader(handle))
    assert {"operator_head", "identity", "reinhard", "macenko"} == {row["arm"] for row in rows}
    assert {"matched", "mismatched", "source x target", "not_he", "he"} <= {
        row["data"] for row in rows
    }
    assert Image.open(out / "sheet.png").size[0] > 300


def test_same_seed_gives_the_same_bytes(collection):
    first, second = run(collection, "a"), run(collection, "b")
    for name in ("head/model.safetensors", "head/config.json", "losses.csv", "summary.csv"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_nothing_to_train_on_is_said(collection):
    table = collection / "split.csv"
    table.write_text(table.read_text().replace(",train,", ",validation,"))
    with pytest.raises(InputError, match="split train"):
        run(collection, "a")
