"""Our own policies, as they are used: examples learned in order, one solved policy for each batch of choices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bandits import build_policy, draw
from bandits.arms import ArmModel
from bandits.spec import PolicySpec
from benchmarks.worlds import STEP_S, Floats, Ints, Stream


class Arms:
    """The engine's policy: a model of each arm over the context.

    Parameters
    ----------
    stream
        What will be played: how wide its context is, and the half-life it would be configured with.
    seed
        Names the draws.
    spec
        As in a configuration.
    """

    def __init__(self, stream: Stream, seed: int, spec: Mapping[str, Any]) -> None:
        self._spec = PolicySpec.of(spec)
        self._model = ArmModel(stream.context.shape[1], self._spec.half_life_s)
        self._names = stream.arms
        self._seed = seed

    def choose(self, context: Floats, is_open: NDArray[np.bool_], start: int) -> Ints:
        """Draw an arm for each row from its probabilities."""
        ready = self._model.ready(self._spec)
        chosen = np.zeros(len(context), np.int64)
        for arms, places in _by_openness(is_open):
            names = [self._names[arm] for arm in arms]
            # Who has the same context has the same probabilities.
            kinds, kind_of = np.unique(context[places], axis=0, return_inverse=True)
            chances = ready.probabilities_of(names, kinds)
            for place, kind in zip(places.tolist(), kind_of.ravel().tolist(), strict=True):
                chosen[place] = arms[draw(chances[kind], b"%d/%d" % (self._seed, start + place))]
        return chosen

    def learn(self, rows: Ints, context: Floats, arms: Ints, rewards: Floats) -> None:
        """Learn each outcome."""
        for row, x, arm, reward in zip(rows.tolist(), context, arms.tolist(), rewards.tolist(), strict=True):
            self._model.learn(self._names[arm], x, reward, row * STEP_S, row)


class Posted(Arms):
    """`Arms` as the worker learns: each choice is posted with reward 0 when it is made, and corrected when known."""

    def choose(self, context: Floats, is_open: NDArray[np.bool_], start: int) -> Ints:
        """Draw, and post."""
        chosen = super().choose(context, is_open, start)
        super().learn(np.arange(start, start + len(chosen)), context, chosen, np.zeros(len(chosen)))
        return chosen

    def learn(self, rows: Ints, context: Floats, arms: Ints, rewards: Floats) -> None:
        """Correct."""
        for row, x, arm, reward in zip(rows.tolist(), context, arms.tolist(), rewards.tolist(), strict=True):
            if reward:
                self._model.correct(self._names[arm], x, reward, row * STEP_S, row)


class Rows:
    """The policy of `build_policy` over rows of features: the arm's name, and the context beside each name."""

    def __init__(self, stream: Stream, seed: int, spec: Mapping[str, Any]) -> None:
        self._arms = stream.value.shape[1]
        self._policy = build_policy(dict(spec), self._arms * (1 + stream.context.shape[1]))
        self._seed = seed

    def choose(self, context: Floats, is_open: NDArray[np.bool_], start: int) -> Ints:
        """Draw an arm for each row from its probabilities."""
        chosen = np.zeros(len(context), np.int64)
        for arms, places in _by_openness(is_open):
            x = np.repeat(context[places], len(arms), axis=0)
            rows = self._features(x, np.tile(arms, len(places)))
            chances = self._policy.probabilities_of(rows.reshape(len(places), len(arms), -1))
            for place, shares in zip(places.tolist(), chances, strict=True):
                chosen[place] = arms[draw(shares, b"%d/%d" % (self._seed, start + place))]
        return chosen

    def learn(self, rows: Ints, context: Floats, arms: Ints, rewards: Floats) -> None:
        """Learn all outcomes."""
        self._policy.learn(self._features(context, arms), rewards, at_s=np.asarray(rows * STEP_S, np.float64))

    def _features(self, context: Floats, arms: Ints) -> Floats:
        name = np.eye(self._arms)[arms]
        crossed = name[:, :, None] * context[:, None, :]
        return np.hstack([name, crossed.reshape(len(arms), -1)])


def _by_openness(is_open: NDArray[np.bool_]) -> Iterator[tuple[Ints, Ints]]:
    """Sets of open arms, each with the rows that have it."""
    sets, set_of = np.unique(is_open, axis=0, return_inverse=True)
    for number, mask in enumerate(sets):
        yield np.flatnonzero(mask), np.flatnonzero(set_of.ravel() == number)


def ours(kind: type[Arms | Rows], spec: Mapping[str, Any]) -> Callable[[Stream, int], Arms | Rows]:
    """A player of a specification; with the stream's half-life, where it has one, as an operator would set it."""

    def make(stream: Stream, seed: int) -> Arms | Rows:
        aging = {} if stream.half_life_s is None else {"half_life": stream.half_life_s}
        return kind(stream, seed, {**spec, **aging})

    return make


OURS: Final[dict[str, Callable[[Stream, int], Arms | Rows]]] = {
    "ours: thompson": ours(Arms, {"algorithm": "thompson", "explore": 0.01}),
    "ours: thompson, posted and corrected": ours(Posted, {"algorithm": "thompson", "explore": 0.01}),
    "ours: thompson, explore 0.05": ours(Arms, {"algorithm": "thompson", "explore": 0.05}),
    "ours: squarecb": ours(Arms, {"algorithm": "squarecb", "explore": 0.01}),
    "ours: epsilon_greedy": ours(Arms, {"algorithm": "epsilon_greedy", "explore": 0.05}),
    "ours: thompson over rows": ours(Rows, {"algorithm": "thompson", "explore": 0.01}),
    "uniform": ours(Arms, {"algorithm": "uniform"}),
}
