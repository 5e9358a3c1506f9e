"""The models that a worker decides with: of each the latest good snapshot, unless another version of it is pinned."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from bandits.snapshot import Snapshot, SnapshotError, decode

from decisioning.effects import Pin
from streams.metrics import Metrics
from streams.seams import Entry

INTERNAL: Final = "@"  # begins the keys of `models` that are no model's
PINNED: Final = "@pin:"  # and of the copies that pins keep, so that `model-history` may forget them

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A snapshot, and what decisions are made with.

    Attributes
    ----------
    policy
        What the step is given.
    entropy_bits
        Of the choice between all arms of somebody of whom nothing is known.
    """

    snapshot: Snapshot
    policy: Any
    entropy_bits: float


Prepare = Callable[[Snapshot], Prepared | None]
"""Makes a snapshot ready; None for a model that no campaign uses. Raises `SnapshotError`."""


class ModelTable:
    """See above.

    Parameters
    ----------
    prepare
        Does the expensive part.
    """

    def __init__(self, prepare: Prepare, metrics: Metrics) -> None:
        self._prepare = prepare
        self._metrics = metrics
        self._latest: dict[str, Prepared] = {}
        self._pinned: dict[str, Prepared] = {}
        self.in_use: Mapping[str, Prepared] = {}

    def load(self, entries: Sequence[Entry]) -> dict[str, Prepared | None]:
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
        loaded: dict[str, Prepared | None] = {}
        for key, found in good.items():
            try:
                loaded[key] = None if found is None else self._timed(found[1])
            except SnapshotError as error:
                assert found is not None
                self._refused(key, found[0], error)
        return loaded

    def adopt(self, loaded: Mapping[str, Prepared | None], pins: Mapping[str, Pin]) -> None:
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
        before, chosen = self.in_use, dict(self._latest)
        for model, pin in pins.items():
            prepared = self._pinned.get(model)
            if prepared is not None and prepared.snapshot.version == pin.version:
                chosen[model] = prepared
        self.in_use = chosen
        for model in before.keys() - chosen.keys():
            self._metrics.forget_model(model)
        for model, prepared in chosen.items():
            if before.get(model) is not prepared:
                self._metrics.model_version.labels(model).set(prepared.snapshot.version)
                self._metrics.policy_entropy.labels(model).set(prepared.entropy_bits)

    def _timed(self, snapshot: Snapshot) -> Prepared | None:
        started_s = time.perf_counter()
        prepared = self._prepare(snapshot)
        self._metrics.snapshot_prepare_seconds.observe(time.perf_counter() - started_s)
        return prepared

    def _refused(self, key: str, offset: int, error: SnapshotError) -> None:
        self._metrics.snapshots_refused.labels("worker").inc()
        _log.warning("snapshot refused, the last good one stays", model=key, offset=offset, error=str(error))


def _named(model: str, value: bytes) -> Snapshot:
    snapshot = decode(value)
    if snapshot.model != model:
        raise SnapshotError(f"the snapshot is of {snapshot.model}; expected {model}, as its key says")
    return snapshot
