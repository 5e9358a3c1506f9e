"""The live lift: folded from the same examples as the models, by the same learner, shown in its metrics.

What it knows is published to `models` beside the snapshots, under keys of its own and in the same transaction, but less
often: it is larger. A learner that takes over reads on from where the last of it had been published; models pass over
what they have seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson
import structlog

from bandits.lift_fold import SUFFIX, LiftFold
from bandits.snapshot import SnapshotError
from decisioning.effects import Outgoing
from streams.metrics import Metrics
from streams.seams import Clock

LIFT: Final = "@lift:"  # begins its keys in `models`
INTERVAL_S: Final = 20.0  # at most so often: a campaign can have half a megabyte
_POLICY: Final = f'{SUFFIX}"'.encode()

_log = structlog.get_logger(__name__)


class LiveLift:
    """Lift of each campaign with a holdout, as its learner knows it.

    Attributes
    ----------
    saved
        Everything before this offset of `examples` is in what was published, as far as there is anything of it.
    """

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self.saved = 0
        self._clock = clock
        self._metrics = metrics
        self._fold = LiftFold()
        self._changed: set[str] = set()
        self._shown: set[str] = set()
        self._published_s = float("-inf")

    def resume(self, latest: Mapping[str, bytes], saved: int) -> int:
        """Go on from what is in `models`; from where `examples` have to be read for it."""
        self._changed.clear()
        try:
            self._fold = LiftFold.from_bytes(*(value for key, value in latest.items() if key.startswith(LIFT)))
            self.saved = saved
        except SnapshotError as error:
            self._metrics.snapshots_refused.labels("learner").inc()
            _log.warning("lift refused, counting again what it had seen", error=str(error))
            self._fold, self.saved = LiftFold(), 0
        self._shown = set(self._fold.campaigns())
        return self.saved

    def take(self, value: bytes, offset: int) -> bool:
        """Fold one record, if it is about treatment or holdout; whether it was.

        What is wrong with a record the learner has counted.
        """
        if _POLICY not in value:
            return False
        try:
            record = orjson.loads(value)
        except orjson.JSONDecodeError:
            return False
        if not isinstance(record, dict) or self._fold.take(record, offset) is not None:
            return False
        campaign = str(record["policy"]).removesuffix(SUFFIX) if "policy" in record else ""
        if self._fold.versions.get(campaign) != offset + 1:
            return False
        self._changed.add(campaign)
        self._shown.add(campaign)
        return True

    def publish(self, position: int) -> list[Outgoing]:
        """What is to be published with everything before a position folded; nothing before it is time."""
        now_s = self._clock.monotonic_s()
        if self._changed and now_s < self._published_s + INTERVAL_S:
            return []
        if self._changed:
            self._published_s = now_s
        records = [Outgoing(f"{LIFT}{name}".encode(), self._fold.to_bytes(name)) for name in sorted(self._changed)]
        self._changed.clear()
        self.saved = position
        return records

    def show(self) -> None:
        """Set the metrics of what changed since the last time."""
        for campaign in self._shown:
            bounds = self._fold.bounds(campaign)
            for name, value in (("low", bounds.low), ("mid", bounds.mid), ("high", bounds.high)):
                self._metrics.lift.labels(campaign, name).set(value)
            self._metrics.lift_mismatch.labels(campaign).set(self._fold.mismatch(campaign))
        self._shown.clear()

    def hide(self) -> None:
        """Another worker shows them from now on."""
        self._metrics.lift.clear()
        self._metrics.lift_mismatch.clear()
