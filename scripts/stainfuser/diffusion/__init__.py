"""The conditional latent diffusion model: context, objectives, pipeline and training."""
