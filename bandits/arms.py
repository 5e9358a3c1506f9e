"""A model of each arm over a context, arms by name; what is known of all arms is where each one starts."""

from __future__ import annotations

import math
from typing import Final

import msgspec
import numpy as np

from bandits.beta_bernoulli import beta_prior
from bandits.evidence import common_level, expected_spread, prior_variance, prior_variances
from bandits.linear import example, outlook_of
from bandits.moments import Moments
from bandits.policy import Floats
from bandits.ready import Fit, ReadyPolicy
from bandits.snapshot import SnapshotError, seal, unseal
from bandits.spec import PolicySpec

MAX_WIDTH: Final = 24
MAX_ARMS: Final = 500
_MAX_NUMBERS: Final = 80_000  # of all arms together: a snapshot has to fit into a record of 1 MB
_FEW_NUMBERS: Final = 5  # of context make as much difference each as arms do by themselves; more share that
_LEAST_NOISE: Final = 0.2  # of the rewards' variance is not explained by arms, whatever they seem to explain


class _Stored(msgspec.Struct, frozen=True, array_like=True, tag="arms1"):
    names: list[str]
    latest_s: list[float]
    moments: bytes


class ArmModel:
    """Statistics of one policy: for each arm a Bayesian linear regression over [1, context].

    Learning is sequential: the bytes of a model depend on the examples and their order alone, never on batches.

    Parameters
    ----------
    width
        Numbers of context, at most 24; 0 for none.
    half_life_s
        Seconds after which an example counts half; None: never.

    Attributes
    ----------
    max_arms
        How many arms are kept: 500, with 24 numbers of context 228. Of more, the one not seen for longest goes.
    """

    def __init__(self, width: int, half_life_s: float | None = None) -> None:
        if type(width) is not int or not 0 <= width <= MAX_WIDTH:
            raise ValueError(f"width is {width!r}; expected 0 to {MAX_WIDTH}: choose fewer numbers of context")
        self.width = width
        self.max_arms = min(MAX_ARMS, _MAX_NUMBERS // ((width + 1) * (width + 4) // 2))
        self._moments = Moments(width + 1, half_life_s)
        self._slots: dict[str, int] = {}
        self._latest_s: dict[str, float] = {}

    @property
    def half_life_s(self) -> float | None:
        """Seconds after which an example counts half."""
        return self._moments.half_life_s

    @property
    def seen(self) -> float:
        """Examples learned, whatever their age."""
        return self._moments.seen

    @property
    def per_day(self) -> float:
        """Examples a day, of late."""
        return self._moments.per_day

    def tried(self) -> dict[str, tuple[float, float]]:
        """Arm -> (examples, mean reward), aged, in the order arms came."""
        sums = self._moments.moment[:, 0] * self._moments.age
        held = self._moments.gram[:, 0, 0] * self._moments.age
        return {
            name: (float(held[slot]), float(sums[slot] / held[slot]) if held[slot] > 0.0 else 0.0)
            for name, slot in self._slots.items()
        }

    def learn(self, arm: str, x: Floats, reward: float, at_s: float, key: int) -> None:
        """Take in an example.

        Parameters
        ----------
        arm
            Which arm was chosen.
        x : float64[width]
            The context it was chosen in.
        reward
            What came of it so far.
        at_s
            When, seconds since the epoch.
        key
            A hash of the example's identity; the same for its corrections.

        Raises
        ------
        ValueError
            If a number is not finite or `x` has another width; nothing has changed then.
        """
        self._add(arm, x, reward, at_s, key, 1.0)

    def correct(self, arm: str, x: Floats, delta: float, at_s: float, key: int) -> None:
        """Add `delta` to the reward of an example; all else is as it was given to `learn`.

        Raises
        ------
        ValueError
            As `learn`, and if nothing was learned of the arm; nothing has changed then.
        """
        self._add(arm, x, delta, at_s, key, 0.0)

    def forget(self, arm: str, x: Floats, reward: float, at_s: float, key: int) -> None:
        """Take an example back, with the reward it has by now; raises as `correct`."""
        self._add(arm, x, -reward, at_s, key, -1.0)

    def ready(self, spec: PolicySpec) -> ReadyPolicy:
        """The policy that follows from what has been learned."""
        moments = self._moments
        gram, moment = moments.gram * moments.age, moments.moment * moments.age
        tried, sums = np.maximum(gram[:, 0, 0], 0.0), moment[:, 0]
        fitted = _fit(gram, moment, moments) if tried.sum() > 0.0 else _nothing(*moment.shape)
        unit = moments.success
        return ReadyPolicy(
            spec=spec,
            outlook=outlook_of(spec, moments),
            slots=dict(self._slots),
            fit=fitted,
            tried=np.append(tried, 0.0),
            sums=np.append(sums, 0.0),
            prior=beta_prior(tried, np.clip(sums / unit, 0.0, tried)),
            unit=unit,
        )

    def to_bytes(self) -> bytes:
        """All of it as bytes; equal models give equal bytes."""
        return seal(
            msgspec.msgpack.encode(_Stored(list(self._slots), list(self._latest_s.values()), self._moments.to_bytes()))
        )

    @staticmethod
    def from_bytes(data: bytes) -> ArmModel:
        """Read a model back.

        Raises
        ------
        SnapshotError
            If these bytes are not what `to_bytes` gives.
        """
        try:
            stored = msgspec.msgpack.decode(unseal(data), type=_Stored)
        except (ValueError, RecursionError) as error:
            raise SnapshotError(f"model of arms cannot be read: {error}") from error
        moments = Moments.from_bytes(stored.moments)
        slots = {name: slot for slot, name in enumerate(stored.names)}
        if moments.width > MAX_WIDTH + 1 or not np.isfinite(stored.latest_s).all():
            raise SnapshotError(f"model of arms has width {moments.width}; expected at most {MAX_WIDTH + 1}")
        made = ArmModel(moments.width - 1, moments.half_life_s)
        if not len(slots) == len(stored.latest_s) == len(moments.moment) <= made.max_arms:
            raise SnapshotError(f"{len(stored.names)} names of arms do not fit statistics of {len(moments.moment)}")
        made._moments, made._slots = moments, slots
        made._latest_s = dict(zip(stored.names, stored.latest_s, strict=True))
        return made

    def _add(self, arm: str, x: Floats, reward: float, at_s: float, key: int, count: float) -> None:
        z = example(x, self.width, reward, at_s)
        slot = self._slots.get(arm)
        if slot is None:
            if count <= 0.0:
                raise ValueError(f"arm {arm!r} is not known; expected one an example was learned of: drop the record")
            if len(self._slots) >= self.max_arms:
                self._drop(min(self._latest_s, key=lambda name: (self._latest_s[name], name)))
            slot = self._slots[arm] = self._moments.grow()
            self._latest_s[arm] = at_s
        self._latest_s[arm] = max(self._latest_s[arm], at_s)
        self._moments.add(slot, z, reward, at_s, key, count)

    def _drop(self, arm: str) -> None:
        gone = self._slots.pop(arm)
        del self._latest_s[arm]
        self._moments.drop(gone)
        self._slots = {name: slot - (slot > gone) for name, slot in self._slots.items()}


def _nothing(arms: int, width: int) -> Fit:
    shape = arms + 1, width
    return Fit(0.0, np.zeros(width - 1), np.ones(width - 1), np.zeros(shape), np.zeros((*shape, width)))


def _fit(gram: Floats, moment: Floats, moments: Moments) -> Fit:
    """Empirical Bayes for reward = level + slopes' c + effect_a + slopes_a' c + noise, c being the scaled context.

    The level and common slopes come from all arms; effects are N(0, v0) and own slopes N(0, v1) between arms, with v0
    and v1 from the evidence (Gelman et al. 2013, "Bayesian data analysis", sections 5.4 and 15.1): a context that
    explains nothing has v1 near 0 and costs nothing. An arm's posterior is that of Bishop (2006), equation 3.50,
    around the common coefficients.
    """
    frame, centre, scale = _frame(gram.sum(axis=0))
    gram, moment = frame @ gram @ frame.T, moment @ frame.T
    pooled = gram.sum(axis=0)
    roots, basis = np.linalg.eigh(pooled[1:, 1:])
    roots = np.maximum(roots, 0.0)
    along = moment.sum(axis=0)[1:] @ basis
    sure = roots > 1e-9 * max(float(roots.max(initial=0.0)), 1e-300)
    common = np.empty(len(pooled))
    common[0] = moment[:, 0].sum() / pooled[0, 0]
    common[1:] = basis @ np.divide(along, roots, out=np.zeros_like(along), where=sure)
    total = moments.noise(common @ frame)
    if total <= 0.0:
        return _nothing(*moment.shape)

    def given(noise: float) -> tuple[Floats, Floats]:
        variance = prior_variance(roots, along, noise, expected_spread(common[0], noise))
        common[1:] = basis @ (along / (roots + noise / variance))
        return _arms(gram, moment, common, noise)

    effects, _ = given(total)
    explained = float(np.einsum("ai,aij,aj->", effects[:-1], gram, effects[:-1]) / pooled[0, 0])
    noise = max(total - explained, _LEAST_NOISE * total)  # what the arms leave
    effects, covariance = given(noise)
    return Fit(math.sqrt(noise), centre, scale, effects + common, covariance)


def _arms(gram: Floats, moment: Floats, common: Floats, noise: float) -> tuple[Floats, Floats]:
    """Posterior means around `common`, whose level is set, and covariances of all arms and of a newcomer."""
    tried = np.maximum(gram[:, 0, 0], 0.0)
    alone = moment[:, 0] - gram[:, 0, 1:] @ common[1:]
    level = float(alone.sum() / tried.sum())
    reference = expected_spread(level, noise)
    variance = reference * reference
    for _ in range(3):
        variance = prior_variance(tried, alone - tried * level, noise, reference)
        level = common_level(tried, alone, noise, variance)
    common[0] = level
    rest = moment - gram @ common
    own = _own_slopes(gram, rest, noise, variance, reference)
    prior = np.concatenate([[variance], own])
    covariance = np.linalg.inv(gram / noise + np.diag(1.0 / prior))
    effects = (covariance @ rest[:, :, None])[:, :, 0] / noise
    return np.concatenate([effects, 0.0 * effects[:1]]), np.concatenate([covariance, np.diag(prior)[None]])


def _frame(pooled: Floats) -> tuple[Floats, Floats, Floats]:
    """The matrix that takes [1, x] to [1, (x - centre) / scale], and both; what never varies is left at 0."""
    examples = pooled[0, 0]
    centre = pooled[0, 1:] / examples
    squares = np.diag(pooled)[1:] / examples
    variance = squares - centre * centre
    varies = variance > 1e-12 * squares
    scale = np.where(varies, np.sqrt(np.where(varies, variance, 1.0)), np.inf)
    frame = np.diag(np.concatenate([[1.0], 1.0 / scale]))
    frame[1:, 0] = -centre / scale
    return frame, centre, scale


def _own_slopes(gram: Floats, rest: Floats, noise: float, effect_variance: float, reference: float) -> Floats:
    """Variance between arms of their slopes over each number of context, with their effects integrated out.

    First one for all numbers, then each by itself around it (automatic relevance determination, MacKay 1992): where all
    say something that is soon known, where none does all are shrunk, and one among many that do not is found. Each
    number is looked at as if it varied on its own.
    """
    held = gram[:, 0, 0] + noise / effect_variance
    across = gram[:, 0, 1:]
    inner = np.maximum(np.diagonal(gram, axis1=1, axis2=2)[:, 1:] - across * across / held[:, None], 0.0)
    response = rest[:, 1:] - across * (rest[:, :1] / held[:, None])
    expected = reference * math.sqrt(_FEW_NUMBERS / max(inner.shape[1], _FEW_NUMBERS))
    shared = prior_variance(inner.ravel(), response.ravel(), noise, expected)
    return prior_variances(inner.T, response.T, noise, math.sqrt(shared))
