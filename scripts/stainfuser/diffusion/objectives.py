"""What the network is trained to predict, where sampling starts and how it steps, by name.

epsilon
    The noise (Ho et al. 2020), as in the paper: PNDM, scaled_linear betas, 20 steps.
v_zero_snr
    v-prediction with betas rescaled to zero terminal SNR and trailing spacing (Lin et al. 2024):
    the mean colour is not given away by the last training step.
bridge
    A straight path from the source's latents to the stylised ones (latent bridge matching,
    Chadebec et al. 2025): x_s = (1 - s) stylised + s source, the network predicts
    source - stylised, and one step of Euler's method at s = 1 gives the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, PNDMScheduler
from torch import Tensor

from stainfuser.errors import ConfigError

TIMESTEPS = 1000
# Below this root mean square a bridge's loss is quadratic, latents.
ROOT_FLOOR = 0.01
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@dataclass(frozen=True)
class TrainingExample:
    """What one optimisation step shows the network: `sample` at `timesteps`, to give `answer`."""

    sample: Tensor
    timesteps: Tensor
    answer: Tensor


@dataclass(frozen=True)
class Objective:
    """One way to train and to sample.

    `starts_from` is "noise" or "source"; `has_one_step`: one call at the last time can give the
    image, so that this step can be fine-tuned on pixels. Where it is not, the signal at the last
    time is a few thousandths of the sample, and what is left after taking the noise off is noise.
    """

    name: str
    starts_from: str
    default_steps: int
    has_one_step: bool

    def make_scheduler(self) -> Any:
        """Return the diffusers scheduler that belongs to this objective."""
        if self.name == "bridge":
            return FlowMatchEulerDiscreteScheduler(num_train_timesteps=TIMESTEPS)
        if self.name == "v_zero_snr":
            return DDIMScheduler(
                num_train_timesteps=TIMESTEPS,
                prediction_type="v_prediction",
                rescale_betas_zero_snr=True,
                timestep_spacing="trailing",
                clip_sample=False,
                set_alpha_to_one=True,
                **BETAS,
            )
        return PNDMScheduler(
            num_train_timesteps=TIMESTEPS,
            skip_prk_steps=True,
            set_alpha_to_one=False,
            steps_offset=1,
            timestep_spacing="leading",
            **BETAS,
        )

    def example(
        self, stylized: Tensor, start: Tensor, noise: Tensor, uniform: Tensor, scheduler: Any
    ) -> TrainingExample:
        """Make a training example.

        Parameters
        ----------
        stylized, start
            (N, C, h, w) latents of the truth and of where the bridge starts.
        noise
            (N, C, h, w) standard normal.
        uniform
            (N,) in [0, 1), which becomes the time.
        scheduler
            What `make_scheduler` returned.
        """
        if self.name == "bridge":
            # One network call is what inference makes, so s = 1 is what training shows.
            times = torch.full_like(uniform, float(TIMESTEPS))
            return TrainingExample(start, times, start - stylized)
        times = (uniform * TIMESTEPS).long()
        sample = _add_noise(scheduler, stylized, noise, times)
        if self.name == "v_zero_snr":
            return TrainingExample(sample, times, scheduler.get_velocity(stylized, noise, times))
        return TrainingExample(sample, times, noise)

    def one_step(self, example: TrainingExample, prediction: Tensor, scheduler: Any) -> Tensor:
        """Return the clean latents that one call at the last time yields.

        Raises `ValueError` where the objective has no such step.
        """
        if not self.has_one_step:
            raise ValueError(f"{self.name} cannot make an image in one step")
        if self.name == "bridge":
            return example.sample - prediction
        table = scheduler.alphas_cumprod.to(prediction.device)
        share = table[example.timesteps.to(prediction.device)].view(-1, 1, 1, 1)
        return share.sqrt() * example.sample - (1.0 - share).sqrt() * prediction

    def loss(self, prediction: Tensor, answer: Tensor) -> Tensor:
        """Return the scalar loss of (N, C, h, w) predictions.

        Noise has one size, so squares are right for it. How far a source is from its target
        differs between pairs; a bridge pays the root mean square over the channels at every
        place, lest the farthest pairs decide alone.
        """
        square = (prediction - answer).square()
        if self.name == "bridge":
            return (square.mean(dim=1) + ROOT_FLOOR**2).sqrt().mean()
        return square.mean()


OBJECTIVES = {
    "epsilon": Objective("epsilon", starts_from="noise", default_steps=20, has_one_step=False),
    "v_zero_snr": Objective("v_zero_snr", starts_from="noise", default_steps=10, has_one_step=True),
    "bridge": Objective("bridge", starts_from="source", default_steps=1, has_one_step=True),
}


def objective_named(name: str) -> Objective:
    """Return the objective, or raise `ConfigError` naming those there are."""
    if name not in OBJECTIVES:
        known = ", ".join(sorted(OBJECTIVES))
        raise ConfigError("train.objective", f"{name!r} is unknown", f"choose one of {known}")
    return OBJECTIVES[name]


def set_timesteps(scheduler: Any, steps: int, device: torch.device) -> None:
    """Prepare `steps` steps; a straight path is cut into equal parts that end at 0."""
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        sigmas = [1.0 - step / steps for step in range(steps)]
        scheduler.set_timesteps(sigmas=sigmas, device=device)
    else:
        scheduler.set_timesteps(steps, device=device)


def _add_noise(scheduler: Any, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Forward process q(x_t | x_0), from the scheduler's own table."""
    share = scheduler.alphas_cumprod.to(clean.device)[times].view(-1, 1, 1, 1)
    return share.sqrt() * clean + (1.0 - share).sqrt() * noise
