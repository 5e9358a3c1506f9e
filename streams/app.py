"""The Faust application of a worker, built in a function, and the partitions it owns.

Faust gives the membership of the group, the agent and its supervision. It does not commit, decode, keep tables
or run timers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final

import faust
import structlog
from aiokafka import TopicPartition
from faust.app.base import BootStrategy
from faust.types import TP
from mode.supervisors import CrashingSupervisor
from yarl import URL

from decisioning.learning import learner_of
from decisioning.propensities import labels_of
from streams.kafka import Cluster, KafkaLog
from streams.learner import Learning, Pupil
from streams.metrics import Metrics
from streams.model_table import ModelTable
from streams.owner import Owner
from streams.partition import Partition, Place
from streams.seams import INPUTS, RefusedError, UnknownOutcomeError
from streams.settings import Settings
from streams.snapshots import EXAMPLES, EXAMPLES_PARTITION, SnapshotLog
from streams.store import RedisStore, Scripts
from streams.sweep import Sweep
from streams.tables import TableReader, Tables
from streams.transport import Consumer, Transport

SESSION_TIMEOUT_S: Final = 6.0  # the broker's minimum: how long a killed worker's partitions wait
HEARTBEAT_S: Final = 0.5  # how long the others take to hear that one left
REBALANCE_TIMEOUT_S: Final = 10.0
SAMPLE_INTERVAL_S: Final = 0.15
REPORT_INTERVAL_S: Final = 1.0
# People a worker remembers over all partitions it might own, at less than 2 KB each.
CACHED_PEOPLE: Final = 200_000
LEAST_CACHED_PEOPLE: Final = 1000  # of a partition

_log = structlog.get_logger(__name__)


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds since whenever."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class _App(faust.App):  # type: ignore[misc]
    def _create_directories(self) -> None:
        """We keep nothing on disk."""

    async def _producer_flush(self, logger: Any) -> None:
        """Faust's producer is not started."""


def build(settings: Settings, route: Callable[[Any], None]) -> faust.App:
    """Build the Faust application.

    Parameters
    ----------
    route
        Called with each `Fetched`.

    Returns
    -------
    faust.App
        To be started in the running loop.
    """
    app = _App(
        settings.group,
        broker=[URL(f"kafka://{address}") for address in settings.brokers],
        store="memory://",
        autodiscover=False,
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        stream_buffer_maxsize=64,  # lists of records; the owners' inboxes are what holds back the flow
        agent_supervisor=CrashingSupervisor,
        broker_session_timeout=SESSION_TIMEOUT_S,
        broker_heartbeat_interval=HEARTBEAT_S,
        broker_rebalance_timeout=REBALANCE_TIMEOUT_S,
        broker_request_timeout=10.0,
        broker_commit_interval=60.0,  # there is nothing for it to commit
    )
    app.boot_strategy = BootStrategy(app, enable_web=False, enable_kafka_producer=False)
    app.transport = Transport(app.conf.broker_consumer, app)
    app.transport.options = settings.kafka_options()
    app.transport.fetch_wait_ms = settings.fetch_wait_ms
    _read(app, "route", [settings.topic(name) for name in INPUTS], route)
    _read(app, "learn", [settings.topic(EXAMPLES)], route)
    return app


def _read(app: faust.App, name: str, topics: Sequence[str], route: Callable[[Any], None]) -> None:
    """Have an agent pass on what is read of topics."""
    inputs = app.topic(*topics, key_serializer="raw", value_serializer="raw", acks=False)

    @app.agent(inputs, name=name)  # type: ignore[untyped-decorator]
    async def agent(stream: Any) -> None:
        async for event in stream.events():
            route(event.message.value)


class EndOffsets:
    """Asks Kafka where inputs end, for all owners with due timers at once and not more often than it needs to."""

    def __init__(self, cluster: Cluster, clock: SystemClock) -> None:
        self._cluster = cluster
        self._clock = clock
        self._waiting: set[Owner] = set()
        self._wanted = asyncio.Event()

    def ask(self, owner: Owner) -> None:
        """See `owner.Sampler`."""
        self._waiting.add(owner)
        self._wanted.set()

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            owners, self._waiting = self._waiting, set()
            at_ms = self._clock.now_ms()
            places = {
                (owner.number, name): TopicPartition(self._cluster.topic(name), owner.number)
                for owner in owners
                for name in INPUTS
            }
            try:
                ends = await self._cluster.stable_offsets(list(places.values()))
            except UnknownOutcomeError as error:
                _log.warning("ends of the inputs unknown", error=str(error))
                self._waiting |= owners
                self._wanted.set()
            else:
                for owner in owners:
                    owner.sampled(at_ms, {name: ends[places[owner.number, name]] for name in INPUTS})
            await asyncio.sleep(SAMPLE_INTERVAL_S)


class Shell:
    """The partitions of one worker: routes what is read, and starts and stops their owners.

    Parameters
    ----------
    engine
        `decisioning.engine.Engine`.
    fail
        Called with what no owner should meet; it ends the process.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Any,
        cluster: Cluster,
        scripts: Scripts,
        metrics: Metrics,
        fail: Callable[[BaseException], None],
        versions: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._cluster = cluster
        self._scripts = scripts
        self._metrics = metrics
        self._fail = fail
        self._versions = versions or {}
        self._clock = SystemClock()
        self._ends = EndOffsets(cluster, self._clock)
        self._tables = Tables(ModelTable(engine.plans, metrics, labels_of(engine.config)))
        self._reader = TableReader(cluster, self._tables, self._review)
        self._inputs = {settings.topic(name): name for name in (*INPUTS, EXAMPLES)}
        self._partitions = 0
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._running: set[asyncio.Task[Any]] = set()
        self._learning: asyncio.Task[None] | None = None
        self.owners: dict[int, Owner] = {}
        self.pupil: Pupil | None = None
        self.assigned = False
        self.app = build(settings, self.route)
        self.app.on_partitions_revoked.connect(self._on_revoked)
        self.app.on_partitions_assigned.connect(self._on_assigned)

    @property
    def informed(self) -> bool:
        """Whether the broadcast topics were read to where they ended at the start."""
        return self._reader.caught_up.is_set()

    @property
    def consumer(self) -> Consumer:
        """Faust's consumer, as ours."""
        consumer: Consumer = self.app.consumer
        return consumer

    async def start(self, partitions: int) -> None:
        """Read what all workers are told, then join the group; `partitions` is how many `events` has."""
        self._partitions = partitions
        self._start(self._reader.run())
        await self._reader.caught_up.wait()
        self._start(self._ends.run())
        self._start(self._report())
        keep_ms = self._engine.config.retention.profile_ms
        self._start(Sweep(lambda: self.owners, self._store, self._clock, keep_ms).run())
        await self.app.start()
        self._start(self._crashed())

    def route(self, fetched: Any) -> None:
        """Hand what was read to the partition's owner, or to the learner, if it still has one."""
        name = self._inputs[fetched.topic]
        if name == EXAMPLES:
            if self.pupil is not None:
                self.pupil.put(fetched)
            return
        owner = self.owners.get(fetched.partition)
        if owner is not None:
            owner.put(name, fetched)

    async def stop(self, patience_s: float) -> None:
        """Let the steps under way end, then leave the group."""
        self._stop_owners()
        tasks = [*self._tasks.values(), *([self._learning] if self._learning else [])]
        if tasks:
            await asyncio.wait(tasks, timeout=patience_s)
        await self.consumer.leave()

    # Flow, as the owners steer it

    async def open(self, partition: int, offsets: Mapping[str, int], epoch: int) -> None:
        """See `owner.Flow`."""
        places = {TP(self._settings.topic(name), partition): offset for name, offset in offsets.items()}
        await self.consumer.open(places, epoch)

    async def reopen(self, partition: int, name: str, epoch: int) -> None:
        """See `owner.Flow`."""
        await self.consumer.reopen(TP(self._settings.topic(name), partition), epoch)

    def close(self, partition: int, name: str) -> None:
        """See `owner.Flow`."""
        self.consumer.close_gate(TP(self._settings.topic(name), partition))

    # Rebalances. aiokafka swallows what its listeners raise, and a slow one holds up the whole group.

    async def _on_revoked(self, _app: Any, _revoked: Iterable[TP], **_: Any) -> None:
        self.assigned = False
        self.consumer.close_gates()
        self._stop_owners()

    async def _on_assigned(self, _app: Any, assigned: Iterable[TP], **_: Any) -> None:
        try:
            self._own(set(assigned))
        except Exception as error:  # noqa: BLE001 - nothing may be raised here, and nothing may be lost
            self._fail(error)

    def _own(self, assigned: set[TP]) -> None:
        numbers = {
            name: {place.partition for place in assigned if self._inputs[place.topic] == name} for name in INPUTS
        }
        if numbers["events"] != numbers["internal"]:
            raise RefusedError(
                f"assigned partitions of events {sorted(numbers['events'])} and of internal"
                f" {sorted(numbers['internal'])} differ; run one version of the worker only"
            )
        if beyond := [number for number in numbers["events"] if number >= self._partitions]:
            raise RefusedError(
                f"`events` got partitions {beyond} while we run, beyond the {self._partitions} the state was made with;"
                " people would be looked for in the wrong place. Start anew with another DECISIONING_TOPIC_PREFIX"
            )
        self._stop_owners()
        for number in sorted(numbers["events"]):
            owner = Owner(number, self._partition(number), self, self._ends, self._clock, self._metrics)
            before = self._tasks.get(number)
            self.owners[number] = owner
            self._tasks[number] = self._start(owner.run(before))
        if TP(self._settings.topic(EXAMPLES), EXAMPLES_PARTITION) in assigned:
            self.pupil = self._new_pupil()
            self._learning = self._start(self.pupil.run(self._learning))
        self.assigned = True
        _log.info("assigned", partitions=sorted(numbers["events"]))

    def _review(self) -> None:
        for owner in self.owners.values():
            owner.review()

    def _stop_owners(self) -> None:
        for number, owner in self.owners.items():
            owner.stop()
            if not owner.ready:
                self._tasks[number].cancel()  # a START that goes on would fence the next owner
        self.owners = {}
        if self.pupil is not None and self._learning is not None:
            self.pupil.stop()
            if not self.pupil.ready:
                self._learning.cancel()
        self.pupil = None

    def _partition(self, number: int) -> Partition:
        commit = None if self._settings.delivery == "exactly_once" else self.consumer.commit_offsets
        log = KafkaLog(self._cluster, number, commit)
        most = max(LEAST_CACHED_PEOPLE, CACHED_PEOPLE // self._partitions)
        place = Place(number, self._partitions, most, self._versions, self._tables)
        return Partition(place, self._engine, log, self._store(number), self._clock, self._metrics)

    def _new_pupil(self) -> Pupil:
        log = SnapshotLog(self._cluster, transactional=self._settings.delivery == "exactly_once")
        labels = labels_of(self._engine.config)
        learning = Learning(log, lambda: learner_of(self._engine.plans, labels), self._clock, self._metrics)
        return Pupil(learning, self, self._clock, self._metrics)

    def _store(self, number: int) -> RedisStore:
        return RedisStore(self._scripts, self._settings.topic(self._settings.group), number)

    # Tasks

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    async def _crashed(self) -> None:
        await self.app.wait_until_stopped()
        raise RuntimeError(f"Faust has stopped: {self.app.crash_reason!r}")

    async def _report(self) -> None:
        """How far behind each partition is."""
        while True:
            await asyncio.sleep(REPORT_INTERVAL_S)
            for number, owner in self.owners.items():
                if owner.ready:
                    lag = sum(
                        max(0, (self.consumer.highwater(TP(self._settings.topic(name), number)) or 0) - position)
                        for name, position in owner.positions.items()
                    )
                    self._metrics.lag_records.labels(str(number)).set(lag)
            unlearned = 0
            if self.pupil is not None and self.pupil.ready:
                place = TP(self._settings.topic(EXAMPLES), EXAMPLES_PARTITION)
                unlearned = max(0, (self.consumer.highwater(place) or 0) - self.pupil.position)
            self._metrics.learner_lag_records.set(unlearned)
