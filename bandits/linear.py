"""One Bayesian linear regression over rows of features that all arms share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandits.belief import Belief, Outlook
from bandits.best import chance_of_best
from bandits.evidence import common_level, expected_spread, prior_variance, prior_variances
from bandits.moments import LARGEST, NOTHING, Moments
from bandits.policy import Floats
from bandits.rules import probabilities
from bandits.snapshot import SnapshotError, seal, unseal
from bandits.spec import PolicySpec

MAX_DIM: Final = 500
_MAGIC: Final = b"linear01"
_SAMPLES: Final = 256
_MONTH_DAYS: Final = 30.0
_HAIR: Final = 1e-12
_CHUNK: Final = 100_000  # numbers of a batch that are held at once: they fit into a core's cache
_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)


class LinearModel:
    """Statistics of a reward that is linear in a row's features, around a common level.

    Parameters
    ----------
    dim
        Features of a row, 1 to 500.
    half_life_s
        Seconds after which an example counts half; None: never.
    """

    def __init__(self, dim: int, half_life_s: float | None = None) -> None:
        self.dim = checked_dim(dim)
        self._moments = Moments(dim + 1, half_life_s)
        self._moments.grow()

    @property
    def half_life_s(self) -> float | None:
        """Seconds after which an example counts half."""
        return self._moments.half_life_s

    def learn(self, x: Floats, reward: float, at_s: float, key: int) -> None:
        """Take in one example; see `ArmModel.learn`."""
        self._add(x, reward, at_s, key, 1.0)

    def correct(self, x: Floats, delta: float, at_s: float, key: int) -> None:
        """Add `delta` to the reward of an example; all else is as it was given to `learn`."""
        self._add(x, delta, at_s, key, 0.0)

    def forget(self, x: Floats, reward: float, at_s: float, key: int) -> None:
        """Take an example back, with the reward it has by now."""
        self._add(x, -reward, at_s, key, -1.0)

    def add_rows(self, x: Floats, reward: Floats, weight: Floats, at_s: Floats | None, count: float) -> None:
        """Many examples (`count` 1) or corrections (0), each identified by its row and its time."""
        if not len(x):
            return
        z = np.concatenate([np.ones((len(x), 1)), x], axis=1)
        named = x if at_s is None else np.concatenate([x, at_s[:, None]], axis=1)
        self._moments.add_rows(np.zeros(len(x), dtype=np.intp), z, reward, weight, at_s, row_keys(named), count)

    def ready(self, spec: PolicySpec) -> ReadyLinear:
        """The policy that follows from what has been learned.

        The posterior is N(V b / noise, V) with V = (A / noise + prior^-1)^-1 (Bishop 2006, equations 3.50 to 3.54), in
        features scaled to a root mean square of 1 where they are not 0; the common level is left free, and the prior
        variances of coefficients follow from the evidence.
        """
        moments = self._moments
        outlook, age = outlook_of(spec, moments), moments.age
        gram, moment = moments.gram[0] * age, moments.moment[0] * age
        examples = gram[0, 0]
        if examples <= NOTHING:
            return ReadyLinear.of_nothing(spec, outlook, self.dim)
        held = np.maximum(moments.nonzero[1:] * age, NOTHING)
        squares = np.diag(gram)[1:]
        scale = np.sqrt(np.where((held > NOTHING) & (squares > 0.0), squares / held, 1.0))
        inner, across = _told(gram[1:, 1:] / np.outer(scale, scale)), _told(gram[0, 1:] / scale)
        sums = moment[1:] / scale
        mean = moment[0] / examples
        centred, response = inner - np.outer(across, across) / examples, sums - across * mean
        roots, basis = np.linalg.eigh(centred)
        roots = np.maximum(roots, 0.0)
        along = response @ basis
        free = roots > 1e-9 * max(float(roots.max()), 1e-300)
        rough = basis @ np.divide(along, roots, out=np.zeros_like(along), where=free) / scale
        level = (moment[0] - gram[0, 1:] @ rough) / examples
        noise = moments.noise(np.concatenate([[level], rough]))
        if noise <= 0.0:
            return ReadyLinear.of_nothing(spec, outlook, self.dim)
        shared = prior_variance(roots, along, noise, expected_spread(mean, noise))
        apart = not np.any(inner - np.diag(np.diag(inner)))
        if apart:
            coefficients, factor, prior = _apart(np.diag(inner), sums, noise, shared)
        else:
            coefficients, factor, prior = _together(centred, response, noise, shared)
        return ReadyLinear(
            spec, outlook, math.sqrt(noise), prior / scale**2, coefficients / scale, factor / scale, apart
        )

    def to_bytes(self) -> bytes:
        """All of it as bytes; equal models give equal bytes."""
        return seal(_MAGIC + self._moments.to_bytes())

    @staticmethod
    def from_bytes(data: bytes) -> LinearModel:
        """Read a model back.

        Raises
        ------
        SnapshotError
            If these bytes are not what `to_bytes` gives.
        """
        content = unseal(data)
        if not content.startswith(_MAGIC):
            raise SnapshotError("linear model does not begin as it should: written by another version")
        moments = Moments.from_bytes(content[len(_MAGIC) :])
        if not 1 < moments.width <= MAX_DIM + 1 or len(moments.moment) != 1:
            raise SnapshotError(f"linear model has width {moments.width}; expected 2 to {MAX_DIM + 1}")
        made = LinearModel(moments.width - 1, moments.half_life_s)
        made._moments = moments
        return made

    def _add(self, x: Floats, reward: float, at_s: float, key: int, count: float) -> None:
        self._moments.add(0, example(x, self.dim, reward, at_s), reward, at_s, key, count)


def _told(sums: Floats) -> Floats:
    """Sums of products of scaled features, less what has faded away."""
    return np.where(np.abs(sums) > NOTHING, sums, 0.0)


def _apart(tried: Floats, sums: Floats, noise: float, shared: float) -> tuple[Floats, Floats, Floats]:
    """Posterior mean, factor and prior where rows share no feature: given the level, coefficients are independent."""
    wide = 1.0 / (tried / noise + 1.0 / shared)
    level = common_level(tried, sums, noise, shared)
    return wide * (sums - level * tried) / noise, np.diag(np.sqrt(wide)), np.full(len(tried), shared)


def _together(centred: Floats, response: Floats, noise: float, shared: float) -> tuple[Floats, Floats, Floats]:
    """Likewise where they do; each coefficient has a prior variance of its own around the shared one.

    Automatic relevance determination (MacKay 1992), with each feature looked at as if it varied on its own.
    """
    own = np.maximum(np.diag(centred), 0.0)
    prior = prior_variances(own[:, None], response[:, None], noise, math.sqrt(shared))
    # Centred sums lose what is beyond a double; a hair of the largest keeps them positive.
    precision = centred / noise + np.diag(1.0 / prior + _HAIR * own.max() / noise)
    factor = np.linalg.inv(np.linalg.cholesky(precision))  # V = factor' factor
    return factor.T @ (factor @ response) / noise, factor, prior


def checked_dim(dim: int) -> int:
    """The number of features of a row.

    Raises
    ------
    ValueError
        If it is none.
    """
    if type(dim) is not int or not 1 <= dim <= MAX_DIM:
        raise ValueError(f"dim is {dim!r}; expected the number of features of a row, 1 to {MAX_DIM}: choose fewer")
    return dim


def example(x: Floats, width: int, reward: float, at_s: float) -> Floats:
    """[1, x], once all numbers of an example have been found to be in order.

    Raises
    ------
    ValueError
        Naming what is wrong.
    """
    if np.shape(x) != (width,):
        raise ValueError(f"x has shape {np.shape(x)}; expected ({width},): one number for each feature")
    z = np.empty(width + 1)
    z[0] = 1.0
    z[1:] = x
    if not abs(reward) <= LARGEST or not abs(at_s) <= LARGEST or not (np.abs(z) <= LARGEST).all():
        raise ValueError(f"reward {reward}, at_s {at_s} or x is not finite or beyond {LARGEST}: drop the example")
    return z


def checked_rows(x: Floats, dim: int) -> Floats:
    """Rows of `dim` finite numbers, of one decision or of a batch; at least one for each decision.

    Raises
    ------
    ValueError
        Naming what is wrong.
    """
    rows = np.asarray(x, dtype=np.float64)
    if rows.ndim not in {2, 3} or rows.shape[-1] != dim or not (np.abs(rows) <= LARGEST).all():
        raise ValueError(f"x has shape {rows.shape}; expected (arms, {dim}) of finite numbers up to {LARGEST}")
    if rows.shape[-2] == 0:
        raise ValueError("x has no rows; expected at least one eligible arm: ask only where there is a choice")
    return rows


def outlook_of(spec: PolicySpec, moments: Moments) -> Outlook:
    """Of the horizon what is not over yet; without one, what a month brings at the volume of recent days."""
    if spec.horizon is None:
        return Outlook(moments.per_day * _MONTH_DAYS, is_known=False)
    return Outlook(max(spec.horizon - moments.seen, 0.0), is_known=True)


def row_keys(rows: Floats) -> NDArray[np.uint64]:
    """A hash of each row's numbers, the same in every process."""
    bits = np.ascontiguousarray(rows + 0.0).view(np.uint64)
    keys = np.zeros(len(rows), dtype=np.uint64)
    for column in bits.T:
        keys = (keys ^ column) * _MULTIPLIER
        keys ^= keys >> np.uint64(29)
    return keys


@cache
def _points(dim: int) -> NDArray[np.float32]:
    """A fixed set of standard normal points, float32[dim + 1, samples], over a row of ones.

    They come in pairs of opposite sign and have unit variance in each direction: means are exact.
    """
    half = np.random.Generator(np.random.PCG64(20_260_101)).standard_normal((_SAMPLES // 2, dim))
    half /= np.sqrt((half * half).mean(axis=0))
    points = np.concatenate([half, -half]).T
    return np.concatenate([points, np.ones((1, _SAMPLES))]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class ReadyLinear:
    """A policy over rows of features as of one moment, ready to answer; it never changes.

    Attributes
    ----------
    spec
        The algorithm and its parameters.
    outlook
        Decisions still to come.
    noise
        Standard deviation of a single reward.
    prior : float64[dim]
        Prior variances of the coefficients.
    coefficients : float64[dim]
        Posterior mean.
    factor : float64[dim, dim]
        factor' factor is the posterior covariance.
    apart
        Whether coefficients are independent of each other.
    """

    spec: PolicySpec
    outlook: Outlook
    noise: float
    prior: Floats
    coefficients: Floats
    factor: Floats
    apart: bool

    @staticmethod
    def of_nothing(spec: PolicySpec, outlook: Outlook, dim: int) -> ReadyLinear:
        """What is to be said where no reward but 0 was seen: all arms are alike."""
        return ReadyLinear(spec, outlook, 0.0, np.zeros(dim), np.zeros(dim), np.zeros((dim, dim)), apart=True)

    def probabilities(self, x: Floats) -> Floats:
        """Probability of each row of `x` (float64[arms, dim]), or of each batch of rows ([batch, arms, dim])."""
        rows = checked_rows(x, len(self.coefficients))
        arms = rows.shape[-2]
        if arms == 1 or self.noise == 0.0 or self.spec.algorithm == "uniform":
            return np.full(rows.shape[:-1], 1.0 / arms)
        batch = rows.reshape(-1, arms, rows.shape[-1])
        size = max(_CHUNK // (arms * max(rows.shape[-1], _SAMPLES)), 1)
        parts = [self._chunk(batch[at : at + size]) for at in range(0, len(batch), size)]
        return np.concatenate(parts).reshape(rows.shape[:-1])

    def _chunk(self, rows: Floats) -> Floats:
        # Sorted rows: matrix products round by position, and the answer must not depend on it.
        name = (rows * _order(rows.shape[-1])).sum(axis=-1)
        order = np.argsort(name, axis=-1, kind="stable")
        rows = np.take_along_axis(rows, order[..., None], axis=1)
        shares = probabilities(self._belief(rows), self.spec)
        shares = _alike(shares, np.take_along_axis(name, order, axis=1))
        answer: Floats = np.empty_like(shares)
        np.put_along_axis(answer, order, shares, axis=1)
        return answer

    def _belief(self, rows: Floats) -> Belief:
        dim = rows.shape[-1]
        mean = (rows * self.coefficients).sum(axis=-1)
        loads = rows @ self.factor.T
        square = (loads * loads).sum(axis=-1)
        prior = (rows * rows * self.prior).sum(axis=-1)
        known = np.maximum(prior, 1e-200)
        tried = np.maximum(known / np.maximum(square, 1e-12 * known) - 1.0, 0.0) * (self.noise**2 / known)
        spread = np.sqrt(square)
        if self.apart and ((rows != 0.0).sum(axis=1) <= 1).all():
            return Belief(mean, spread, tried, self.noise, self.outlook, lambda k: chance_of_best(mean, k * spread))

        def counted(factor: Floats) -> Floats:
            narrowed = np.empty((*mean.shape, dim + 1))
            np.multiply(loads, factor[..., None], out=narrowed[..., :dim])
            narrowed[..., dim] = mean - mean.max(axis=1, keepdims=True)
            narrowed /= np.maximum(np.abs(narrowed).max(axis=(1, 2), keepdims=True), 1e-300)
            values = narrowed.astype(np.float32) @ _points(dim)
            top = values == values.max(axis=1, keepdims=True)
            count = top.sum(axis=1, keepdims=True)
            chances: Floats = (top if count.max() == 1 else top / count).mean(axis=-1)
            return chances

        return Belief(mean, spread, tried, self.noise, self.outlook, counted)


@cache
def _order(dim: int) -> Floats:
    weights: Floats = np.random.Generator(np.random.PCG64(dim)).uniform(1.0, 2.0, dim)
    return weights


def _alike(shares: Floats, name: Floats) -> Floats:
    """Rows of the same name, which are next to each other, share alike."""
    same = name[:, 1:] == name[:, :-1]
    if not same.any():
        return shares
    made = shares.copy()
    for batch in np.flatnonzero(same.any(axis=1)):
        group = np.concatenate([[0], np.cumsum(~same[batch])])
        made[batch] = (np.bincount(group, shares[batch]) / np.bincount(group))[group]
    return made
