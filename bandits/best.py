"""Probability of being best among independent normal beliefs, by quadrature in one dimension."""

from __future__ import annotations

from typing import Final

import numpy as np

from bandits.policy import Floats

_FEW: Final = 32  # up to so many arms each brings its own nodes: arms^2 * nodes evaluations
_NODES: Final = ((4, 25), (8, 15), (16, 9), (_FEW, 6))  # (up to so many arms, nodes of each)
_SPAN: Final = 3.6  # standard deviations that the nodes reach to either side
_GRID: Final = 257  # points of the common grid for more arms
_ROUNDS: Final = 4  # times it is laid out anew, where the largest of all is likely to lie
_TINY: Final = 1e-10  # spread of a certain arm, of the range of what is compared


def normal_cdf(z: Floats) -> Floats:
    """Standard normal distribution function to 7.5e-8 (Abramowitz and Stegun 1964, 26.2.17)."""
    t = 1.0 / (1.0 + 0.2316419 * np.abs(z))
    series = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    upper = np.exp(-0.5 * z * z) * (0.3989422804014327 * series)
    below: Floats = np.where(z > 0.0, 1.0 - upper, upper)
    return below


def chance_of_best(mean: Floats, spread: Floats) -> Floats:
    """P(arm is the largest) where arms are independent N(mean, spread^2).

    P(a) = E over a's own value t of the product of the other arms' P(value <= t), as a Stieltjes sum over cells: the
    increment of a's distribution times the mean of that product at the ends of the cell. The cells end where any of
    the arms has a node, so a narrow belief among wide ones is resolved. Arms are sorted first: the result does not
    depend on their order, and equal beliefs have equal chances, exactly.

    Parameters
    ----------
    mean, spread : float64[..., arms]
        Of each arm; a `spread` of 0 is a value that is known, and known values that are equal share.

    Returns
    -------
    float64[..., arms]
        Adding to 1.

    Examples
    --------
    >>> chance_of_best(np.array([0.0, 0.0]), np.array([1.0, 1.0])).tolist()
    [0.5, 0.5]
    """
    order = np.lexsort((spread, mean), axis=-1)
    centred = np.take_along_axis(mean, order, -1)
    wide = np.take_along_axis(spread, order, -1)
    centred -= centred[..., -1:]
    reach = wide[..., -1:] - centred[..., :1] + wide[..., :1]
    wide = np.maximum(wide, _TINY * np.where(reach > 0.0, reach, 1.0))
    grid = _own_nodes(centred, wide) if mean.shape[-1] <= _FEW else _common_grid(centred, wide)
    below = normal_cdf((grid[..., None, :] - centred[..., None]) / wide[..., None])  # [..., arm, point]
    all_below = below.prod(axis=-2, keepdims=True)
    others = np.where(below > 0.0, all_below / np.maximum(below, 1e-300), 0.0)
    cells = np.diff(below, axis=-1) * (others[..., 1:] + others[..., :-1])
    best = np.maximum(cells.sum(axis=-1), 0.0)
    best /= best.sum(axis=-1, keepdims=True)
    chances: Floats = np.empty_like(best)
    np.put_along_axis(chances, order, best, -1)
    return chances


def _own_nodes(mean: Floats, spread: Floats) -> Floats:
    arms = mean.shape[-1]
    nodes = next(count for most, count in _NODES if arms <= most)
    z = np.linspace(-_SPAN, _SPAN, nodes)
    grid: Floats = (mean[..., None] + spread[..., None] * z).reshape(*mean.shape[:-1], arms * nodes)
    grid.sort(axis=-1)
    return grid


def _common_grid(mean: Floats, spread: Floats) -> Floats:
    if mean.ndim > 1:
        rows = [_common_grid(m, s) for m, s in zip(mean, spread, strict=True)]
        return np.stack(rows)
    low, high = (mean - _SPAN * spread).max(), (mean + _SPAN * spread).max()
    grid = np.linspace(low, high, _GRID)
    levels = np.linspace(0.0, 1.0, (_GRID + 1) // 2)
    for _ in range(_ROUNDS):
        largest = normal_cdf((grid - mean[:, None]) / spread[:, None]).prod(axis=0)
        steps = np.concatenate([[0.0], np.cumsum(np.maximum(np.diff(largest), 0.0))])
        where = np.interp(levels * steps[-1], steps, grid)
        grid = np.sort(np.concatenate([where, np.linspace(low, high, _GRID - len(where))]))
    return grid
