"""The models that a worker decides with: of each the latest good snapshot, unless another version of it is pinned."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import structlog

from bandits.arms import ArmModel
from bandits.propensity_fold import PREFIX
from bandits.snapshot import Snapshot, SnapshotError, decode
from decisioning import contexts
from decisioning.effects import Pin
from decisioning.learning import UNLEARNED, Learned, Models
from decisioning.plan import Plan
from decisioning.scoring import Scored
from streams.metrics import Metrics
from streams.seams import Entry
from streams.snapshots import INTERNAL, PINNED

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A snapshot that decisions can be made with.

    Attributes
    ----------
    learned
        Solved already for the rule of its campaign.
    entropy_bits
        Of the choice between all arms of somebody of whom nothing is known.
    """

    learned: Learned
    entropy_bits: float

    @property
    def version(self) -> int:
        """Of the snapshot."""
        return self.learned.version


Usable = Prepared | Scored


class ModelTable:
    """See above.

    Parameters
    ----------
    plans
        The campaigns: models of others are passed over.
    labels
        Of propensity models, likewise.

    Attributes
    ----------
    in_use
        What the next step is given; never changed, but replaced.
    """

    def __init__(self, plans: Mapping[str, Plan], metrics: Metrics, labels: Sequence[str] = ()) -> None:
        self._plans = plans
        self._propensities = frozenset(PREFIX + label for label in labels)
        self._metrics = metrics
        self._latest: dict[str, Usable] = {}
        self._pinned: dict[str, Usable] = {}
        self._chosen: Mapping[str, Usable] = {}
        self.in_use = UNLEARNED

    def load(self, entries: Sequence[Entry]) -> dict[str, Usable | None]:
        """Make the records of `models` ready; changes nothing here, so that another thread can do it.

        Returns
        -------
        dict
            Key -> its last good snapshot among them; None: it is gone, or no campaign uses it.
        """
        good: dict[str, tuple[int, Snapshot] | None] = {}
        for entry in entries:
            key = entry.key.decode(errors="replace")
            if key.startswith(INTERNAL) and not key.startswith(PINNED):
                continue
            if not entry.value:
                good[key] = None
                continue
            try:
                good[key] = entry.offset, _named(key.removeprefix(PINNED), entry.value)
            except SnapshotError as error:
                self._refused(key, entry.offset, error)
        loaded: dict[str, Usable | None] = {}
        for key, found in good.items():
            try:
                loaded[key] = None if found is None else self._timed(found[1])
            except SnapshotError as error:
                assert found is not None
                self._refused(key, found[0], error)
        return loaded

    def adopt(self, loaded: Mapping[str, Usable | None], pins: Mapping[str, Pin]) -> None:
        """Decide with these from now on."""
        for key, prepared in loaded.items():
            table = self._pinned if key.startswith(PINNED) else self._latest
            if prepared is None:
                table.pop(key.removeprefix(PINNED), None)
            else:
                table[key.removeprefix(PINNED)] = prepared
        self.choose(pins)

    def choose(self, pins: Mapping[str, Pin]) -> None:
        """Take the pinned version where there is one, else the latest."""
        before, chosen = self._chosen, dict(self._latest)
        for model, pin in pins.items():
            prepared = self._pinned.get(model)
            if prepared is not None and prepared.version == pin.version:
                chosen[model] = prepared
        self._chosen = chosen
        self.in_use = Models(
            {model: one.learned for model, one in chosen.items() if isinstance(one, Prepared)},
            {model.removeprefix(PREFIX): one for model, one in chosen.items() if isinstance(one, Scored)},
        )
        for model in before.keys() - chosen.keys():
            self._metrics.forget_model(model)
        for model, prepared in chosen.items():
            if before.get(model) is not prepared:
                self._metrics.model_version.labels(model).set(prepared.version)
                if isinstance(prepared, Prepared):
                    self._metrics.policy_entropy.labels(model).set(prepared.entropy_bits)

    def _timed(self, snapshot: Snapshot) -> Usable | None:
        started_s = time.perf_counter()
        prepared = self._prepare(snapshot)
        self._metrics.snapshot_prepare_seconds.observe(time.perf_counter() - started_s)
        return prepared

    def _prepare(self, snapshot: Snapshot) -> Usable | None:
        """Solve for the rule of the campaign; None where there is no such campaign or propensity model."""
        if snapshot.model in self._propensities:
            return Scored.of(snapshot)
        plan = self._plans.get(snapshot.model.rpartition("/")[0])
        if plan is None or snapshot.kind != "arms":
            return None
        if snapshot.context_version != contexts.VERSION:
            raise SnapshotError(f"it is of context {snapshot.context_version}; expected {contexts.VERSION}")
        model = ArmModel.from_bytes(snapshot.data)
        if model.width != contexts.WIDTH:
            raise SnapshotError(f"it has {model.width} numbers of context; expected {contexts.WIDTH}")
        learned = Learned(snapshot.version, model)
        arms = list(model.tried())
        shares = learned.ready(plan.spec).probabilities(arms, np.zeros(model.width)) if arms else np.ones(1)
        return Prepared(learned, float(-(shares * np.log2(shares)).sum()))

    def _refused(self, key: str, offset: int, error: SnapshotError) -> None:
        self._metrics.snapshots_refused.labels("worker").inc()
        _log.warning("snapshot refused, the last good one stays", model=key, offset=offset, error=str(error))


def _named(model: str, value: bytes) -> Snapshot:
    snapshot = decode(value)
    if snapshot.model != model:
        raise SnapshotError(f"the snapshot is of {snapshot.model}; expected {model}, as its key says")
    return snapshot
