"""Models as they were when a decision was made: from a file of snapshots, else learned again from the examples.

A backtest names another version with nearly every decision. To keep each would take gigabytes; what was learned is a
fold over the examples, so any version is had again by folding as many of them as its number says.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bandits.arms import ArmModel
from bandits.learner import model_of
from bandits.linear import LinearModel
from bandits.snapshot import SnapshotError, decode
from bandits.spec import PolicySpec
from decisioning.learning import learner_of_one
from streams.checking import unreadable
from streams.failure import NO, Failure

if TYPE_CHECKING:
    from decisioning.explain import Recall


def recall_of(models: Path | None, examples: Path | None) -> Recall | None:
    """How to find a policy's model at a version; None where nothing to find it in was given.

    Parameters
    ----------
    models
        Snapshots, one a line, as `backtest --models` writes them.
    examples
        Records of `examples`, one a line, from the first one on, as `backtest --examples` writes them.
    """
    if models is None and examples is None:
        return None

    def recall(policy: str, version: int, spec: PolicySpec) -> ArmModel | LinearModel | None:
        found = None if models is None else _kept(models, policy, version)
        if found is None and examples is not None:
            found = _learned(examples, policy, version, spec)
        return found

    return recall


def _kept(path: Path, policy: str, version: int) -> ArmModel | LinearModel | None:
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    snapshot = decode(line)
                    if (snapshot.model, snapshot.version) == (policy, version):
                        return model_of(snapshot)
                except SnapshotError as error:
                    raise Failure(f"{path}: line {number}: {error}; give the file that was written", NO) from None
    except OSError as error:
        raise unreadable(path, error) from None
    return None


def _learned(path: Path, policy: str, version: int, spec: PolicySpec) -> ArmModel | LinearModel | None:
    """Fold the examples before `version`; None where there are not as many."""
    learner = learner_of_one(policy, spec)
    try:
        with path.open("rb") as lines:
            for offset, line in enumerate(lines):
                if offset >= version:
                    break
                learner.take(line, offset)
    except OSError as error:
        raise unreadable(path, error) from None
    return learner.model(policy) if learner.versions.get(policy) == version else None
