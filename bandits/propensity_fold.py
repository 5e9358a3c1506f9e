"""The learner of propensity models: a fold over example records, in the order of their log.

An example is posted with the send, its label as far as it is known then; corrections change it. It is learned when it
is mature (`mature_at`), by the records' own times: the latest `at` of a label's records is its clock. Until then it
waits here, in bounded numbers.

A snapshot is made at fixed points of the log, so whoever reads the same log makes the same bytes. It does not hold what
waits: a learner that starts anew reads the log from `since` and finds it there. What a model has learned
already it does not learn again.
"""

from __future__ import annotations

import heapq
import math
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
import numpy as np

from bandits import propensity_state, snapshot
from bandits.learner import key_of
from bandits.propensity import PropensityModel
from bandits.propensity_score import MEMBERS, Scorer
from bandits.snapshot import Snapshot, SnapshotError

PREFIX: Final = "propensity/"
KIND: Final = "propensity"
MAX_WAITING: Final = 50_000
"""Examples of a label that wait; beyond it every second one is let go, chosen by a hash, and from then on not taken."""
MAX_THIN: Final = 32
MIN_NEW, MAX_NEW = 32, 4_096
"""Examples between two snapshots: 5 % of those learned, within these bounds."""
MAX_WINDOW: Final = timedelta(days=400)
_LARGEST: Final = 1e15


class _Record(msgspec.Struct, frozen=True):
    decision_id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    policy: str
    context: dict[str, float]
    reward: float
    correction: bool
    at: datetime
    schema: Annotated[int, msgspec.Meta(ge=1, le=1)]
    mature_at: datetime | None = None
    delta: float | None = None
    forget: bool = False


@dataclass(frozen=True, slots=True)
class Measures:
    """How a model does, as metrics tell it; NaN where nothing is known yet."""

    champion: str
    version: int
    examples: int
    log_loss: float
    auc: float
    calibration_error: float
    drifts: int


@dataclass(slots=True)
class _Waiting:
    offset: int
    x: bytes  # float32: a third of what a list of numbers takes
    label: float


class _Label:
    """One model, what waits for it, and where in the log it is."""

    def __init__(self, name: str, width: int) -> None:
        self.name = name
        self.model = PropensityModel(width)
        self.version = 0  # records before it are learned, or wait
        self.clock_ms = -math.inf
        self.thin = 0
        self.next_snapshot = MIN_NEW
        self.waiting: dict[str, _Waiting] = {}
        self.due: list[tuple[float, int, str]] = []

    def take(self, record: _Record, x: Sequence[float], offset: int) -> str | None:
        """Take one record; why not, in a word, where it is of no use."""
        if offset >= self.version:
            self.clock_ms = max(self.clock_ms, _ms(record.at))
        reason = self._correct(record) if record.correction else self._add(record, x, offset)
        self._mature()
        return reason

    def _correct(self, record: _Record) -> str | None:
        found = self.waiting.get(record.decision_id)
        if found is None:
            return "unknown_decision"  # learned already, let go, or never seen
        if record.forget:
            del self.waiting[record.decision_id]
            return None
        found.label += record.delta or 0.0
        return None

    def _add(self, record: _Record, x: Sequence[float], offset: int) -> str | None:
        assert record.mature_at is not None
        due_ms = _ms(record.mature_at)
        if due_ms <= self.clock_ms:
            return None if offset < self.version else "late"
        if record.decision_id in self.waiting:
            return "duplicate"
        if not _kept(record.decision_id, self.thin):
            return "thinned"
        row = np.array(x, np.float32).tobytes()
        self.waiting[record.decision_id] = _Waiting(offset, row, record.reward)
        heapq.heappush(self.due, (due_ms, offset, record.decision_id))
        if len(self.waiting) > MAX_WAITING and self.thin < MAX_THIN:
            self.thin += 1
            self.waiting = {name: one for name, one in self.waiting.items() if _kept(name, self.thin)}
            self.due = [entry for entry in self.due if entry[2] in self.waiting]
            heapq.heapify(self.due)
        return None

    def _mature(self) -> None:
        ripe: list[_Waiting] = []
        while self.due and self.due[0][0] <= self.clock_ms:
            found = self.waiting.pop(heapq.heappop(self.due)[2], None)
            if found is not None:  # else it was forgotten
                ripe.append(found)
        if ripe:
            rows = np.frombuffer(b"".join(one.x for one in ripe), np.float32).reshape(len(ripe), -1)
            self.model.learn(rows.astype(np.float64), np.array([one.label > 0.5 for one in ripe]))  # noqa: PLR2004  # half

    def measures(self) -> Measures:
        """How the champion does."""
        model, champion = self.model, self.model.members.champion
        progress = model.progress
        return Measures(
            MEMBERS[champion],
            self.version,
            model.examples,
            progress.log_loss(champion),
            progress.auc(champion),
            progress.calibration_error(champion),
            model.drifts,
        )

    def snapshot(self, version: int, context_version: int) -> bytes | None:
        """The model after the record before `version`, where enough is new."""
        if self.model.examples < self.next_snapshot:
            return None
        self.version = version
        self.next_snapshot = _next(self.model.examples)
        since = min((one.offset for one in self.waiting.values()), default=version)
        measures = self.measures()
        meta: dict[str, Any] = {
            "since": since,
            "clock_ms": self.clock_ms,
            "thin": self.thin,
            "champion": measures.champion,
            "examples": measures.examples,
            "log_loss": _rounded(measures.log_loss),
            "auc": _rounded(measures.auc),
            "calibration_error": _rounded(measures.calibration_error),
            "drifts": measures.drifts,
        }
        data = propensity_state.encode(self.model)
        return snapshot.encode(Snapshot(PREFIX + self.name, KIND, version, data, context_version, meta=meta))


class PropensityFold:
    """Folds the records of `propensity/<label>` into models.

    Parameters
    ----------
    labels
        What is learned; records of others are counted and left.
    features
        Names of a row's numbers in an example's context: successes and trials first.

    Attributes
    ----------
    refused
        Reason -> number of records of no use.
    taken
        Number of records of use.
    versions
        Model -> version of its latest snapshot.
    latest
        Model -> the latest snapshot made.
    """

    def __init__(self, labels: Sequence[str], features: Sequence[str]) -> None:
        self.refused: Counter[str] = Counter()
        self.taken = 0
        self.versions: dict[str, int] = {}
        self._features = tuple(features)
        self._context_version = context_version(features)
        self._labels = {label: _Label(label, len(features)) for label in labels}
        self._since: dict[str, int] = dict.fromkeys(labels, 0)
        self.latest: dict[str, bytes] = {}
        self._new: set[str] = set()
        self._decoder = msgspec.json.Decoder(_Record)

    @property
    def since(self) -> int:
        """Where to begin reading: the oldest example that some model still has to learn."""
        return min(self._since.values(), default=0)

    def resume(self, value: bytes) -> str:
        """Go on from a snapshot, before the first record; the name of its model.

        Raises
        ------
        SnapshotError
            If it cannot be read, or is of another configuration or other features; nothing has changed then.
        """
        found = _fitting(snapshot.decode(value), self._context_version)
        name = found.model.removeprefix(PREFIX)
        if name not in self._labels:
            raise SnapshotError(f"model {found.model!r} is not learned; expected one of {sorted(self._labels)}")
        since, clock_ms, thin = (found.meta.get(key) for key in ("since", "clock_ms", "thin"))
        if not isinstance(since, int) or not isinstance(thin, int) or not isinstance(clock_ms, (int, float)):
            raise SnapshotError(
                f"snapshot of {found.model!r} does not say where it was made; expected since and clock_ms"
            )
        if not (0 <= since <= found.version and 0 <= thin <= MAX_THIN and math.isfinite(clock_ms)):
            raise SnapshotError(f"snapshot of {found.model!r} was made at no place of the log: since {since!r}")
        model, label = propensity_state.model(found.data, len(self._features)), self._labels[name]
        label.model = model
        label.version, label.clock_ms, label.thin = found.version, clock_ms, thin
        label.next_snapshot = _next(label.model.examples)
        self._since[name], self.versions[found.model] = since, found.version
        return found.model

    def take(self, value: bytes, offset: int) -> str | None:
        """Take one record of the log; the model of which it made a snapshot.

        What is of no use is counted and changes nothing.
        """
        record, reason = self._read(value)
        if record is None:
            self.refused[reason] += 1
            return None
        label = self._labels[record.policy.removeprefix(PREFIX)]
        x = () if record.correction else [record.context.get(name, 0.0) for name in self._features]
        why = label.take(record, x, offset)
        if why is None:
            self.taken += 1
        else:
            self.refused[why] += 1
        made = label.snapshot(offset + 1, self._context_version)
        if made is None:
            return None
        self.latest[record.policy], self.versions[record.policy] = made, offset + 1
        self._new.add(record.policy)
        return record.policy

    def snapshots(self) -> dict[str, bytes]:
        """Latest snapshot of each model of which one was made since this was asked last."""
        made = {name: self.latest[name] for name in sorted(self._new)}
        self._new.clear()
        return made

    def measures(self) -> dict[str, Measures]:
        """How each model does."""
        return {PREFIX + name: label.measures() for name, label in self._labels.items()}

    def _read(self, value: bytes) -> tuple[_Record | None, str]:
        try:
            record = self._decoder.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None, "malformed"
        if not record.policy.startswith(PREFIX) or record.policy.removeprefix(PREFIX) not in self._labels:
            return None, "unknown_policy"
        if not _complete(record):
            return None, "malformed"
        numbers = (record.reward, record.delta or 0.0, *record.context.values())
        if not all(-_LARGEST <= number <= _LARGEST for number in numbers):
            return None, "not_finite"
        return record, ""


def context_version(features: Sequence[str]) -> int:
    """A number that stands for the names of the features and their order."""
    return zlib.crc32("\n".join(features).encode())


def scorer(found: Snapshot, features: Sequence[str]) -> Scorer:
    """What scores, of a snapshot.

    Raises
    ------
    SnapshotError
        If it cannot be read or is of other features.
    """
    return propensity_state.scorer(_fitting(found, context_version(features)).data, len(features))


def _fitting(found: Snapshot, version: int) -> Snapshot:
    if found.kind != KIND or not found.model.startswith(PREFIX):
        raise SnapshotError(f"snapshot of {found.model!r} is of kind {found.kind!r}; expected a propensity model")
    if found.context_version != version:
        raise SnapshotError(f"snapshot of {found.model!r} was learned from other features; it is learned anew")
    return found


def _next(examples: int) -> int:
    """At how many examples the next snapshot is made."""
    return examples + min(max(examples // 20, MIN_NEW), MAX_NEW)


def _kept(decision_id: str, thin: int) -> bool:
    """Whether an example is among the share 2**-thin that is taken."""
    return thin == 0 or key_of(decision_id) >> (64 - thin) == 0


def _complete(record: _Record) -> bool:
    """Whether a record has what its kind needs, at times that can be compared."""
    if record.at.tzinfo is None:
        return False
    if record.correction:
        return record.delta is not None
    mature_at = record.mature_at
    return mature_at is not None and mature_at.tzinfo is not None and mature_at - record.at <= MAX_WINDOW


def _ms(at: datetime) -> float:
    return at.timestamp() * 1e3


def _rounded(number: float) -> float | None:
    return None if math.isnan(number) else round(number, 6)
