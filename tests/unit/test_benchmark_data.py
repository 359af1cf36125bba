import numpy as np

from stainfuser.diffusion import benchmark_data
from stainfuser.diffusion.benchmark_data import (
    PHANTOMS,
    SAME_OPTICS,
    degenerate_inputs,
    phantom_tasks,
    sheet_windows,
)
from stainfuser.stain.benchmark_tasks import glass_mask
from stainfuser.stain.metrics import ciede2000, gradient_correlation, psnr
from stainfuser.stain.phantom_laboratories import LABORATORIES
from stainfuser.stain.phantom_unseen import draw_laboratory, with_scanner_optics


def test_phantoms_have_a_truth_of_their_own_tissue_and_references_of_other(monkeypatch):
    monkeypatch.setattr(benchmark_data, "PHANTOM_PX", 256)
    tasks = phantom_tasks(2, 1)
    assert [task.unit for task in tasks] == ["0"] * 4 + ["1"] * 4
    assert {task.pools for task in tasks} == {(PHANTOMS,), (SAME_OPTICS,)}
    for task in tasks:
        assert 1.0 < ciede2000(task.source, task.truth) < 40.0
        assert gradient_correlation(task.source, task.truth) > 0.8
        assert gradient_correlation(task.reference, task.truth) < 0.3
    whole, same = tasks[0], tasks[2]
    assert np.array_equal(whole.source, same.source)
    assert gradient_correlation(same.source, same.truth) > gradient_correlation(
        whole.source, whole.truth
    )
    again = phantom_tasks(1, 1)
    assert all(np.array_equal(a.truth, b.truth) for a, b in zip(again, tasks[:4], strict=True))


def test_drawn_laboratories_are_none_of_the_named_ones_and_plausible():
    rng = np.random.default_rng(0)
    drawn = [draw_laboratory(rng) for _ in range(30)]
    named = list(LABORATORIES.values())
    for laboratory in drawn:
        assert (
            min(
                np.abs(np.log((laboratory.uptake[0] + 0.01) / (n.uptake[0] + 0.01))).max()
                for n in named
            )
            > 0.02
        )
        assert np.allclose(laboratory.crosstalk.sum(axis=1), 1)
        assert 540 < laboratory.haematoxylin_nm < 610 and 500 < laboratory.eosin_nm < 550
        assert all(230 <= value <= 250 for value in laboratory.white_point)
    first, second = drawn[:2]
    mixed = with_scanner_optics(first, second)
    assert mixed.noise == second.noise and mixed.jpeg == second.jpeg
    assert np.array_equal(mixed.uptake, first.uptake) and mixed.gamma == first.gamma


def test_a_mosaic_is_shown_as_one_protocol_another_for_each():
    mosaic = np.zeros((100, 180, 3), np.uint8) + (np.arange(180) // 20)[None, :, None].astype("u1")
    images = {"images/fan/x_A.jpg": mosaic, "images/fan/x_B.jpg": mosaic, "b.png": mosaic}
    windows = sheet_windows(images)
    assert list(windows) == ["fan/block A, 1", "fan/block B, 3", "b.png"]
    assert (windows["fan/block A, 1"] == 0).all() and (windows["fan/block B, 3"] == 2).all()


def test_degenerate_inputs_hold_no_stained_tissue():
    tissue = {"a": np.random.default_rng(0).integers(90, 200, (40, 40, 3)).astype(np.uint8)}
    kinds = degenerate_inputs(tissue, 1)
    assert set(kinds) == {"blank", "pen", "grey"}
    assert np.ptp(kinds["grey"]["a"].astype(int), axis=-1).max() == 0
    assert glass_mask(kinds["blank"]["glass"]).mean() > 0.95
    for name, stroke in kinds["pen"].items():
        ink = (~glass_mask(stroke)).mean()
        assert 0.2 < ink < 0.95, name
        assert psnr(stroke, degenerate_inputs(tissue, 2)["pen"][name]) < 40
