"""The learner: a fold over examples in the order of their log, into one model for each policy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Final

import msgspec
import numpy as np

from bandits.arms import ArmModel
from bandits.policy import Floats
from bandits.snapshot import Snapshot, SnapshotError, decode, encode
from bandits.spec import PolicySpec

MAX_POLICIES: Final = 2_000
MAX_RECORD_BYTES: Final = 256_000
Featurise = Callable[[str, str, Mapping[str, float]], Floats]  # (policy, arm, context) -> float64[width]
SpecOf = Callable[[str], PolicySpec | None]


class Record(msgspec.Struct, frozen=True):
    """What of a record of `examples` is learned from. `sent_at` is a correction's original time, else `at` counts."""

    schema: Annotated[int, msgspec.Meta(ge=1, le=1)]
    decision_id: Annotated[str, msgspec.Meta(max_length=1000)]
    policy: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    arm: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    context: dict[str, float]
    reward: float
    correction: bool
    at: datetime
    delta: float | None = None
    sent_at: datetime | None = None


class Learner:
    """Folds records into models. A record that is not to be learned from is counted by its reason, never raised.

    Parameters
    ----------
    width
        Numbers of context that `featurise` gives.
    featurise
        (policy, arm, context by name) -> float64[width].
    spec_of
        Policy -> what the configuration says of it; None for a policy it does not know.
    context_version
        Which layout of numbers `featurise` gives; a snapshot of another is not resumed from.

    Attributes
    ----------
    refused
        Reason -> number of records not learned from.
    learned
        Number of records learned from.
    offset
        Offset of the next record that is to be taken; records before it have been seen.
    """

    def __init__(self, width: int, featurise: Featurise, spec_of: SpecOf, context_version: int = 0) -> None:
        self.refused: Counter[str] = Counter()
        self.learned = 0
        self.offset = 0
        self.versions: dict[str, int] = {}
        self._width = width
        self._featurise = featurise
        self._spec_of = spec_of
        self._context_version = context_version
        self._models: dict[str, ArmModel] = {}
        self._changed: set[str] = set()

    def take(self, record: bytes, offset: int) -> str | None:
        """Fold one record; the policy it changed, None where it changed none (seen before, or refused)."""
        if offset < self.offset:
            return None
        self.offset = offset + 1
        read = _read(record)
        if isinstance(read, str):
            self.refused[read] += 1
            return None
        if offset < self.versions.get(read.policy, 0):
            return None
        reason = self._fold(read)
        if reason is not None:
            self.refused[reason] += 1
            return None
        self.learned += 1
        self.versions[read.policy] = offset + 1
        self._changed.add(read.policy)
        return read.policy

    def snapshots(self) -> dict[str, bytes]:
        """Policies changed since the last call, by name: what goes to `models`."""
        found = {name: self._snapshot(name) for name in sorted(self._changed)}
        self._changed.clear()
        return found

    def resume(self, value: bytes) -> str:
        """Go on from a snapshot; the name of its policy.

        Raises
        ------
        SnapshotError
            If it cannot be read, or is of another layout of context; nothing has changed then.
        """
        snapshot = decode(value)
        if snapshot.kind != "arms" or snapshot.context_version != self._context_version:
            raise SnapshotError(
                f"snapshot of {snapshot.model} is of kind {snapshot.kind}, context {snapshot.context_version}; "
                f"expected arms, {self._context_version}"
            )
        model = ArmModel.from_bytes(snapshot.data)
        if model.width != self._width:
            raise SnapshotError(f"snapshot of {snapshot.model} has width {model.width}; expected {self._width}")
        self._models[snapshot.model] = model
        self.versions[snapshot.model] = snapshot.version
        return snapshot.model

    def model(self, policy: str) -> ArmModel | None:
        """The model of a policy, as it is now."""
        return self._models.get(policy)

    def _fold(self, record: Record) -> str | None:
        spec = self._spec_of(record.policy)
        if spec is None:
            return "unknown_policy"
        reward = record.delta if record.correction else record.reward
        if reward is None:
            return "no_delta"
        if not math.isfinite(reward):
            return "reward_not_finite"
        model = self._models.get(record.policy)
        if model is None:
            if len(self._models) >= MAX_POLICIES:
                return "too_many_policies"
            model = ArmModel(self._width, spec.half_life_s)
        x = np.asarray(self._featurise(record.policy, record.arm, record.context), dtype=np.float64)
        at_s = (record.sent_at or record.at).timestamp()
        try:
            fold = model.correct if record.correction else model.learn
            fold(record.arm, x, reward, at_s, key_of(record.decision_id))
        except ValueError:
            return "not_learnable"
        self._models[record.policy] = model
        return None

    def _snapshot(self, name: str) -> bytes:
        return encode(
            Snapshot(
                model=name,
                kind="arms",
                version=self.versions[name],
                data=self._models[name].to_bytes(),
                context_version=self._context_version,
            )
        )


def key_of(identity: str) -> int:
    """A hash of an example's identity, the same in every process.

    Examples
    --------
    >>> key_of("d-1") == key_of("d-1")
    True
    """
    return int.from_bytes(blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


_DECODER = msgspec.json.Decoder(Record)


def _read(record: bytes) -> Record | str:
    if len(record) > MAX_RECORD_BYTES:
        return "too_large"
    try:
        read = _DECODER.decode(record)
    except msgspec.ValidationError as error:
        return "unknown_schema" if "$.schema" in str(error) else "wrong_type"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "not_json"
    return read if read.at.tzinfo is not None else "wrong_type"
