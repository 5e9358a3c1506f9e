"""The learner: a fold over examples in the order of their log, into one model for each policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Final

import msgspec
import numpy as np

from bandits.arms import ArmModel
from bandits.linear import LinearModel
from bandits.policy import Floats
from bandits.snapshot import Snapshot, SnapshotError, decode, encode
from bandits.spec import PolicySpec

MAX_POLICIES: Final = 2_000
MAX_RECORD_BYTES: Final = 256_000
Featurise = Callable[[str, str, Mapping[str, float]], Floats]  # (policy, arm, context) -> float64[width or dim]
SpecOf = Callable[[str], PolicySpec | None]
DimOf = Callable[[str], int | None]


class Record(msgspec.Struct, frozen=True):
    """What of a record of `examples` is learned from. `sent_at` is a correction's original time, else `at` counts.

    A correction that is to `forget` takes the example back; its `delta`, all that it was rewarded with.
    """

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
    forget: bool = False


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
    dim_of
        Policy -> how many features a row has, where its arms share one model of rows; None where arms go by name.
    context_version
        Which layout of numbers `featurise` gives; a snapshot of another is not resumed from.

    Attributes
    ----------
    refused
        Reason -> number of records not learned from.
    learned
        Number of records learned from.
    outcomes
        Policy -> corrections by other than 0 that it learned from: without any, there is nothing to prefer an arm for.
    offset
        Offset of the next record that is to be taken; records before it have been seen.
    """

    def __init__(
        self,
        width: int,
        featurise: Featurise,
        spec_of: SpecOf,
        context_version: int = 0,
        dim_of: DimOf = lambda policy: None,  # noqa: ARG005 - arms by name
    ) -> None:
        self.refused: Counter[str] = Counter()
        self.learned = 0
        self.offset = 0
        self.versions: dict[str, int] = {}
        self._width = width
        self._featurise = featurise
        self._spec_of = spec_of
        self._dim_of = dim_of
        self.outcomes: Counter[str] = Counter()
        self._context_version = context_version
        self._models: dict[str, ArmModel | LinearModel] = {}
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
            If it cannot be read, or is of another layout of context or another half-life than the configuration says:
            then it is to be learned anew. Nothing has changed then.
        """
        snapshot = decode(value)
        dim = self._dim_of(snapshot.model)
        kind = "arms" if dim is None else "linear"
        if snapshot.kind != kind or snapshot.context_version != self._context_version:
            raise SnapshotError(
                f"snapshot of {snapshot.model} is of kind {snapshot.kind}, context {snapshot.context_version}; "
                f"expected {kind}, {self._context_version}"
            )
        model = model_of(snapshot)
        width = model.width if isinstance(model, ArmModel) else model.dim
        if width != (self._width if dim is None else dim):
            raise SnapshotError(f"snapshot of {snapshot.model} has width {width}; expected {dim or self._width}")
        spec = self._spec_of(snapshot.model)
        if spec is not None and model.half_life_s != spec.half_life_s:
            raise SnapshotError(
                f"snapshot of {snapshot.model} has half-life {model.half_life_s} s; expected {spec.half_life_s}"
            )
        self._models[snapshot.model] = model
        self.outcomes[snapshot.model] = outcomes_of(snapshot)
        self.versions[snapshot.model] = snapshot.version
        return snapshot.model

    def model(self, policy: str) -> ArmModel | LinearModel | None:
        """The model of a policy, as it is now."""
        return self._models.get(policy)

    def _fold(self, record: Record) -> str | None:
        spec = self._spec_of(record.policy)
        if spec is None:
            return "unknown_policy"
        reward = record.delta if record.correction else record.reward
        if reward is None:
            return "no_delta"
        known = record.policy in self._models
        if not known and (record.forget or len(self._models) >= MAX_POLICIES):
            return "nothing_to_forget" if record.forget else "too_many_policies"
        model = self._models[record.policy] if known else self._new(record.policy, spec.half_life_s)
        x = np.asarray(self._featurise(record.policy, record.arm, record.context), dtype=np.float64)
        try:
            _teach(model, record, x, reward)
        except ValueError:
            return "not_learnable"
        self._models[record.policy] = model
        self.outcomes[record.policy] += bool(record.correction and reward and not record.forget)
        return None

    def _new(self, policy: str, half_life_s: float | None) -> ArmModel | LinearModel:
        dim = self._dim_of(policy)
        return ArmModel(self._width, half_life_s) if dim is None else LinearModel(dim, half_life_s)

    def _snapshot(self, name: str) -> bytes:
        return encode(
            Snapshot(
                model=name,
                kind="arms" if isinstance(self._models[name], ArmModel) else "linear",
                version=self.versions[name],
                data=self._models[name].to_bytes(),
                context_version=self._context_version,
                meta={"outcomes": self.outcomes[name]},
            )
        )


def model_of(snapshot: Snapshot) -> ArmModel | LinearModel:
    """The model in a snapshot of a policy.

    Raises
    ------
    SnapshotError
        If it is of another kind, or its bytes cannot be read.
    """
    match snapshot.kind:
        case "arms":
            return ArmModel.from_bytes(snapshot.data)
        case "linear":
            return LinearModel.from_bytes(snapshot.data)
        case _:
            raise SnapshotError(f"snapshot of {snapshot.model} is of kind {snapshot.kind}; expected arms or linear")


def outcomes_of(snapshot: Snapshot) -> int:
    """How many outcomes a policy's snapshot has seen."""
    found = snapshot.meta.get("outcomes", 0)
    return found if type(found) is int and found >= 0 else 0


def _teach(model: ArmModel | LinearModel, record: Record, x: Floats, reward: float) -> None:
    at_s, key = (record.sent_at or record.at).timestamp(), key_of(record.decision_id)
    if isinstance(model, LinearModel):
        if record.forget:
            model.forget(x, -reward, at_s, key)
        elif record.correction:
            model.correct(x, reward, at_s, key)
        else:
            model.learn(x, reward, at_s, key)
    elif record.forget:
        model.forget(record.arm, x, -reward, at_s, key)
    elif record.correction:
        model.correct(record.arm, x, reward, at_s, key)
    else:
        model.learn(record.arm, x, reward, at_s, key)


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
