"""The learner: folds `examples` into models and publishes their snapshots. One at a time in the group, like an owner.

START
  1  take a new producer under the learner's transactional id; it fences the former learner and settles what that one
     left open
  2  read `models` to its end: the latest snapshots, and the position in `examples` up to which they have seen it
     a snapshot that cannot be read: take the last one of that model that can be from `model-history`
  3  (the caller) read `examples` from there; a model has seen what lies before its own version, whatever the position
LEARN
  4  fold examples in their order
  5  at most once a second, if something was learned: begin a transaction; append the snapshots of the models that
     changed to `model-history` and to `models`, then the position
  6  commit

If the learner dies, or is cut off, the next START finds:

  after      Kafka                    what START does
  4          the last position        the examples after it are folded again
  5          an open transaction      1 aborts it; the same
  6, unsure  either                   1 settles which, 2 tells
  6          the new position         goes on after it
  paused, then alive again            5 or 6 fail: fenced

Folding is a pure function of the examples in their order, so the bytes of a snapshot of a version are the same however
often the learner died on the way. Without transactions 5 is acknowledged topic by topic and the position goes last.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import structlog

from bandits.propensity_fold import Measures
from bandits.snapshot import SnapshotError
from decisioning.effects import Outgoing
from decisioning.learners import Learners
from streams.live_lift import LiveLift
from streams.metrics import Metrics
from streams.owner import Flow, Inbox
from streams.seams import Clock, FencedError, LearnerLog, RefusedError, UnknownOutcomeError
from streams.snapshots import EXAMPLES, EXAMPLES_PARTITION, INTERNAL, history_key
from streams.transport import Fetched

POSITION_KEY: Final = b"@position"  # in `models`
PUBLISH_INTERVAL_S: Final = 1.0
FOLD_RECORDS: Final = 500  # between two looks at the rest of the loop: tens of milliseconds
INBOX_RECORDS: Final = 20_000  # beyond it is not read on
RETRY_S: Final = 0.5

_epochs = itertools.count(1)
_log = structlog.get_logger(__name__)


class Position(msgspec.Struct, frozen=True):
    """Up to where `examples` was read when a set of snapshots was published; `lift`: and the live lift was."""

    position: int
    lift: int = 0


class Learning:
    """START and LEARN, see above; not safe for concurrent calls.

    Parameters
    ----------
    make
        Gives a learner that has learned nothing.
    """

    def __init__(self, log: LearnerLog, make: Callable[[], Learners], clock: Clock, metrics: Metrics) -> None:
        self._log = log
        self._make = make
        self._clock = clock
        self._metrics = metrics
        self._learner = make()
        self._lift = LiveLift(clock, metrics)
        self._counted: Counter[str] = Counter()
        self._drifts: dict[str, int] = {}
        self._news = False
        self._mended: dict[str, bytes] = {}
        self._published_s = float("-inf")
        self.position = 0

    async def start(self) -> int:
        """Take over; returns where to read `examples` from.

        Raises
        ------
        FencedError, UnknownOutcomeError
            Start again, if we are still to learn.
        RefusedError
            `examples` is not the topic that was learned from.
        """
        await self._log.acquire()  # 1
        latest = dict(await self._log.models())  # 2
        published = _position(latest.pop(POSITION_KEY.decode(), None))
        position = min(published.position, self._lift.resume(latest, published.lift))
        self._learner = self._make()
        self._counted.clear()
        self._news = False
        self._mended.clear()
        for model, value in latest.items():
            if not model.startswith(INTERNAL) and (again := await self._resume(model, value)) is not None:
                position = min(position, again)
        if self._learner.since is not None:  # examples whose labels are still open are in no snapshot
            position = min(position, self._learner.since)
            await asyncio.to_thread(self._learner.prepare)
        first, end = await self._log.bounds()
        if position > end:
            raise RefusedError(
                f"topic {EXAMPLES} ends at {end}, models have learned from it up to {position}: it was made anew. Start"
                " anew with another DECISIONING_TOPIC_PREFIX, or delete models and model-history too"
            )
        self._lift.show()
        self.position = max(position, first)
        self._published_s = float("-inf")
        return self.position

    def fold(self, records: Sequence[Any], position: int) -> None:
        """Learn from what follows the position."""
        for record in records:
            value = record.value or b""
            self._news |= self._learner.take(value, record.offset) is not None
            self._news |= self._lift.take(value, record.offset)
        self.position = position
        learned, refused = self._learner.learned, self._learner.refused
        self._metrics.examples_learned.inc(learned - self._counted[""])
        self._counted[""] = learned
        for reason, count in refused.items():
            self._metrics.examples_refused.labels(reason).inc(count - self._counted[reason])
            self._counted[reason] = count

    def wait_s(self) -> float | None:
        """Seconds until something may be published; None: nothing was learned since the last time."""
        if not self._news:
            return None
        return max(0.0, self._published_s + PUBLISH_INTERVAL_S - self._clock.monotonic_s())

    async def publish(self) -> None:
        """Publish the models that changed.

        Raises
        ------
        FencedError, UnknownOutcomeError
            Nothing more may be done with this object but `start`.
        """
        snapshots, versions = self._learner.snapshots(), self._learner.versions
        self._news = False
        self._published_s = self._clock.monotonic_s()
        history = [Outgoing(history_key(name, versions[name]), value) for name, value in snapshots.items()]
        latest = [Outgoing(name.encode(), value) for name, value in (self._mended | snapshots).items()]
        self._mended.clear()
        latest += self._lift.publish(self.position)
        latest.append(Outgoing(POSITION_KEY, msgspec.json.encode(Position(self.position, self._lift.saved))))
        await self._log.begin()  # 5
        await self._log.append("model-history", history)
        await self._log.append("models", latest)
        await self._log.commit()  # 6
        self._metrics.snapshots_published.inc(len(snapshots))
        for name in self._learner.measures().keys() & snapshots.keys():
            self._measured(name, self._learner.measures()[name])
        self._lift.show()

    async def release(self) -> None:
        """Let go; what is under way is settled by the next learner."""
        self._lift.hide()
        await self._log.release()

    def _measured(self, model: str, measures: Measures) -> None:
        self._metrics.model_logloss.labels(model).set(measures.log_loss)
        drifts = measures.drifts - self._drifts.get(model, measures.drifts)
        self._drifts[model] = measures.drifts
        self._metrics.drift.labels(model).inc(max(drifts, 0))
        if drifts > 0:
            _log.warning("model drifts: its predictions have become worse", model=model, log_loss=measures.log_loss)

    async def _resume(self, model: str, value: bytes) -> int | None:
        """Go on from a snapshot, or else from the last one that can be read; from where the model has to learn then."""
        try:
            self._learner.resume(value)
        except SnapshotError as error:
            self._metrics.snapshots_refused.labels("learner").inc()
            _log.warning("snapshot refused, learning again what it had seen", model=model, error=str(error))
        else:
            return None
        for kept in reversed(await self._log.history(model)):
            with contextlib.suppress(SnapshotError):
                self._learner.resume(kept)
                self._mended[model], self._news = kept, True
                return self._learner.versions[model]
        return 0


def _position(value: bytes | None) -> Position:
    if value is None:
        return Position(0)
    try:
        return msgspec.json.decode(value, type=Position)
    except msgspec.MsgspecError as error:
        raise RefusedError(
            f"the learner's position in topic models cannot be read ({error}); delete models and model-history to"
            " learn everything anew"
        ) from None


class Pupil:
    """The task that learns, from the assignment of `examples` to its revocation.

    Attributes
    ----------
    ready
        Recovered and learning.
    """

    def __init__(self, learning: Learning, flow: Flow, clock: Clock, metrics: Metrics) -> None:
        self._learning = learning
        self._flow = flow
        self._clock = clock
        self._metrics = metrics
        self._inbox = Inbox()
        self._epoch = 0
        self._closed = False
        self._stopping = False
        self._wake = asyncio.Event()
        self.ready = False

    @property
    def position(self) -> int:
        """Next example to learn from."""
        return self._learning.position

    def put(self, fetched: Fetched) -> None:
        """Take in what one fetch returned."""
        if fetched.epoch != self._epoch:
            return
        self._inbox.put(fetched)
        if self._inbox.records >= INBOX_RECORDS and not self._closed:
            self._closed = True
            self._flow.close(EXAMPLES_PARTITION, EXAMPLES)
        self._wake.set()

    def stop(self) -> None:
        """Ask it to end after what it is in."""
        self._stopping = True
        self._wake.set()

    async def run(self, before: asyncio.Task[None] | None = None) -> None:
        """Take over and learn until asked to stop; what is not foreseen here is raised.

        Parameters
        ----------
        before
            The task that learned in this process before.
        """
        if before is not None:
            await asyncio.wait([before])
        try:
            while not self._stopping:
                try:
                    await self._take_over()
                    await self._learn()
                except FencedError as error:
                    self._metrics.fenced.inc()
                    _log.warning("learner fenced", error=str(error))
                except UnknownOutcomeError as error:
                    _log.warning("learner starts again", error=str(error))
                self._leave()
                if not self._stopping:
                    await self._clock.sleep(RETRY_S)
        finally:
            self._leave()
            await self._learning.release()

    async def _take_over(self) -> None:
        position = await self._learning.start()
        self._inbox, self._closed = Inbox(), False
        self._epoch = next(_epochs)
        await self._flow.open(EXAMPLES_PARTITION, {EXAMPLES: position}, self._epoch)
        self.ready = True
        _log.info("learning", position=position)

    def _leave(self) -> None:
        self.ready = False
        self._epoch = 0
        self._flow.close(EXAMPLES_PARTITION, EXAMPLES)

    async def _learn(self) -> None:
        while not self._stopping:
            await self._waited()
            records, position = self._inbox.take(FOLD_RECORDS)
            if position is not None:
                self._learning.fold(records, position)
                await asyncio.sleep(0)
            if self._learning.wait_s() == 0:
                await self._learning.publish()
            if self._closed and not self._inbox.records:
                self._closed = False
                await self._flow.reopen(EXAMPLES_PARTITION, EXAMPLES, self._epoch)

    async def _waited(self) -> None:
        """Until there is something to fold or to publish."""
        while not self._stopping:
            self._wake.clear()
            wait_s = self._learning.wait_s()
            if not self._inbox.is_empty or wait_s == 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
