"""Fréchet distance: by hand, against torchmetrics' own, and with weights as repeats."""

from __future__ import annotations

import numpy as np
import pytest

from stainfuser.stain.gaussian_distance import fit_cloud, frechet_between


def test_by_hand():
    # Means 3 apart; standard deviations 1 and 2 along one axis, none along the other.
    first = np.array([[-1.0, 0.0], [1.0, 0.0]]) / np.sqrt(2)
    second = np.array([[-2.0, 3.0], [2.0, 3.0]]) / np.array([np.sqrt(2), 1.0])
    found = frechet_between(fit_cloud(first), fit_cloud(second))
    assert found == pytest.approx(3.0**2 + (2.0 - 1.0) ** 2)
    assert frechet_between(fit_cloud(first), fit_cloud(first)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("shape", [(40, 6), (9, 30)])
def test_it_is_that_of_torchmetrics(shape):
    import torch
    from torchmetrics.image.fid import _compute_fid

    rng = np.random.default_rng(0)
    clouds = [rng.normal(size=shape) * 2, rng.normal(size=shape) + 1]
    tensors = [torch.from_numpy(cloud) for cloud in clouds]
    moments = [part for t in tensors for part in (t.mean(0), torch.cov(t.T))]
    wanted = float(_compute_fid(*moments))
    found = frechet_between(*map(fit_cloud, clouds))
    assert found == pytest.approx(wanted, rel=1e-4)


def test_weights_count_repeats():
    rng = np.random.default_rng(1)
    cloud, other = rng.normal(size=(5, 3)), rng.normal(size=(6, 3))
    repeats = np.array([2, 0, 1, 3, 1])
    repeated = np.repeat(cloud, repeats, axis=0)
    values = [
        frechet_between(part, fit_cloud(other))
        for part in (fit_cloud(cloud, repeats), fit_cloud(repeated))
    ]
    assert values[0] == pytest.approx(values[1])


def test_one_observation_is_refused():
    with pytest.raises(ValueError, match="at least two"):
        fit_cloud(np.zeros((1, 3)))
