"""Probability of being best among independent normal beliefs, by quadrature."""

from __future__ import annotations

from typing import Final

import numpy as np

from bandits.policy import Floats

_NODES: Final = 65
_SPAN: Final = 4.5  # standard deviations


def normal_cdf(z: Floats) -> Floats:
    """Standard normal distribution function, to 1e-7 (Abramowitz and Stegun 1964, 26.2.17)."""
    t = 1.0 / (1.0 + 0.2316419 * np.abs(z))
    series = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    upper = np.exp(-0.5 * z * z) * (0.3989422804014327 * series)
    tail: Floats = np.where(z > 0.0, 1.0 - upper, upper)
    return tail


def chance_of_best(mean: Floats, spread: Floats) -> Floats:
    """P(arm is the largest) of independent N(mean, spread^2).

    Parameters
    ----------
    mean, spread : float64[arms]
        `spread` above 0.
    """
    z = np.linspace(-_SPAN, _SPAN, _NODES)
    density = np.exp(-0.5 * z * z)
    at = mean[:, None] + spread[:, None] * z
    below = normal_cdf((at[:, :, None] - mean) / spread)  # [arm, node, rival]
    below[np.arange(len(mean)), :, np.arange(len(mean))] = 1.0
    order = np.sort(below, axis=2)
    best = (order.prod(axis=2) * density).sum(axis=1)
    shares: Floats = best / best.sum()
    return shares
