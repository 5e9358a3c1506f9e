"""An adaptive random forest by River, and its trees as plain arrays.

River's trees cannot be stored as data, so the forest is a function of data that can: of a bounded ring of the examples
it learned from. Two forests grow side by side: the old one has learned the whole ring, the young one its newer half.
When the ring is full, its older half goes and the young forest takes the old one's place. So it forgets, and a learner
that starts anew has exactly the same trees after learning the ring again.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bandits.propensity_score import NO_TREES, Floats, Trees

RING: Final = 2_048
HALF: Final = RING // 2
TREES: Final = 5
MAX_DEPTH: Final = 8
EXPORT_EVERY: Final = 64
"""Examples between exports."""
FIRST: Final = 512.0
SHARE: Final = 1.0 / 100.0
"""The first 512 examples may be learned, then one in 100: a forest costs as much for one as the rest for 50."""
PATIENCE: Final = 32.0
BALANCE: Final = 3
SLACK: Final = 8
"""The commoner outcome has at most 3 times as many places in the ring as the rarer one, and 3 * 8 more."""


class Forest:
    """Grows trees on a sample of the examples.

    Parameters
    ----------
    width
        Features in a row.

    Attributes
    ----------
    trees
        The latest export.
    """

    def __init__(self, width: int) -> None:
        self.trees: Trees = NO_TREES
        self.x: NDArray[np.float32] = np.zeros((RING, width), np.float32)
        self.y: NDArray[np.bool_] = np.zeros(RING, np.bool_)
        self.count = 0
        self.generation = 0
        self.allowance = FIRST
        self.unexported = 0
        self._grown: list[Any] | None = None  # old and young; None: to be grown from the ring when needed

    def learn(self, x: Floats, y: NDArray[np.bool_]) -> None:
        """Take a share of the examples, in order."""
        positives = int(self.y[: self.count].sum())
        for row, outcome in zip(x, y.tolist(), strict=True):
            self.allowance = min(self.allowance + SHARE, FIRST if self.count < FIRST else PATIENCE)
            same = positives if outcome else self.count - positives
            if self.allowance < 1.0 or same > BALANCE * (self.count - same + SLACK):
                continue
            self.allowance -= 1.0
            old, young = self._forests()
            self.x[self.count], self.y[self.count] = row, outcome
            positives += outcome
            _learn_one(old, self.x[self.count], outcome)
            if self.count >= HALF:
                _learn_one(young, self.x[self.count], outcome)
            self.count += 1
            self.unexported += 1
            if self.count == RING:
                self._turn()
                positives = int(self.y[: self.count].sum())
        if self.unexported >= EXPORT_EVERY:
            self.trees, self.unexported = exported(self._forests()[0]), 0

    def prepare(self) -> None:
        """Have the forests ready to learn."""
        self._forests()

    def _turn(self) -> None:
        """Let the young forest take the old one's place, and another begin."""
        _, young = self._forests()
        self.x[:HALF], self.y[:HALF] = self.x[HALF:], self.y[HALF:]
        self.count = HALF
        self.generation += 1
        self._grown = [young, _planted(self.generation + 1)]

    def _forests(self) -> list[Any]:
        if self._grown is None:
            old, young = _planted(self.generation), _planted(self.generation + 1)
            for index in range(self.count):
                _learn_one(old, self.x[index], bool(self.y[index]))
                if index >= HALF:
                    _learn_one(young, self.x[index], bool(self.y[index]))
            self._grown = [old, young]
        return self._grown


def _planted(seed: int) -> Any:
    from river.forest import ARFClassifier  # noqa: PLC0415  # takes seconds and 100 MB: only where something is learned

    return ARFClassifier(n_models=TREES, max_depth=MAX_DEPTH, grace_period=100, leaf_prediction="mc", seed=seed)


def _learn_one(forest: Any, x: NDArray[np.float32], outcome: bool) -> None:  # noqa: FBT001  # the label is a boolean
    forest.learn_one(dict(enumerate(x.tolist())), outcome)


def exported(forest: Any) -> Trees:
    """River's forest as arrays; they give the same probabilities to within rounding.

    A tree's vote weighs its accuracy so far, as in River; a tree without any weighs 1.
    """
    nodes: list[tuple[int, float, int, int, float, float]] = []
    roots: list[int] = []
    weights: list[float] = []
    depth = 0
    for tree, metric in zip(forest, forest._metrics, strict=True):  # noqa: SLF001  # River has no name for it
        accuracy = float(metric.get())
        roots.append(len(nodes))
        weights.append(accuracy if accuracy > 0.0 else 1.0)
        depth = max(depth, _add(tree._root, nodes))  # noqa: SLF001  # likewise
    columns = list(zip(*nodes, strict=True)) or [()] * 6
    feature, threshold, left, right, value, votes = columns
    return Trees(
        np.array(roots, np.int64),
        np.array(weights, np.float64),
        np.array(feature, np.int64),
        np.array(threshold, np.float64),
        np.array(left, np.int64),
        np.array(right, np.int64),
        np.array(value, np.float64),
        np.array(votes, np.float64),
        depth,
    )


def _add(node: Any, nodes: list[tuple[int, float, int, int, float, float]]) -> int:
    """Append a node and all below it; how many levels are below it."""
    index = len(nodes)
    children = getattr(node, "children", None)
    if children is None:
        stats = node.stats if node is not None else {}
        seen = sum(stats.values())
        value = stats.get(True, 0.0) / seen if seen else 0.5
        nodes.append((0, 0.0, index, index, value, float(seen > 0)))  # leads to itself
        return 0
    nodes.append((node.feature, node.threshold, index, index, 0.5, 0.0))
    levels, ends = [], []
    for child in children:
        ends.append(len(nodes))
        levels.append(_add(child, nodes))
    nodes[index] = (node.feature, node.threshold, ends[0], ends[1], 0.5, 0.0)
    return 1 + max(levels)
