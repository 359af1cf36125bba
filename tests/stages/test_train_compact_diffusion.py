"""The compact diffusion model as a stage: it starts from the head, resumes, and is never worse."""

from __future__ import annotations

import csv
import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from stainfuser.diffusion import compact_pairs, compact_style, compact_training
from stainfuser.diffusion.compact_pairs import draw_pairs
from stainfuser.diffusion.compact_style import StylePairs
from stainfuser.diffusion.pipeline import StainFuserPipeline
from stainfuser.diffusion.training_images import prepare_image
from stainfuser.errors import InputError
from stainfuser.nn.class_matcher import OperatorHeadParams
from stainfuser.nn.feature_networks import load_feature_network
from stainfuser.nn.gram_style import GramStyleOptions
from stainfuser.nn.operator_head import OperatorHead
from stainfuser.stages import train_compact_diffusion as stage
from stainfuser.stain.metrics import gradient_correlation
from stainfuser.stain.optical_density import od_to_rgb

OPTIONS = {
    "examples": 12,
    "tile_px": 32,
    "context_tokens": 4,
    "latent_patch_px": 4,
    "latent_channels": 48,
    "channels": [8, 8],
    "decoder_channels": 8,
    "autoencoder_steps": 2,
    "autoencoder_learning_rate": 1e-3,
    "steps": 4,
    "learning_rate": 1e-3,
    "finetune_steps": 2,
    "finetune_learning_rate": 1e-4,
    "batch_size": 2,
    "crop_px": 16,
    "warmup_steps": 1,
    "weight_decay": 0.0,
    "ema_decay": 0.9,
    "checkpoint_steps": 2,
    "label_noise": 0.5,
    "style_share": 0.0,
    "feature_weights": None,
    "feature_network": "squeezenet",
}


def tissue(seed: int, side: int = 128) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    amounts = np.zeros((side, side, 2))
    amounts[..., 1] = 0.35 + 0.1 * np.sin(x / 5) * np.cos(y / 7)
    for _ in range(40):
        cy, cx = rng.uniform(0, side, 2)
        amounts[..., 0] += 0.9 * (np.hypot(y - cy, x - cx) < 3.5)
    amounts[y > 0.85 * side] = 0
    od = np.minimum(amounts, 1) @ np.array([[0.8, 0.75, 0.4], [0.1, 0.7, 0.35]]) + 0.03
    return od_to_rgb(od + rng.normal(0, 0.01, od.shape))


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    folder = tmp_path_factory.mktemp("head")
    torch.manual_seed(0)
    OperatorHead(OperatorHeadParams(6, (8, 8, 16), 8, 16, 1, 2, 64)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rows = ["file,split,stain,licence"]
    for seed, split in enumerate(("train", "validation", "test")):
        Image.fromarray(tissue(seed)).save(folder / f"{seed}.png")
        rows.append(f"{seed}.png,{split},he,CC0")
    (folder / "split.csv").write_text("\n".join(rows) + "\n")
    return folder


def run(out, collection, head, **changes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "draw_sections", lambda count, seed, split: [])
        patch.setattr(compact_training, "HELD_OUT_TILES", 4)
        patch.setattr(compact_training, "COMPONENT_EXAMPLES", 4)
        patch.setattr(compact_training, "DECODER_EXAMPLES", 2)
        stage.train_compact_diffusion(
            images_dir=collection,
            split_path=collection / "split.csv",
            head_dir=head,
            model_dir=out / "model",
            losses_path=out / "losses.csv",
            curves_path=out / "curves.png",
            samples_path=out / "samples.png",
            validation_path=out / "validation.json",
            work_dir=out / "work",
            seed=1,
            threads=1,
            **{**OPTIONS, **changes},
        )


def bytes_of(out):
    files = [p for p in out.rglob("*") if p.is_file() and "work" not in p.parts]
    return {
        str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)
    }


@pytest.fixture(scope="module")
def trained(collection, head, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    run(out, collection, head)
    return out


def test_all_phases_are_trained_and_what_is_held_out_is_looked_at(trained):
    rows = list(csv.DictReader((trained / "losses.csv").open()))
    steps = {
        phase: [int(row["step"]) for row in rows if row["phase"] == phase]
        for phase in ("autoencoder", "diffusion", "finetune", "finetune validation held_out_both")
    }
    assert steps == {
        "autoencoder": [1, 2],
        "diffusion": [1, 2, 3, 4],
        "finetune": [1, 2],
        "finetune validation held_out_both": [0, 2],
    }


def test_the_model_renders_from_its_head(trained, head):
    assert sorted(path.name for path in (trained / "model").iterdir()) == sorted(stage.PARTS)
    OperatorHead.from_pretrained(head).save_pretrained(trained / "model/operator_head")
    pipe = StainFuserPipeline.from_pretrained(trained / "model")
    assert pipe.config.start == "operator_head"
    image = tissue(7, 48)
    assert pipe(image, tissue(8, 40), output_type="np", mode="render").images.shape == (
        1,
        48,
        48,
        3,
    )


def test_operator_and_rendering_are_compared_on_held_out_tissue(trained):
    content = json.loads((trained / "validation.json").read_text())
    assert content["better"] in ("operator", "render")
    assert set(content["held_out_tissue"]) == {"identity", "operator", "render"}
    assert content["autoencoder_psnr_db"]["worst"] > 45
    assert content["n"] >= 2


def test_a_killed_run_continues_to_the_same_bytes(trained, collection, head, tmp_path):
    draws = iter(range(10_000))
    plain = compact_training.draw_pairs

    def dying(*arguments):
        if next(draws) == 3:
            raise KeyboardInterrupt
        return plain(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compact_training, "draw_pairs", dying)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, collection, head)
    run(tmp_path, collection, head)
    expected = bytes_of(trained)
    assert {k: v for k, v in expected.items() if "operator_head" not in k} == bytes_of(tmp_path)


def test_a_table_without_training_images_is_refused(collection, head, tmp_path):
    table = (collection / "split.csv").read_text().replace(",train,", ",test,")
    (tmp_path / "split.csv").write_text(table)
    for path in collection.glob("*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="no H&E image has the split train"):
        run(tmp_path / "out", tmp_path, head)


def test_pairs_are_exact_keep_structure_and_glass(head, monkeypatch):
    monkeypatch.setattr(compact_pairs, "NOT_HE_SHARE", 0.0)
    frozen = OperatorHead.from_pretrained(head)
    images = [prepare_image("a", tissue(0), 32)]
    pairs = draw_pairs(images, frozen, 6, 32, 1, "test")
    again = draw_pairs(images, frozen, 6, 32, 1, "test")
    for pair, same in zip(pairs, again, strict=True):
        assert np.array_equal(pair.truth, same.truth)
        assert pair.source.shape == pair.start.shape == pair.truth.shape
        structure = gradient_correlation(
            *(np.concatenate(list(x)) for x in (pair.source, pair.truth))
        )
        assert structure > 0.95
        glass = (pair.source.min(-1) >= pair.operator.white.min()) & (pair.source.min(-1) > 245)
        assert np.array_equal(pair.truth[glass], pair.start[glass])


def test_where_a_side_is_not_he_the_start_is_the_truth(head, monkeypatch):
    monkeypatch.setattr(compact_pairs, "NOT_HE_SHARE", 1.0)
    frozen = OperatorHead.from_pretrained(head)
    pairs = draw_pairs([prepare_image("a", tissue(0), 32)], frozen, 4, 32, 1, "test")
    assert all(np.array_equal(pair.start, pair.truth) for pair in pairs)


def random_style(images, share=1.0):
    network = load_feature_network("squeezenet", None, allow_random_weights=True)
    return StylePairs(images, network, share)


def test_stylised_pairs_keep_structure_and_show_one_image_in_anothers_stain(head, monkeypatch):
    monkeypatch.setattr(compact_style, "MAX_UNLIKENESS", 2.0)
    monkeypatch.setattr(compact_style, "OPTIONS", GramStyleOptions("lbfgs", 3, 1.0, 1.0))
    monkeypatch.setattr(compact_style, "is_plausible", lambda rgb: True)
    images = [prepare_image(str(seed), tissue(seed), 32) for seed in (0, 1)]
    frozen, style = OperatorHead.from_pretrained(head), random_style(images)
    pair = next(
        found
        for seed in range(20)
        if (found := style.draw(frozen, 32, np.random.default_rng(seed))) is not None
    )
    assert pair.truth.shape == pair.source.shape and pair.target.shape[1:] == (32, 32, 3)
    assert (
        gradient_correlation(*(np.concatenate(list(x)) for x in (pair.source, pair.truth))) > 0.95
    )
    assert not np.array_equal(pair.truth, pair.source)


def test_tissue_of_another_composition_is_not_learned_from(head, monkeypatch):
    monkeypatch.setattr(compact_style, "MAX_UNLIKENESS", -1.0)
    style = random_style([prepare_image(str(seed), tissue(seed), 32) for seed in (0, 1)])
    assert style.draw(OperatorHead.from_pretrained(head), 32, np.random.default_rng(0)) is None


def test_the_share_of_stylised_examples_is_what_was_asked_for(monkeypatch):
    monkeypatch.setattr(StylePairs, "draw", lambda *_: "stylised")
    exact = lambda images, head, count, *_: ["exact"] * count  # noqa: E731
    monkeypatch.setattr(compact_training, "draw_pairs", exact)
    images = [prepare_image("a", tissue(0), 32)]
    mixed = compact_training.Tissue(images, [], random_style(images, 0.25))
    drawn = mixed.draw(None, 400, 32, 1, "test")
    assert len(drawn) == 400 and 75 <= drawn.count("stylised") <= 125


def test_missing_weights_of_the_style_network_are_named(collection, head, tmp_path):
    with pytest.raises(InputError, match=r"none\.h5: the weights.*style_share to 0"):
        run(tmp_path, collection, head, style_share=0.5, feature_weights="none.h5")
