"""Beta-Bernoulli Thompson sampling with a hierarchical prior, for arms without context."""

from __future__ import annotations

import math

import numpy as np

from bandits.belief import Belief, Outlook
from bandits.best import chance_of_best
from bandits.evidence import common_level, expected_spread, prior_variance
from bandits.policy import Floats
from bandits.spec import PolicySpec

_LIFT = 8  # digamma and trigamma are computed at least this far out, where their series are exact to 1e-10


def shares(belief: Belief, spec: PolicySpec) -> Floats:
    """Each arm with the probability that its rate is the largest, under the belief of `beta_belief`.

    Chapelle and Li (2011), "An empirical evaluation of Thompson sampling", algorithm 2, with probabilities computed
    instead of drawn.
    """
    del spec
    return belief.chance(belief.patience())


def beta_prior(tried: Floats, successes: Floats) -> tuple[float, float]:
    """(a, b) of the Beta distribution that arms' rates come from, by empirical Bayes.

    The mean and variance of rates between arms are estimated from all arms (Gelman et al. 2013, "Bayesian data
    analysis", section 5.3, with the variance by `prior_variance`) and matched: a + b = mean (1 - mean) / variance - 1.
    An arm that was never tried starts from it.

    Parameters
    ----------
    tried, successes : float64[arms]
        Examples and their successes, 0 <= successes <= tried.
    """
    total = tried.sum()
    if total <= 0.0:
        return 1.0, 1.0
    mean = float((successes.sum() + 0.5) / (total + 1.0))
    noise = mean * (1.0 - mean)
    reference = expected_spread(mean, noise)
    variance = prior_variance(tried, successes - mean * tried, noise, reference)
    mean = min(max(common_level(tried, successes, noise, variance), 0.5 * mean), 0.5 + 0.5 * mean)
    size = max(mean * (1.0 - mean) / variance - 1.0, 2.0)
    return mean * size, (1.0 - mean) * size


def beta_belief(tried: Floats, sums: Floats, prior: tuple[float, float], unit: float, outlook: Outlook) -> Belief:
    """What is believed of arms with these examples and sums of rewards, a success being worth `unit`.

    P(best) is computed for the logarithms of the odds, which come in the same order as the rates and whose posterior
    is nearly normal: mean psi(a) - psi(b), variance psi'(a) + psi'(b).

    Parameters
    ----------
    tried, sums : float64[batch, arms]
        Of the eligible arms.
    """
    won = np.clip(sums / unit, 0.0, tried)
    a, b = prior[0] + won, prior[1] + tried - won
    mean = a / (a + b)
    spread = np.sqrt(mean * (1.0 - mean) / (a + b + 1.0))
    odds = _digamma(a) - _digamma(b)
    width = np.sqrt(_trigamma(a) + _trigamma(b))
    overall = prior[0] / (prior[0] + prior[1])
    noise = unit * math.sqrt(overall * (1.0 - overall))
    return Belief(
        unit * mean, unit * spread, tried, noise, outlook, lambda factor: chance_of_best(odds, factor * width)
    )


def _digamma(x: Floats) -> Floats:
    """psi(x), x > 0 (Abramowitz and Stegun 1964, 6.3.5 and 6.3.18)."""
    far, inverse = x + _LIFT, 1.0 / (x + _LIFT) ** 2
    series = np.log(far) - 0.5 / far - inverse * (1.0 / 12.0 - inverse * (1.0 / 120.0 - inverse / 252.0))
    psi: Floats = series - sum(1.0 / (x + step) for step in range(_LIFT))
    return psi


def _trigamma(x: Floats) -> Floats:
    """psi'(x), x > 0 (Abramowitz and Stegun 1964, 6.4.6 and 6.4.12)."""
    far = x + _LIFT
    inverse = 1.0 / (far * far)
    series = 1.0 / far + 0.5 * inverse + inverse / far * (1.0 / 6.0 - inverse * (1.0 / 30.0 - inverse / 42.0))
    psi: Floats = series + sum(1.0 / (x + step) ** 2 for step in range(_LIFT))
    return psi
