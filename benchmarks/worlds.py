"""Streams of choices whose best answer is known: what a policy is measured against.

A stream is drawn whole before anybody plays: who comes, which arms are open, what each arm is worth and what it would
bring, and when that becomes known. So everybody meets the same people with the same luck, whatever they choose. Only
numpy and a seed: the same arguments give the same numbers, here and in the peers' own environment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STEP_S: Final = 60.0  # time between two choices
POINTS: Final = 40  # of a curve of regret
NEVER: Final = 2**40  # an outcome that does not come


@dataclass(frozen=True, slots=True)
class Stream:
    """One world's choices, in order.

    Attributes
    ----------
    context : float64[steps, width]
        What is known of each person.
    open : bool[steps, arms]
        Which arms may be chosen; at least one in each row.
    value : float64[steps, arms]
        Expected reward: the optimum is the largest that is open.
    reward : float64[steps, arms]
        What each arm would bring, as far as it may count.
    known : int64[steps]
        From which step on the outcome is known; `NEVER`: it is not.
    batch
        Choices made on the same knowledge.
    half_life_s
        What an operator who knows this world would configure; None: nothing changes.
    """

    context: Floats
    open: NDArray[np.bool_]
    value: Floats
    reward: Floats
    known: Ints
    batch: int = 50
    half_life_s: float | None = None

    @property
    def steps(self) -> int:
        """Number of choices."""
        return len(self.context)

    @property
    def arms(self) -> list[str]:
        """Names of the arms."""
        return [f"arm{number}" for number in range(self.value.shape[1])]


class Player(Protocol):
    """Somebody who chooses and learns."""

    def choose(self, context: Floats, is_open: NDArray[np.bool_], start: int) -> Ints:
        """The arm of each row; rows `start, start + 1, …` of the stream."""

    def learn(self, rows: Ints, context: Floats, arms: Ints, rewards: Floats) -> None:
        """Outcomes of earlier choices that have become known, in the order of the choices."""


def play(stream: Stream, player: Player) -> Floats:
    """Play a stream to its end.

    Returns
    -------
    float64[steps]
        Regret of each choice: value of the best open arm less that of the chosen one.
    """
    chosen = np.zeros(stream.steps, np.int64)
    pending = np.zeros(0, np.int64)
    for start in range(0, stream.steps, stream.batch):
        due = stream.known[pending] <= start
        rows, pending = pending[due], pending[~due]
        if len(rows):
            player.learn(rows, stream.context[rows], chosen[rows], stream.reward[rows, chosen[rows]])
        now = np.arange(start, min(start + stream.batch, stream.steps))
        chosen[now] = player.choose(stream.context[now], stream.open[now], start)
        assert stream.open[now, chosen[now]].all(), "an arm was chosen that is not open"
        pending = np.concatenate([pending, now])
    best = np.where(stream.open, stream.value, -np.inf).max(axis=1)
    regrets: Floats = best - stream.value[np.arange(stream.steps), chosen]
    return regrets


def curve(regrets: Floats) -> Floats:
    """Cumulative regret at `POINTS` moments spread evenly over a stream."""
    ends = np.linspace(len(regrets) / POINTS, len(regrets), POINTS).astype(np.int64) - 1
    summed: Floats = np.cumsum(regrets)[ends]
    return summed


def optimum(stream: Stream) -> float:
    """Sum of what the best choices are worth."""
    return float(np.where(stream.open, stream.value, -np.inf).max(axis=1).sum())


def single_best(seed: int, steps: int = 4000) -> Stream:
    """Six arms of which one is much better for everybody; five numbers of context that say nothing."""
    rng = _rng(seed)
    value = np.full(6, 0.05)
    value[rng.integers(6)] = 0.12
    return _clicks(rng, rng.standard_normal((steps, 5)), np.tile(value, (steps, 1)))


def subjects(seed: int, steps: int = 4000) -> Stream:
    """Four subjects whose effect depends on who reads: five yes-or-no facts of a person shift the odds of a click."""
    rng = _rng(seed)
    context = rng.choice([-1.0, 1.0], (steps, 5))
    odds = (
        -2.2 + rng.normal(0, 0.2, 4) + context @ rng.normal(0, 0.3, 5)[:, None] + context @ rng.normal(0, 0.5, (5, 4))
    )
    return _clicks(rng, context, _logistic(odds))


def delayed(seed: int, steps: int = 4000) -> Stream:
    """`subjects` with outcomes that become known after an exponential time, an eighth of the stream in the mean."""
    stream = subjects(seed, steps)
    wait = _rng(seed + 10_000).exponential(steps / 8, steps)
    return replace(stream, known=np.arange(steps) + 1 + wait.astype(np.int64))


def missing(seed: int, steps: int = 4000) -> Stream:
    """`delayed`, and of three in ten choices nothing is ever heard."""
    stream = delayed(seed, steps)
    lost = _rng(seed + 20_000).random(steps) < 0.3
    return replace(stream, known=np.where(lost, NEVER, stream.known))


def machines(seed: int, steps: int = 4000, *, counted: bool = False) -> Stream:
    """`subjects` where a proxy opens for four in ten people: what they do themselves is not seen.

    Parameters
    ----------
    counted
        Take the proxy's opens for rewards, as one should not.
    """
    stream = subjects(seed, steps)
    proxied = _rng(seed + 30_000).random(steps) < 0.4
    return replace(stream, reward=np.where(proxied[:, None], 1.0 if counted else 0.0, stream.reward))


def send_time(seed: int, steps: int = 6000) -> Stream:
    """Eight hours of sending; early and late risers have their own best one, and both move once around the clock."""
    rng = _rng(seed)
    late = rng.choice([-1.0, 1.0], steps)
    peak = 8.0 * np.arange(steps) / steps + 1.5 * late + rng.uniform(0, 8)
    distance = np.abs((np.arange(8) - peak[:, None] + 4.0) % 8.0 - 4.0)
    value = 0.05 + 0.25 * np.exp(-0.5 * (distance / 1.2) ** 2)
    stream = _clicks(rng, late[:, None], value)
    return replace(stream, half_life_s=steps / 12 * STEP_S)


def fatigue(seed: int, steps: int = 4000) -> Stream:
    """E-mail, push or nothing: the more a person has had of late, the likelier a message makes them unsubscribe.

    A click is worth 1, an unsubscription -4, nothing nothing. How much they had comes from elsewhere, so that the best
    choice of today does not depend on earlier ones.
    """
    rng = _rng(seed)
    tired, mobile = rng.beta(1.2, 1.5, steps), rng.choice([-1.0, 1.0], steps)
    taste = rng.normal(0, 0.3, 2)
    click = _logistic(-1.4 + taste + np.outer(mobile, [-0.3, 0.4]) - 0.8 * tired[:, None])
    leave = 0.12 * tired[:, None] ** 2 * np.array([0.7, 1.0])
    silent = np.zeros((steps, 1))
    reward = (rng.random((steps, 2)) < click) - 4.0 * (rng.random((steps, 2)) < leave)
    value = np.hstack([click - 4.0 * leave, silent])
    return _stream(np.column_stack([2.0 * tired - 1.0, mobile]), value, np.hstack([reward, silent]))


def new_arms(seed: int, steps: int = 4000) -> Stream:
    """Four arms; a better one joins after a third, a worse one after two thirds; any of them sleeps now and then."""
    rng = _rng(seed)
    context = rng.choice([-1.0, 1.0], (steps, 3))
    base = np.array([*rng.uniform(0.05, 0.12, 4), 0.2, 0.04])
    value = np.clip(base + context @ rng.normal(0, 0.015, (3, 6)), 0.01, 0.9)
    stream = _clicks(rng, context, value)
    joined = np.arange(steps)[:, None] >= np.array([0, 0, 0, 0, steps // 3, 2 * steps // 3])
    awake = rng.random((steps, 6)) < 0.9
    awake[:, 0] |= ~(joined & awake).any(axis=1)
    return replace(stream, open=joined & awake)


def short_test(seed: int, steps: int = 14_400) -> Stream:
    """A short test: four subjects, 1.5 % respond, which differs between them by 17 % (one standard deviation).

    Outcomes come in ten batches. With 14,400 there are 3,600 sends for each subject.
    """
    rng = _rng(seed)
    shape = 1 / 0.17**2
    value = np.minimum(rng.gamma(shape, 0.015 / shape, 4), 1.0)
    stream = _clicks(rng, np.zeros((steps, 0)), np.tile(value, (steps, 1)))
    return replace(stream, batch=steps // 10)


STREAMS: Final[dict[str, Callable[[int], Stream]]] = {
    "one best arm, useless context": single_best,
    "subjects by person": subjects,
    "drifting send time": send_time,
    "delayed outcomes": delayed,
    "delayed, three in ten missing": missing,
    "machine opens left out": machines,
    "fatigue, may send nothing": fatigue,
    "new and sleeping arms": new_arms,
    "short test": short_test,
}


def _rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def _logistic(odds: Floats) -> Floats:
    chances: Floats = 1.0 / (1.0 + np.exp(-odds))
    return chances


def _clicks(rng: np.random.Generator, context: Floats, value: Floats) -> Stream:
    return _stream(context, value, (rng.random(value.shape) < value).astype(np.float64))


def _stream(context: Floats, value: Floats, reward: Floats) -> Stream:
    steps = len(context)
    return Stream(context, np.ones(value.shape, np.bool_), value, reward, np.arange(steps) + 1)
