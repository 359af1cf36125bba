import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from stainfuser.errors import InputError
from stainfuser.nn.class_matcher import OperatorHeadParams
from stainfuser.nn.class_statistics import ClassStatistics, class_sums, pixel_moments
from stainfuser.nn.od_torch import (
    apply_operator,
    apply_relative_operator,
    cie94_square,
    od_to_rgb,
    quadratic_features,
    rgb_to_lab,
    rgb_to_od,
)
from stainfuser.nn.operator_head import OperatorHead
from stainfuser.nn.operator_safety import MIN_STRUCTURE, safe_solution
from stainfuser.nn.operator_solve import (
    absolute_coefficients,
    feature_changes,
    identity_coefficients,
    mean_features,
    predicted_structure,
    relative_features,
    ridge,
    white_point,
)
from stainfuser.nn.recolour import RecolouringBatch
from stainfuser.stain import optical_density
from stainfuser.stain.metrics import gradient_correlation
from stainfuser.stain.operators import ColourOperator
from stainfuser.stain.recolouring import random_recolouring
from stainfuser.stain.stain_directions import REFERENCE_DIRECTIONS

PARAMS = OperatorHeadParams(6, (8, 8, 16), 8, 16, 1, 2, 64)


def tissue(seed=0, side=64, dark=1.0):
    """Return a picture of blobs in two stains on glass, (side, side, 3) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    amounts = np.zeros((side, side, 2))
    for _ in range(12):
        cy, cx = rng.uniform(0, side, 2)
        blob = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * rng.uniform(2, 5) ** 2))
        amounts[..., 0] += blob
    amounts[..., 1] = 0.4 * (x > side / 4) + 0.05 * np.sin(x / 3) * np.cos(y / 4) * (x > side / 4)
    od = dark * amounts @ np.array([[0.9, 0.8, 0.4], [0.1, 0.8, 0.4]]) + 0.03
    return optical_density.od_to_rgb(od + rng.normal(0, 0.005, od.shape))


@pytest.fixture
def head():
    torch.manual_seed(0)
    return OperatorHead(PARAMS).eval().requires_grad_(False)


def test_optical_density_is_that_of_the_numpy_module():
    rgb = tissue()
    od = rgb_to_od(torch.from_numpy(rgb).float())
    np.testing.assert_allclose(od, optical_density.rgb_to_od(rgb), atol=1e-6)
    assert np.array_equal(od_to_rgb(od).round().numpy().astype(np.uint8), rgb)
    expected = optical_density.quadratic_features(optical_density.rgb_to_od(rgb))
    np.testing.assert_allclose(quadratic_features(od), expected, atol=1e-5)


def test_lab_is_that_of_scikit_image_and_differentiable_at_black():
    from skimage.color import rgb2lab

    rgb = np.random.default_rng(0).integers(0, 256, (50, 3)).astype(np.uint8)
    rgb[0], rgb[1] = 0, 255
    tensor = torch.from_numpy(rgb).float().requires_grad_()
    lab = rgb_to_lab(tensor)
    np.testing.assert_allclose(lab.detach(), rgb2lab(rgb[None] / 255.0)[0], atol=0.05)
    cie94_square(lab, lab.detach() + 1.0).sum().backward()
    assert torch.isfinite(tensor.grad).all()


def test_cie94_is_that_of_scikit_image():
    from skimage.color import deltaE_ciede94

    rng = np.random.default_rng(1)
    first, second = rng.uniform([20, -20, -40], [90, 60, 20], (2, 40, 3))
    # scikit-image divides by the geometric-mean-free chroma of its first argument.
    expected = deltaE_ciede94(second, first)
    ours = cie94_square(torch.from_numpy(first), torch.from_numpy(second)).sqrt()
    np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_batched_recolouring_is_that_of_the_numpy_module():
    rng = np.random.default_rng(3)
    drawn = [random_recolouring(REFERENCE_DIRECTIONS, rng) for _ in range(3)]
    fields = [np.stack([getattr(r, n) for r in drawn]) for n in ("swap", "gamma", "curve", "bends")]
    batch = RecolouringBatch(*(torch.from_numpy(f).float() for f in fields))
    rgb = tissue()
    result = batch(torch.from_numpy(np.stack([rgb] * 3)).float()).numpy()
    for recolouring, ours in zip(drawn, result, strict=True):
        assert np.abs(recolouring(rgb).astype(int) - ours).max() <= 1


def test_moments_add_up_over_tiles(head):
    tiles = np.stack([tissue(seed) for seed in range(4)])
    together, first, rest = (
        head.summarise(tiles),
        head.summarise(tiles[:1]),
        head.summarise(tiles[1:]),
    )
    # Pixels are counted exactly; classes see the context of their own call.
    torch.testing.assert_close((first + rest).context[-10:], together.context[-10:])
    torch.testing.assert_close(
        (first + rest).classes.sum(0), together.classes.sum(0), rtol=1e-5, atol=1e-3
    )
    assert float((first + rest).images) == 4
    assert float(together.fractions.sum()) == pytest.approx(1.0, abs=1e-6)
    repeated = head.summarise(np.concatenate([tiles, tiles]))
    torch.testing.assert_close(repeated.means(), together.means(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(repeated.classes, 2 * together.classes, atol=1e-2, rtol=1e-4)


def test_class_moments_are_means_and_covariances():
    blocks = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    moments = (
        pixel_moments(blocks.repeat_interleave(2, 2).repeat_interleave(2, 3))
        .sum(1, keepdim=True)
        .double()
    )
    statistics = ClassStatistics(torch.ones(1), torch.zeros(1, 1), moments, moments)
    pixels = blocks.flatten(2)[0].T.double()
    torch.testing.assert_close(statistics.means()[0, 0], pixels.mean(0), atol=1e-4, rtol=0)
    covariance = torch.cov(pixels.T, correction=0)
    torch.testing.assert_close(statistics.covariances()[0, 0], covariance, atol=2e-4, rtol=0)


def test_absolute_coefficients_are_the_relative_operator():
    torch.manual_seed(0)
    relative, white, od = torch.randn(2, 9, 3), torch.rand(2, 3), torch.rand(2, 7, 3)
    expected = white[:, None] + relative_features(od - white[:, None]) @ relative
    result = quadratic_features(od) @ absolute_coefficients(relative, white)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-4)


def test_ridge_finds_a_known_map_and_stays_at_the_start_without_points():
    torch.manual_seed(0)
    known, points = torch.randn(1, 9, 3), torch.rand(1, 40, 3)
    start, pull = torch.zeros(1, 9, 3), torch.full((1, 9), 1e-6)
    features = relative_features(points)
    found = ridge(features, features @ known, torch.ones(1, 40), start, pull)
    torch.testing.assert_close(found, known, atol=0.05, rtol=0.05)
    held = ridge(features, points, torch.zeros(1, 40), known, pull)
    torch.testing.assert_close(held, known)


def test_operator_keeps_white_whatever_the_target(head):
    source, target = head.summarise([tissue()]), head.summarise([tissue(5, dark=2.0)])
    coefficients = head.solve(source, target).coefficients
    white = white_point(source).numpy()
    mapped = optical_density.quadratic_features(white) @ coefficients
    np.testing.assert_allclose(mapped, white, atol=1e-6)


def test_solution_is_deterministic_and_fits_the_colour_operator(head):
    sides = [head.summarise([tissue(s)]) for s in (0, 1)]
    first, second = head.solve(*sides), head.solve(*sides)
    assert first.coefficients.shape == (10, 3) and first.coefficients.dtype == np.float64
    assert np.array_equal(first.coefficients, second.coefficients)
    assert 0.0 <= first.confidence <= 1.0
    operator = ColourOperator.from_json(json.loads(json.dumps(first.diagnostics))["operator"])
    assert operator(tissue()).shape == (64, 64, 3)


def test_both_forms_of_the_operator_agree_on_tissue(head):
    match = head.match(*(head.statistics(_tensor(tissue(s))[None])[0] for s in (0, 1)))
    rgb = torch.full((1, 5, 3), 120.0)
    absolute = apply_operator(absolute_coefficients(match.relative, match.white), rgb)
    relative = apply_relative_operator(match.relative, match.white, rgb)
    torch.testing.assert_close(absolute, relative, atol=1e-2, rtol=1e-3)


def test_low_confidence_changes_nothing(head):
    match = head.match(
        *(head.statistics(_tensor(tissue(s, dark=d))[None])[0] for s, d in ((0, 1), (1, 2)))
    )
    sides = [_as_batch(head.summarise([tissue(s)])) for s in (0, 1)]
    doubtful = safe_solution(match, *sides, -5.0, 5.0)
    assert doubtful.confidence < 0.01
    np.testing.assert_allclose(doubtful.coefficients, np.eye(10, 3, -1), atol=1e-6)
    assert any("source" in remark for remark in doubtful.diagnostics["remarks"])
    sure = safe_solution(match, *sides, 9.0, 9.0)
    assert np.abs(sure.coefficients - np.eye(10, 3, -1)).max() > 0.05


def test_an_operator_that_would_invert_tissue_is_weakened(head):
    side = head.summarise([tissue()])
    batch = _as_batch(side)
    relative = torch.zeros(1, 9, 3)
    relative[0, :3] = -0.5 * torch.eye(3)
    match = head.match(*[_as_batch(side.to(torch.float32))] * 2)._replace(relative=relative)
    solution = safe_solution(match, batch, batch, 9.0, 9.0)
    assert solution.diagnostics["kept_fraction"] < 0.9
    assert solution.diagnostics["expected_structure"] >= MIN_STRUCTURE - 1e-3
    assert any("structure" in remark for remark in solution.diagnostics["remarks"])


def test_predicted_structure_is_near_the_measured_one(head):
    rgb = tissue()
    side = _as_batch(head.summarise([rgb]))
    coefficients = identity_coefficients(torch.zeros(1, 10, 3, dtype=torch.float64))
    assert float(predicted_structure(coefficients, side)) == pytest.approx(1.0, abs=1e-9)
    coefficients[0, 1:4] = torch.tensor([[1.2, 0.5, 0.1], [-0.3, 0.4, 0.2], [0.0, 0.3, 1.0]])
    result = apply_operator(coefficients.float(), torch.from_numpy(rgb).float()[None])[0]
    measured = gradient_correlation(rgb, result.round().numpy().astype(np.uint8))
    assert float(predicted_structure(coefficients, side)) == pytest.approx(measured, abs=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (5, 3), (200, 90)])
def test_any_size_is_summarised(head, shape):
    image = np.full((*shape, 3), 180, np.uint8)
    statistics = head.summarise([image])
    assert torch.isfinite(statistics.classes).all()
    assert np.isfinite(head.solve(statistics, statistics).coefficients).all()


@pytest.mark.parametrize(
    "images", [[], np.zeros((2, 4, 4), np.uint8), np.zeros((1, 4, 4, 3), np.float32), [None]]
)
def test_what_is_not_tiles_is_refused(head, images):
    with pytest.raises(ValueError, match="expected"):
        head.summarise(images)


def test_saved_and_loaded_head_is_the_same(head, tmp_path):
    head.save_pretrained(tmp_path, {"software": "stainfuser"})
    loaded = OperatorHead.from_pretrained(tmp_path)
    assert loaded.params == PARAMS
    torch.testing.assert_close(loaded.state_dict(), head.state_dict())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_damaged_folders_are_refused_in_one_sentence(head, tmp_path):
    with pytest.raises(InputError, match=r"config\.json"):
        OperatorHead.from_pretrained(tmp_path)
    head.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    good = weights.read_bytes()
    for bad in (good[: len(good) // 2], pickle.dumps({"a": 1}), b""):
        weights.write_bytes(bad)
        with pytest.raises(InputError, match="does not hold an operator head"):
            OperatorHead.from_pretrained(tmp_path)
    weights.write_bytes(good)
    config = json.loads((tmp_path / "config.json").read_text())
    for change in ({"classes": 7}, {"depth": 3}, {"class": "UNet"}):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(InputError):
            OperatorHead.from_pretrained(tmp_path)


def test_weights_that_are_not_finite_are_refused(head, tmp_path):
    head.assign[2].bias[0] = float("nan")
    head.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="not finite"):
        OperatorHead.from_pretrained(tmp_path)


def test_class_sums_do_not_depend_on_batch_neighbours(head):
    tiles = torch.cat([_tensor(tissue(s)) for s in range(3)])
    logits = torch.randn(3, 6, 32, 32)
    groups = torch.randn(3, 3, 32, 32)
    together, _ = class_sums(tiles, logits, groups)
    alone, _ = class_sums(tiles[1:2], logits[1:2], groups[1:2])
    torch.testing.assert_close(together[1:2], alone)


def _tensor(rgb):
    return torch.from_numpy(rgb).permute(2, 0, 1)[None].float()


def _as_batch(statistics):
    return ClassStatistics(*(getattr(statistics, n)[None] for n in statistics.__annotations__))


def test_white_is_that_of_the_glass_not_of_pale_tissue_beside_it():
    od = torch.full((1, 3, 40, 40), 0.05)
    od[..., :6] = 0.17
    od[..., 20:] = 0.6
    group_logits = torch.zeros(1, 3, 20, 20)
    group_logits[:, 0] = 2.0
    _, groups = class_sums(
        od_to_rgb(od.movedim(1, -1)).movedim(-1, 1), group_logits[:, :1], group_logits
    )
    side = ClassStatistics(torch.ones(1), torch.zeros(1, 1), groups[:, :1], groups)
    assert white_point(side)[0].tolist() == pytest.approx([0.05] * 3, abs=0.025)


def test_white_is_the_usual_one_where_there_is_no_glass():
    moments = torch.zeros(1, 3, 16)
    moments[0, 2, :4] = torch.tensor([100.0, 60.0, 80.0, 50.0])
    side = ClassStatistics(torch.ones(1), torch.zeros(1, 1), moments, moments)
    assert white_point(side)[0].tolist() == pytest.approx([0.04] * 3, abs=1e-3)


def test_every_class_of_the_slide_is_within_the_trusted_colours(head):
    rgb = tissue(dark=1.6)
    side = head.summarise([rgb])
    parts = head.solve(side, head.summarise([tissue(3)])).diagnostics["operator"]
    od = optical_density.rgb_to_od(rgb).reshape(-1, 3)
    offset = od - optical_density.rgb_to_od(np.rint(parts["white"]).astype(np.uint8))
    offset = offset - parts["centre"]
    sigmas = np.sqrt(np.einsum("ni,ij,nj->n", offset, np.array(parts["precision"]), offset))
    assert np.quantile(sigmas, 0.99) < 3.2


def test_mean_features_are_the_mean_of_the_features():
    torch.manual_seed(0)
    points, spread = torch.rand(500, 3).double(), torch.rand(3).double()
    covariance = torch.cov(points.T, correction=0)
    expected = relative_features(points).mean(0)
    torch.testing.assert_close(mean_features(points.mean(0), covariance), expected)
    small = 1e-6 * spread
    change = (relative_features(points + small) - relative_features(points)) / 1e-6
    torch.testing.assert_close(
        feature_changes(points, spread.expand(500, 3)), change, atol=1e-4, rtol=0
    )


def test_axes_are_a_root_of_the_covariance_and_survive_a_class_without_one(head):
    statistics, _ = head.statistics(_tensor(tissue(0))[None])
    axes = statistics.axes()
    torch.testing.assert_close(axes.transpose(-1, -2) @ axes, statistics.covariances())
    broken = statistics.classes.clone()
    broken[..., 4:10] -= 1.0
    axes = replace(statistics, classes=broken).axes()
    assert torch.isfinite(axes).all()


def test_threads_do_not_change_a_bit_of_the_statistics():
    rng = np.random.default_rng(5)
    head = OperatorHead(PARAMS).eval().requires_grad_(False)
    tiles = rng.integers(0, 256, (9, 400, 380, 3)).astype(np.uint8)
    one, three = (head.summarise(tiles, workers) for workers in (1, 3))
    for name in one.__annotations__:
        assert torch.equal(getattr(one, name), getattr(three, name))
