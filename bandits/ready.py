"""A policy of named arms as of one moment: what decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bandits.belief import Belief, Outlook
from bandits.best import chance_of_best
from bandits.beta_bernoulli import beta_belief
from bandits.moments import LARGEST
from bandits.policy import Floats
from bandits.rules import probabilities
from bandits.spec import PolicySpec


@dataclass(frozen=True, slots=True)
class Fit:
    """What is believed of the arms' coefficients over [1, (context - centre) / scale]; a newcomer's come last.

    Attributes
    ----------
    noise
        Standard deviation of a single reward; 0 where there was none but 0.
    centre, scale : float64[width]
        Of the context; a scale is infinite where the context never varied.
    mean : float64[arms + 1, width + 1]
        Of the posteriors.
    covariance : float64[arms + 1, width + 1, width + 1]
        Likewise.
    """

    noise: float
    centre: Floats
    scale: Floats
    mean: Floats
    covariance: Floats


@dataclass(frozen=True, slots=True)
class ReadyPolicy:
    """A policy as of one moment, ready to answer; it never changes.

    Attributes
    ----------
    spec
        The algorithm and its parameters.
    outlook
        Decisions still to come.
    slots
        Arm -> its place in all that follows; the last place is that of an arm that was never tried.
    fit
        Beliefs over the context.
    tried, sums : float64[arms + 1]
        Examples of each arm and their rewards, aged.
    prior
        (a, b) of the Beta distribution of rates between arms.
    unit
        What a success is worth, where rewards are successes or not.
    """

    spec: PolicySpec
    outlook: Outlook
    slots: dict[str, int]
    fit: Fit
    tried: Floats
    sums: Floats
    prior: tuple[float, float]
    unit: float

    def probabilities(self, arms: Sequence[str], x: Floats) -> Floats:
        """Probability of each arm.

        Parameters
        ----------
        arms
            The eligible arms, at least one; those that were never tried are newcomers.
        x : float64[width]
            The context.

        Returns
        -------
        float64[arms]
            Positive, adding to 1, each at least `explore / arms`; the same for any order of the arms.

        Raises
        ------
        ValueError
            If there are no arms, or `x` has another width or a number that is not finite.
        """
        alone: Floats = self.probabilities_of(arms, np.asarray(x, dtype=np.float64)[None])[0]
        return alone

    def probabilities_of(self, arms: Sequence[str], x: Floats) -> Floats:
        """`probabilities` in many contexts at once: float64[batch, width] -> float64[batch, arms]."""
        width = len(self.fit.centre)
        if x.ndim != 2 or x.shape[1] != width or not (np.abs(x) <= LARGEST).all():  # noqa: PLR2004 - one row each
            raise ValueError(f"x has shape {x.shape[1:]}; expected ({width},) of finite numbers up to {LARGEST}")
        if not arms:
            raise ValueError("arms is empty; expected at least one eligible arm: ask only where there is a choice")
        if len(arms) == 1 or self.fit.noise == 0.0:
            return np.full((len(x), len(arms)), 1.0 / len(arms))
        return probabilities(self._belief(self._places(arms), x), self.spec)

    def scores(self, arms: Sequence[str], x: Floats) -> dict[str, tuple[float, float]]:
        """Mean reward and its standard deviation, as believed of each arm in a context (float64[width])."""
        belief = self._belief(self._places(arms), np.asarray(x, dtype=np.float64)[None])
        return dict(zip(arms, zip(belief.mean[0].tolist(), belief.spread[0].tolist(), strict=True), strict=True))

    def _places(self, arms: Sequence[str]) -> list[int]:
        newcomer = len(self.tried) - 1
        return [self.slots.get(arm, newcomer) for arm in arms]

    def _belief(self, places: list[int], x: Floats) -> Belief:
        tried = np.broadcast_to(self.tried[places], (len(x), len(places)))
        if self.spec.algorithm == "beta_bernoulli":
            sums = np.broadcast_to(self.sums[places], tried.shape)
            return beta_belief(tried, sums, self.prior, self.unit, self.outlook)
        z = np.ones((len(x), x.shape[1] + 1))
        z[:, 1:] = (x - self.fit.centre) / self.fit.scale
        mean = (self.fit.mean[places] * z[:, None, :]).sum(axis=-1)
        loads = self.fit.covariance[places] @ z.T  # [arm, width + 1, batch]: one product for each arm, in any order
        spread = np.sqrt(np.maximum((loads * z.T).sum(axis=1).T, 0.0))
        return Belief(
            mean, spread, tried, self.fit.noise, self.outlook, lambda factor: chance_of_best(mean, factor * spread)
        )
