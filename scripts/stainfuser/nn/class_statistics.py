"""What a slide's tiles say about its stain: sums per tissue class, which add up over tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from stainfuser.nn.od_torch import rgb_to_od

# Per class: mass, sum of OD (3), of OD x OD (6) and of the OD gradient x itself (6), upper
# triangles row by row.
MOMENTS = 16
UPPER = ((0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2))
FULL = (0, 1, 2, 1, 3, 4, 2, 4, 5)
# What is named: glass, nuclei, every other tissue.
GROUPS = ("background", "nuclei", "other")
# Below this share of the pixels a class says nothing: keeps means of empty classes finite.
MIN_FRACTION = 1e-5
# Nuclei, other tissue, and all tissue, matched beside the learned classes.
EXTRA_CLASSES = 3
# Added to variances, squared OD: one grey level of noise.
VARIANCE_FLOOR = 1e-5
# Orthonormal: all channels alike, red against blue, green against both.
AXES = (
    (3**-0.5, 3**-0.5, 3**-0.5),
    (2**-0.5, 0.0, -(2**-0.5)),
    (6**-0.5, -2 * 6**-0.5, 6**-0.5),
)
# Factor on the logits of the named groups before their pixels are counted.
GROUP_SHARPNESS = 4.0
# Densest channel, OD, above which nothing is glass, and how soft that limit is.
MAX_GLASS_OD, GLASS_OD_SOFTNESS = 0.28, 0.03


@dataclass(frozen=True)
class ClassStatistics:
    """Sums over the pixels of some tiles; ``a + b`` are the statistics of both sets of tiles.

    Any leading dimensions stand for several slides at once.

    Attributes
    ----------
    images
        (...): number of tiles.
    context
        (..., F): sums over tiles of what the encoder saw of them as a whole.
    classes
        (..., K, MOMENTS): moments of each learned tissue class.
    groups
        (..., 3, MOMENTS): moments of `GROUPS`.
    """

    images: Tensor
    context: Tensor
    classes: Tensor
    groups: Tensor

    def __add__(self, other: ClassStatistics) -> ClassStatistics:
        return ClassStatistics(
            self.images + other.images,
            self.context + other.context,
            self.classes + other.classes,
            self.groups + other.groups,
        )

    def to(self, dtype: torch.dtype) -> ClassStatistics:
        """Return the same numbers in another precision."""
        return self.each(lambda part: part.to(dtype))

    def each(self, change: Callable[[Tensor], Tensor]) -> ClassStatistics:
        """Return the statistics with every part changed alike."""
        return ClassStatistics(*(change(getattr(self, name)) for name in self.__annotations__))

    @property
    def fractions(self) -> Tensor:
        """(..., K): share of the pixels in each class."""
        return self.classes[..., 0] / self.groups[..., 0].sum(-1, keepdim=True).clamp(min=1e-9)

    @property
    def group_fractions(self) -> Tensor:
        """(..., 3): share of the pixels in each of `GROUPS`."""
        mass = self.groups[..., 0]
        return mass / mass.sum(-1, keepdim=True).clamp(min=1e-9)

    def means(self) -> Tensor:
        """(..., K, 3): mean OD of each class."""
        return self.classes[..., 1:4] / self._mass()[..., None]

    def covariances(self) -> Tensor:
        """(..., K, 3, 3): covariance of the OD within each class."""
        second = self.classes[..., 4:10] / self._mass()[..., None]
        means = self.means()
        floor = VARIANCE_FLOOR * torch.eye(3, dtype=means.dtype)
        return _symmetric(second) - means[..., :, None] * means[..., None, :] + floor

    def spreads(self) -> Tensor:
        """(..., K, 3): how the OD changes, per deviation, along each class's dark-light axis."""
        along = self.covariances().sum(-1)
        return along / along.sum(-1, keepdim=True).clamp(min=VARIANCE_FLOOR).sqrt()

    def axes(self) -> Tensor:
        """(..., K, 3, 3): a root of each covariance; rows are changes of the OD, in deviations.

        The first along the dark-light axis, where most of the variation is (`spreads`); the others
        what is left at right angles to the axes before. Two classes' axes correspond row by row
        under the triangular map between their Gaussians (Knothe), which has no sign to choose.
        """
        covariances = self.covariances()
        basis = covariances.new_tensor(AXES)
        turned = basis @ covariances @ basis.T
        root, failed = torch.linalg.cholesky_ex(turned)
        # A class of one colour: rounding can leave its covariance without a root.
        alone = torch.diagonal(turned, dim1=-2, dim2=-1).clamp(min=VARIANCE_FLOOR).sqrt()
        root = torch.where(failed[..., None, None] > 0, torch.diag_embed(alone), root)
        return root.transpose(-1, -2) @ basis

    def gradient_products(self) -> Tensor:
        """(..., K, 3, 3): sum over the pixels of the OD gradient times itself."""
        return _symmetric(self.classes[..., 10:16])

    def with_groups(self) -> ClassStatistics:
        """Return the statistics with `EXTRA_CLASSES` more: nuclei, other tissue, and both."""
        tissue = self.groups[..., 1:, :]
        extra = [self.classes, tissue, tissue.sum(-2, keepdim=True)]
        return replace(self, classes=torch.cat(extra, dim=-2))

    def _mass(self) -> Tensor:
        return (
            self.classes[..., 0] + MIN_FRACTION * self.groups[..., 0].sum(-1, keepdim=True) + 1e-9
        )


def pixel_moments(od: Tensor) -> Tensor:
    """Return (N, h*w, MOMENTS) of (N, 3, H, W) OD, in blocks of 2 px: 1, OD, OD x OD, gradients.

    Gradients (central differences) are taken at full resolution, their products averaged.
    """
    padded = F.pad(od, (1, 1, 1, 1), mode="replicate")
    along_x = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    along_y = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    gradient = halved(_products(along_x) + _products(along_y))
    mean = halved(od)
    moments = torch.cat([torch.ones_like(mean[:, :1]), mean, _products(mean), gradient], dim=1)
    return moments.flatten(2).transpose(1, 2)


def halved(field: Tensor) -> Tensor:
    """Average (N, C, H, W) over blocks of 2 px; the last row and column count in full."""
    return F.avg_pool2d(field, 2, ceil_mode=True, count_include_pad=False)


def _products(field: Tensor) -> Tensor:
    rows, columns = UPPER
    return field[:, rows] * field[:, columns]


def _symmetric(upper: Tensor) -> Tensor:
    return upper[..., FULL].unflatten(-1, (3, 3))


def class_sums(rgb: Tensor, logits: Tensor, group_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return (N, K, MOMENTS) and (N, 3, MOMENTS): moments of the OD in each class and group."""
    od = rgb_to_od(rgb)
    moments = pixel_moments(od)
    od = halved(od)
    classes = logits.flatten(2).softmax(dim=1) @ moments
    # Sharpened, or the little doubt about much tissue would outweigh a little glass; and glass is
    # light, whatever the network says.
    share = (GROUP_SHARPNESS * group_logits.detach().flatten(2)).softmax(dim=1)
    is_light = torch.sigmoid((MAX_GLASS_OD - od.amax(1).flatten(1)) / GLASS_OD_SOFTNESS)
    glass, nuclei, other = share.unbind(1)
    share = torch.stack([glass * is_light, nuclei, other + glass * (1 - is_light)], dim=1)
    groups = share @ moments
    return classes, groups
