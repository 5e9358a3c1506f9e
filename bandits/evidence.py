"""How different things are that differ: the scale of a normal prior, from sums that are linear in the rewards."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from bandits.policy import Floats

_DECADES: Final = 3.0  # to either side of the reference
_STEPS: Final = 61
_DOUBT: Final = 0.4  # nats, standard deviation of the scale's logarithm around the reference


def prior_variance(information: Floats, response: Floats, noise: float, reference: float) -> float:
    """Variance of effects that are all N(0, variance), by its posterior on a grid (empirical Bayes).

    Effect i is seen through `response_i = information_i * effect_i + N(0, noise * information_i)`. Then the logarithm
    of the marginal likelihood of a variance v is, up to a constant,
    sum_i of -log(1 + v L_i / noise) / 2 + v y_i^2 / (2 noise (noise + v L_i)) (MacKay 1992, "Bayesian interpolation",
    in the basis where the information is diagonal). The scale, sqrt(v), has a log-normal prior around `reference`:
    with little data the answer stays near it, and much data take it anywhere.

    Parameters
    ----------
    information, response : float64[n]
        L and y, of each direction that is free.
    noise
        Variance of one observation.
    reference
        Where the standard deviation of effects is expected.

    Returns
    -------
    float
        exp of the posterior mean of log v.

    Examples
    --------
    >>> round(prior_variance(np.full(50, 100.0), np.zeros(50), 1.0, 1.0), 3) < 0.01
    True
    """
    return float(prior_variances(information[None], response[None], noise, reference)[0])


def prior_variances(information: Floats, response: Floats, noise: float, reference: float) -> Floats:
    """`prior_variance` of several groups of effects: float64[groups, n] -> float64[groups]."""
    if noise <= 0.0 or reference <= 0.0:
        return np.full(len(information), reference * reference)
    nats = np.linspace(-_DECADES, _DECADES, _STEPS) * np.log(10.0)
    ratio = (np.exp(nats) * reference) ** 2 / noise  # v / noise
    shrunk = ratio[:, None] * information[:, None, :]
    squares = response * response / noise
    fits = ratio[:, None] * squares[:, None, :] / (1.0 + shrunk) - np.log1p(shrunk)
    score = 0.5 * fits.sum(axis=2) - 0.5 * (nats / _DOUBT) ** 2
    weight = np.exp(score - score.max(axis=1, keepdims=True))
    variances: Floats = np.exp(2.0 * (weight @ nats) / weight.sum(axis=1)) * reference * reference
    return variances


def common_level(tried: Floats, sums: Floats, noise: float, variance: float) -> float:
    """The common mean of independent coefficients, each weighted by how well it is known; 0 where none was tried."""
    if not tried.any():
        return 0.0
    inverse = 1.0 / (variance * tried + noise)  # a coefficient, sums / tried, is known to noise / tried
    return float((inverse @ sums) / (inverse @ tried))


def expected_spread(mean: float, noise: float) -> float:
    """Where the standard deviation between arms is expected before there is evidence.

    Wider than what is usual (texts that say the same differ by 10 to 30 % in what they earn): an expectation that is
    too small stops exploration before there is evidence, one that is too large costs little, as the spread is narrowed
    when chances are computed (`Belief.patience`). Where rewards go either way around 0 their mean says nothing, and a
    tenth of a reward's standard deviation takes its place.
    """
    return math.sqrt((0.7 * mean) ** 2 + 0.1**2 * noise)
