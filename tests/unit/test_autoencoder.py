"""The patch autoencoder: an orthonormal code of patches, exact where nothing is cut off."""

from __future__ import annotations

import pytest
import torch

from stainfuser.nn.autoencoder import PatchAutoencoder


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(0)
    return torch.nn.functional.avg_pool2d(torch.rand(4, 3, 66, 66), 3, 1) * 2 - 1


def test_all_components_reproduce_the_image(images):
    vae = PatchAutoencoder(patch_px=4, latent_channels=48, hidden_channels=8, layers=1)
    kept = vae.set_principal_components(images)
    assert kept == pytest.approx(1.0, abs=1e-6)
    with torch.no_grad():
        assert torch.allclose(vae(images), images, atol=1e-5)


def test_fewer_components_keep_most_of_a_smooth_image(images):
    vae = PatchAutoencoder(patch_px=4, latent_channels=16, hidden_channels=8, layers=1)
    kept = vae.set_principal_components(images)
    assert 0.8 < kept < 1.0
    with torch.no_grad():
        error = (vae(images) - images).square().mean() / images.var()
    assert float(error) == pytest.approx(1.0 - kept, rel=0.05)


def test_distances_of_latents_are_distances_of_pixels(images):
    vae = PatchAutoencoder(patch_px=4, latent_channels=48, hidden_channels=8, layers=1)
    vae.set_principal_components(images)
    with torch.no_grad():
        first, second = (
            vae.encode(images[:1]).latent_dist.mode(),
            vae.encode(images[1:2]).latent_dist.mode(),
        )
    assert float((first - second).square().sum()) == pytest.approx(
        float((images[0] - images[1]).square().sum()), rel=1e-4
    )


def test_a_patch_is_coded_alone(images):
    vae = PatchAutoencoder(patch_px=4, latent_channels=12, hidden_channels=8, layers=1)
    vae.set_principal_components(images)
    with torch.no_grad():
        whole = vae.encode(images).latent_dist.mode()
        part = vae.encode(images[..., 16:32, 8:40]).latent_dist.mode()
    assert torch.allclose(whole[..., 4:8, 2:10], part, atol=1e-6)


def test_the_posterior_is_deterministic(images):
    vae = PatchAutoencoder(patch_px=4, latent_channels=12, hidden_channels=8, layers=1)
    posterior = vae.encode(images).latent_dist
    assert torch.equal(posterior.sample(), posterior.mode())
