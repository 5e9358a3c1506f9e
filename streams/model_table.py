"""The models that a worker decides with: of each the latest good snapshot, unless another version of it is pinned."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import structlog

from bandits.linear import ReadyLinear
from bandits.propensity_fold import PREFIX
from bandits.ready import ReadyPolicy
from bandits.snapshot import SnapshotError, decode
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
        Of the choice between all arms for somebody of whom nothing is known; None where the arms differ each time.
    """

    learned: Learned
    entropy_bits: float | None

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
        good: dict[str, Entry | None] = {}
        for entry in entries:
            key = entry.key.decode(errors="replace")
            if key.startswith(INTERNAL) and not key.startswith(PINNED):
                continue
            if not entry.value:
                good[key] = None
                continue
            try:
                self._read(key.removeprefix(PINNED), entry.value)
            except SnapshotError as error:
                self._metrics.snapshots_refused.labels("worker").inc()
                why = str(error)
                _log.warning("snapshot refused, the last good one stays", model=key, offset=entry.offset, error=why)
            else:
                good[key] = entry
        return {
            key: None if entry is None else self._prepare(key.removeprefix(PINNED), entry.value)
            for key, entry in good.items()
        }

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
                if isinstance(prepared, Prepared) and prepared.entropy_bits is not None:
                    self._metrics.policy_entropy.labels(model).set(prepared.entropy_bits)

    def _read(self, model: str, value: bytes) -> Learned | Scored | None:
        """What a snapshot says; None for a model that no campaign uses. Raises `SnapshotError`."""
        snapshot = decode(value)
        if snapshot.model != model:
            raise SnapshotError(f"the snapshot is of {snapshot.model}; expected {model}, as its key says")
        if model in self._propensities:
            return Scored.of(snapshot)
        if model.rpartition("/")[0] not in self._plans:
            return None
        return Learned.of(value)[1]

    def _prepare(self, model: str, value: bytes) -> Usable | None:
        """Solve for the rule of the campaign, which takes milliseconds where there are many arms."""
        started_s = time.perf_counter()
        read = self._read(model, value)
        if not isinstance(read, Learned):
            return read
        ready = read.ready(self._plans[model.rpartition("/")[0]].spec)
        prepared = Prepared(read, _entropy_bits(ready))
        self._metrics.snapshot_prepare_seconds.observe(time.perf_counter() - started_s)
        return prepared


def _entropy_bits(ready: ReadyPolicy | ReadyLinear) -> float | None:
    if not isinstance(ready, ReadyPolicy) or not ready.slots:
        return None
    shares = ready.probabilities(list(ready.slots), np.zeros(contexts.WIDTH))
    return float(-(shares * np.log2(shares)).sum())
