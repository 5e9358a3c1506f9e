"""Bandits that others offer, on our streams; runs in the peers' own environment and prints a JSON line a stream.

    python -m benchmarks.peers.bandits NAME SEEDS [QUICK]

Settings are the better ones of what was tried: the noise of a click rather than of a unit normal, and forgetting where
a peer has any and the stream changes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.worlds import STREAMS, Floats, Ints, Stream, curve, play

CLICK_VARIANCE: Final = 0.1


class LeftOutError(Exception):
    """A peer has no answer to a stream; the text says why."""


class River:
    """One of River's bandits.

    Parameters
    ----------
    make
        Gives the bandit.
    contextual
        Whether it takes a context.
    """

    def __init__(self, make: Callable[[], Any], *, contextual: bool = False) -> None:
        self._bandit = make()
        self._contextual = contextual

    def choose(self, context: Floats, is_open: NDArray[np.bool_], start: int) -> Ints:  # noqa: ARG002 - has its own luck
        """Pull an arm for each row."""
        pull = self._bandit.pull
        arms = [np.flatnonzero(row).tolist() for row in is_open]
        if not self._contextual:
            return np.array([pull(row) for row in arms])
        return np.array([pull(row, context=_named(x)) for row, x in zip(arms, context, strict=True)])

    def learn(self, rows: Ints, context: Floats, arms: Ints, rewards: Floats) -> None:  # noqa: ARG002 - order is enough
        """Update by each outcome."""
        for x, arm, reward in zip(context, arms.tolist(), rewards.tolist(), strict=True):
            if self._contextual:
                self._bandit.update(arm, _named(x), reward)
            else:
                self._bandit.update(arm, reward)


class MabWiser:
    """One of MABWiser's learning policies."""

    def __init__(self, policy: Any, arms: int, seed: int) -> None:
        from mabwiser.mab import MAB  # noqa: PLC0415 - of the peers' environment

        self._bandit = MAB(arms=list(range(arms)), learning_policy=policy, seed=seed)
        self._arms = arms
        self._rng = np.random.default_rng(seed)
        self._fitted = False

    def choose(self, context: Floats, is_open: NDArray[np.bool_], start: int) -> Ints:  # noqa: ARG002 - has its own luck
        """The best of the open arms by the expectations it gives: samples, where it samples."""
        if not self._fitted:
            return np.array([self._rng.choice(np.flatnonzero(row)) for row in is_open])
        found = self._bandit.predict_expectations(_biased(context))
        rows = found if isinstance(found, list) else [found]
        expected = np.array([[row[arm] for arm in range(self._arms)] for row in rows])
        best: Ints = np.where(is_open, expected, -np.inf).argmax(axis=1)
        return best

    def learn(self, rows: Ints, context: Floats, arms: Ints, rewards: Floats) -> None:  # noqa: ARG002 - order is enough
        """Update by all outcomes at once."""
        (self._bandit.partial_fit if self._fitted else self._bandit.fit)(arms, rewards, _biased(context))
        self._fitted = True


class VowpalWabbit:
    """A contextual exploration of Vowpal Wabbit's; arms are actions with a name, crossed with the person's numbers."""

    def __init__(self, options: str, seed: int) -> None:
        from vowpalwabbit import Workspace  # noqa: PLC0415 - of the peers' environment

        self._workspace = Workspace(f"--cb_explore_adf {options} -q UA --quiet --random_seed {seed + 1}")
        self._rng = np.random.default_rng(seed)
        self._asked: dict[int, tuple[list[int], float]] = {}  # open arms and propensity by row, until it is known

    def choose(self, context: Floats, is_open: NDArray[np.bool_], start: int) -> Ints:
        """Draw from the probabilities it gives."""
        chosen = []
        for row, (x, mask) in enumerate(zip(context, is_open, strict=True)):
            arms = np.flatnonzero(mask).tolist()
            chances = np.array(self._workspace.predict(_actions(x, arms)))
            place = int(self._rng.choice(len(arms), p=chances / chances.sum()))
            self._asked[start + row] = arms, float(chances[place])
            chosen.append(arms[place])
        return np.array(chosen)

    def learn(self, rows: Ints, context: Floats, arms: Ints, rewards: Floats) -> None:
        """Learn the cost of each chosen action with its propensity."""
        for row, x, arm, reward in zip(rows.tolist(), context, arms.tolist(), rewards.tolist(), strict=True):
            choices, propensity = self._asked.pop(row)
            self._workspace.learn(_actions(x, choices, (arm, -reward, propensity)))


def _river(name: str) -> Callable[[Stream, int], Any]:
    def make(stream: Stream, seed: int) -> River:
        from river import bandit, proba  # noqa: PLC0415 - of the peers' environment

        if name == "linucb":
            forget = None if stream.half_life_s is None else 0.5 ** (60.0 * stream.value.shape[1] / stream.half_life_s)
            noise = 1.0 / CLICK_VARIANCE
            return River(
                lambda: bandit.LinUCBDisjoint(alpha=noise, beta=noise, smoothing=forget, seed=seed), contextual=True
            )
        if name == "thompson":
            if not np.isin(stream.reward, (0.0, 1.0)).all():
                raise LeftOutError("takes rewards of 0 and 1 only")
            return River(lambda: bandit.ThompsonSampling(reward_obj=proba.Beta(seed=seed), seed=seed))
        return River(lambda: bandit.EpsilonGreedy(epsilon=0.05, seed=seed))

    return make


def _mabwiser(name: str) -> Callable[[Stream, int], Any]:
    def make(stream: Stream, seed: int) -> MabWiser:
        from mabwiser.mab import LearningPolicy  # noqa: PLC0415 - of the peers' environment

        policy = {
            "lints": LearningPolicy.LinTS(alpha=CLICK_VARIANCE**0.5),
            "linucb": LearningPolicy.LinUCB(alpha=CLICK_VARIANCE**0.5),
            "lingreedy": LearningPolicy.LinGreedy(epsilon=0.05),
        }[name]
        return MabWiser(policy, stream.value.shape[1], seed)

    return make


def _vw(options: str) -> Callable[[Stream, int], Any]:
    def make(stream: Stream, seed: int) -> VowpalWabbit:
        steady = "" if stream.half_life_s is None else " --power_t 0"  # a learning rate that does not fall
        return VowpalWabbit(options + steady, seed)

    return make


PEERS: Final[dict[str, Callable[[Stream, int], Any]]] = {
    "River LinUCBDisjoint": _river("linucb"),
    "River ThompsonSampling": _river("thompson"),
    "River EpsilonGreedy 0.05": _river("epsilon"),
    "MABWiser LinTS": _mabwiser("lints"),
    "MABWiser LinUCB": _mabwiser("linucb"),
    "MABWiser LinGreedy 0.05": _mabwiser("lingreedy"),
    "Vowpal Wabbit SquareCB": _vw("--squarecb"),
    "Vowpal Wabbit epsilon 0.05": _vw("--epsilon 0.05"),
}


def _named(x: Floats) -> dict[str, float]:
    return {"one": 1.0} | {f"x{number}": value for number, value in enumerate(x.tolist())}


def _biased(context: Floats) -> Floats:
    return np.column_stack([np.ones(len(context)), context])


def _actions(x: Floats, arms: Sequence[int], label: tuple[int, float, float] | None = None) -> list[str]:
    lines = ["shared |U one " + " ".join(f"x{number}:{value:.4f}" for number, value in enumerate(x.tolist()))]
    for arm in arms:
        cost = f"0:{label[1]:g}:{label[2]:.6f} " if label is not None and label[0] == arm else ""
        lines.append(f"{cost}|A a{arm}")
    return lines


def main(name: str, seeds: int, steps: int | None) -> None:
    """Play every stream and print the regrets."""
    for title, world in STREAMS.items():
        try:
            curves = []
            for seed in range(seeds):
                stream = world(seed) if steps is None else world(seed, steps)  # type: ignore[call-arg]
                curves.append(curve(play(stream, PEERS[name](stream, seed))).tolist())
            found: dict[str, Any] = {"stream": title, "curves": curves}
        except LeftOutError as error:
            found = {"stream": title, "left out": str(error)}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
