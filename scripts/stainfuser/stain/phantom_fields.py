"""Random fields, coarse grids and scattered points that phantoms are drawn with.

Everything here is seeded by the generator it is given and works in float32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, sparse, spatial

Field = NDArray[np.float32]
Points = NDArray[np.float64]

# Standard deviation of unit white noise after the blur and the splines of `smooth_noise`.
SMOOTH_NOISE_DEVIATION = 0.267


def spline_weights(n_out: int, n_in: int, step: float, offset: float = 0.0) -> sparse.csr_array:
    """Return (n_out, n_in) cubic B-spline weights of output px i at input (i + 0.5) / step - 0.5.

    Cubic B-splines without prefilter: smooth to the second derivative and never overshooting,
    so that a level set of the coarse field is a smooth curve at full resolution.
    """
    position = (np.arange(n_out) + 0.5) / step - 0.5 + offset
    base = np.floor(position).astype(np.int64)
    t = position - base
    weights = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    columns = np.clip(base[:, None] + np.arange(-1, 3), 0, n_in - 1)
    rows = np.repeat(np.arange(n_out), 4)
    values = (np.stack(weights, axis=1) / 6).astype(np.float32)
    return sparse.csr_array((values.ravel(), (rows, columns.ravel())), shape=(n_out, n_in))


class Upsampler:
    """Interpolates coarse fields to full resolution, a block at a time.

    Parameters
    ----------
    coarse_shape, shape
        Rows and columns of the coarse field and of the full frame.
    step
        Full-resolution px per coarse px.
    """

    def __init__(self, coarse_shape: tuple[int, int], shape: tuple[int, int], step: int) -> None:
        self._rows = spline_weights(shape[0], coarse_shape[0], step)
        self._columns = spline_weights(shape[1], coarse_shape[1], step)

    def block(self, field: Field, rows: slice, columns: slice) -> Field:
        """Interpolate one block of the full frame: (h, w) → (rows, columns)."""
        down, y = _used(self._rows[rows])
        across, x = _used(self._columns[columns])
        narrow = down @ np.ascontiguousarray(field[y, x])
        return np.ascontiguousarray((across @ np.ascontiguousarray(narrow.T)).T)

    def full(self, field: Field) -> Field:
        """Interpolate the whole field: (h, w) → (H, W)."""
        wide = np.ascontiguousarray((self._columns @ np.ascontiguousarray(field.T)).T)
        return self._rows @ wide


def _used(weights: sparse.csr_array) -> tuple[sparse.csr_array, slice]:
    """Return the weights without their columns of zeros, and which columns are left."""
    used = slice(int(weights.indices.min()), int(weights.indices.max()) + 1)
    return weights[:, used], used


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale_px: float) -> Field:
    """Return unit-variance Gaussian noise, (H, W), whose features are about `scale_px` px wide.

    White noise on a grid of half that pitch, blurred so that the grid's axes do not show, then
    interpolated by cubic B-splines.
    """
    pitch = max(float(scale_px) / 2, 0.5)
    grid = [int(np.ceil(side / pitch)) + 5 for side in shape]
    shift = rng.uniform(1.0, 3.0, 2)
    values = rng.standard_normal(grid, dtype=np.float32)
    values = ndimage.gaussian_filter(values, 0.9, truncate=3.0)
    rows, columns = (
        spline_weights(side, count, pitch, move)
        for side, count, move in zip(shape, grid, shift, strict=True)
    )
    field = rows @ np.ascontiguousarray((columns @ np.ascontiguousarray(values.T)).T)
    return (field / np.float32(SMOOTH_NOISE_DEVIATION)).astype(np.float32)


def fractal_noise(
    rng: np.random.Generator, shape: tuple[int, int], scale_px: float, octaves: int = 4
) -> Field:
    """Return unit-variance noise, (H, W): octaves of `smooth_noise`, each half as wide and high."""
    gains = 0.5 ** np.arange(octaves)
    field = np.zeros(shape, np.float32)
    for gain in gains:
        field += np.float32(gain) * smooth_noise(rng, shape, scale_px * gain)
    return field / np.float32(np.sqrt(np.sum(gains**2)))


def noise_tile(
    rng: np.random.Generator, side_px: int, scale_px: float, spread: float = 0.5
) -> Field:
    """Return a periodic unit-variance tile, (side, side), of spots about `scale_px` px wide.

    A band-pass in frequency: `spread` is the band's relative width (small: regular spots).
    """
    frequency = np.hypot(fft.fftfreq(side_px)[:, None], fft.rfftfreq(side_px)[None, :])
    centre = 0.5 / scale_px
    gain = np.exp(-0.5 * ((frequency - centre) / (spread * centre)) ** 2)
    gain[0, 0] = 0.0
    spectrum = fft.rfft2(rng.standard_normal((side_px, side_px))) * gain
    tile = fft.irfft2(spectrum, s=(side_px, side_px))
    return (tile / tile.std()).astype(np.float32)


def tiled_block(tile: Field, rows: slice, columns: slice, phase: tuple[int, int]) -> Field:
    """Return one block of the plane that a periodic tile paves, shifted by `phase` px."""
    side = tile.shape[0]
    y = (np.arange(rows.start, rows.stop) + phase[0]) % side
    x = (np.arange(columns.start, columns.stop) + phase[1]) % side
    return tile[y[:, None], x[None, :]]


def streaks(noise: Field, cosine: Field, sine: Field, spacings: tuple[float, ...]) -> Field:
    """Smear noise along a direction field: line integral convolution by repeated short kernels.

    Each pass averages five samples `spacing` px apart along the local direction, so that three
    passes reach as far as one kernel of more than a hundred samples (after Cabral and Leedom,
    1993). All arrays are (H, W); `cosine` and `sine` point along columns and rows.
    Returns unit-variance streaks.
    """
    height, width = noise.shape
    rows = np.arange(height, dtype=np.float32)[:, None]
    columns = np.arange(width, dtype=np.float32)[None, :]
    field = noise
    for spacing in spacings:
        total = field.copy()
        for reach in (-2, -1, 1, 2):
            y = np.rint(rows + reach * spacing * sine).astype(np.int32)
            x = np.rint(columns + reach * spacing * cosine).astype(np.int32)
            np.clip(y, 0, height - 1, out=y)
            np.clip(x, 0, width - 1, out=x)
            total += field[y, x]
        field = total
    return field / np.float32(field.std())


def lattice(
    rng: np.random.Generator, shape: tuple[int, int], spacing: float, jitter: float = 0.32
) -> Points:
    """Return points (n, 2) as x, y: a hexagonal lattice over (H, W), each point shaken."""
    pitch = spacing * np.sqrt(3) / 2
    rows = np.arange(-pitch, shape[0] + pitch, pitch)
    columns = np.arange(-spacing, shape[1] + spacing, spacing)
    x, y = np.meshgrid(columns, rows)
    x[1::2] += spacing / 2
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    points += rng.normal(0.0, jitter * spacing / 2, points.shape)
    inside = np.all((points >= 0) & (points < [shape[1], shape[0]]), axis=1)
    return points[inside]


def sample(field: NDArray, points: Points, step: float = 1.0) -> NDArray:
    """Return the field's values at full-resolution points (n, 2), nearest coarse px."""
    index = np.clip((points / step).astype(np.int64), 0, [field.shape[1] - 1, field.shape[0] - 1])
    return field[index[:, 1], index[:, 0]]


def without_crowding(points: Points, reach: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which points to keep so that no two are nearer than the mean of their reaches.

    Of two that are too near, the one that comes first stays.
    """
    keep = np.ones(len(points), bool)
    if len(points) < 2:
        return keep
    pairs = spatial.cKDTree(points).query_pairs(float(reach.max()), output_type="ndarray")
    distance = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    pairs = pairs[distance < (reach[pairs[:, 0]] + reach[pairs[:, 1]]) / 2]
    for first, second in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]:
        if keep[first]:
            keep[second] = False
    return keep


def cell_walls(points: Points, shape: tuple[int, int], where: NDArray[np.bool_]) -> Field:
    """Return the distance to the nearest wall of the points' Voronoi cells, (H, W).

    Walls thicken at the corners where three cells meet, as they do between real cells. Outside
    `where` the distance is large.
    """
    walls = np.full(shape, 99.0, np.float32)
    if len(points) < 3 or not where.any():
        return walls
    pixels = np.argwhere(where)[:, ::-1] + 0.5
    first, second, third = spatial.cKDTree(points).query(pixels, k=3)[0].T
    rounding = 0.12 * (second - first + third) * np.exp(-(third - first) / (0.12 * third + 1e-6))
    walls[where] = np.maximum((second - first) / 2 - rounding, 0.0)
    return walls


def signed_distance(mask: NDArray[np.bool_]) -> Field:
    """Return the distance to the mask's edge, (H, W) px: positive inside, negative outside."""
    if mask.all() or not mask.any():
        return np.full(mask.shape, 1e3 if mask.all() else -1e3, np.float32)
    inside = ndimage.distance_transform_edt(mask)
    outside = ndimage.distance_transform_edt(~mask)
    distance = np.where(mask, inside - 0.5, 0.5 - outside).astype(np.float32)
    return ndimage.gaussian_filter(distance, 1.0)


def ramp(values: Field, low: float, high: float) -> Field:
    """Return a smooth step of the values: 0 below `low`, 1 above `high` (or the reverse)."""
    t = np.clip((values - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)
