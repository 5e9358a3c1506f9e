"""One peer, once: its topics filled, its process started, watched from outside until all is decided, and checked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # it is there and documented

from benchmarks.configurations import Job
from benchmarks.peers.catalog import SAMPLER, Peer, environment
from benchmarks.traffic import Line
from decisioning.partitioner import partition_of
from streams import topics
from streams.settings import Settings

PARTITIONS: Final = 8
POLL_S: Final = 0.05
START_S: Final = 60.0
STALLED_S: Final = 45.0  # nothing moved for so long: it is given up
QUIET: Final[dict[str, Any]] = {"log_level": 0}
TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one pass of a peer came to.

    Attributes
    ----------
    wrong
        What was not as it must be; empty: all decisions are there, each once, and all offsets are committed.
    """

    peer: str
    events: int
    events_per_s: float
    cpu_us: float
    peak_mb: float
    wrong: tuple[str, ...]


class Seen:
    """What came out so far; looked into only once there may be enough, so that the onlooker costs little.

    Parameters
    ----------
    events
        How many there are to be handled.
    wanted
        What has to come out.
    """

    def __init__(self, job: Job, events: int, wanted: set[str]) -> None:
        self.committed = 0
        self._job, self._events, self._wanted = job, events, wanted
        self._unread: list[bytes] = []
        self._count = 0
        self._decisions: Counter[str] = Counter()
        self._found: set[str] = set()

    @property
    def progress(self) -> float:
        """Share of the work that is done, by offsets or by outcomes, whichever shows more."""
        return min(1.0, max(self.committed / self._events, self._count / max(1, len(self._wanted))))

    def decided(self) -> bool:
        """Whether all that has to come out is out; with nothing to come out, whether all is committed."""
        if not self._wanted:
            return self.committed >= self._events
        if self._count < len(self._wanted):
            return False
        self._read()
        return self._found >= self._wanted

    def complete(self, *, commits: bool) -> bool:
        """Whether all is out and, by one who commits, committed."""
        return self.decided() and (self.committed >= self._events or not commits)

    def take(self, consumer: Consumer) -> None:
        """Keep what was published."""
        while messages := consumer.consume(10_000, POLL_S):
            self.add([value for one in messages if one.error() is None and (value := one.value()) is not None])
            if len(messages) < 10_000:
                break

    def add(self, values: Sequence[bytes]) -> None:
        """Keep the values of some records."""
        self._unread += values
        self._count += len(values)

    def wrong(self, *, commits: bool) -> list[str]:
        """What is not as it must be."""
        self._read()
        missing, strange = len(self._wanted - self._found), len(self._found - self._wanted)
        doubled = sum(count - 1 for count in self._decisions.values())
        behind = max(0, self._events - self.committed) if commits else 0
        return [
            f"{count:,} {what}"
            for count, what in (
                (missing, "missing"), (strange, "nobody asked for"), (doubled, "doubled"), (behind, "not committed"),
            )
            if count
        ]  # fmt: skip

    def _read(self) -> None:
        for value in self._unread:
            record = orjson.loads(value)
            self._decisions[record["decision_id"]] += 1
            self._found.add(self._job.found(record))
        self._unread.clear()


class Usage:
    """CPU seconds and peak memory of a process, all its threads and the children it has waited for."""

    def __init__(self, pid: int) -> None:
        self._folder = Path("/proc") / str(pid)
        self.peak_kb = 0

    def cpu_s(self) -> float:
        """CPU so far; notes the peak of memory on the way."""
        fields = (self._folder / "stat").read_text().rpartition(") ")[2].split()
        status = (self._folder / "status").read_text()
        self.peak_kb = max(self.peak_kb, int((status.partition("VmHWM:")[2] or "0").split()[0]))  # a zombie has none
        return sum(map(int, fields[11:15])) / TICKS


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a peer was at some time, and what it had spent."""

    at_s: float
    cpu_s: float
    share: float


@contextlib.contextmanager
def sampled(pid: int, path: Path) -> Iterator[None]:
    """Note the stacks of a process's busy threads."""
    sampler = subprocess.Popen(
        [*SAMPLER, "record", "--nonblocking", "--format", "raw", "--threads", "--rate", "100", "--duration", "3600",
         "--output", str(path), "--pid", str(pid)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield
    finally:
        sampler.send_signal(signal.SIGINT)
        sampler.wait()


class Race:
    """A track for one peer: topics and a group of its own on a shared broker."""

    def __init__(self, kafka: str, redis: str, folder: Path, name: str) -> None:
        self.settings = Settings(
            kafka=kafka, redis=redis, topic_prefix=f"{name}-", group=f"{name}-group", partitions=PARTITIONS
        )
        self.folder = folder / name
        self.folder.mkdir()
        self._admin = AdminClient(QUIET | {"bootstrap.servers": kafka})
        self._places = [TopicPartition(self.settings.topic("events"), number) for number in range(PARTITIONS)]
        # Asks as a member would, without being one: asked through an AdminClient, librdkafka 2.16 crashed now and then.
        # Read committed it would wait for the end of every transaction.
        self._asking = Consumer(QUIET | {
            "bootstrap.servers": kafka, "group.id": self.settings.group, "isolation.level": "read_uncommitted",
            "enable.auto.commit": False,
        })  # fmt: skip
        self._names = [self.settings.topic(name) for name in ("events", "decisions")]

    def prepare(self, peer: Peer, lines: Sequence[Line]) -> None:
        """Make the topics and fill `events`."""
        if peer.ours:
            asyncio.run(topics.create(self.settings))
        else:
            made = self._admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in self._names])
            for done in made.values():
                done.result()
        producer = Producer(QUIET | {
            "bootstrap.servers": self.settings.kafka, "linger.ms": 50, "batch.size": 1 << 18, "acks": 1,
            "queue.buffering.max.messages": 1_000_000,
        })  # fmt: skip
        topic = self.settings.topic("events")
        for line in lines:
            producer.produce(topic, line.value, line.person, partition_of(line.person, PARTITIONS))
            producer.poll(0)
        if producer.flush(60):
            raise TimeoutError("the broker does not take the events")

    def clear(self) -> None:
        """Remove the topics, so that the disk does not fill."""
        self._asking.close()
        there = self._admin.list_topics(timeout=10).topics
        mine = [name for name in there if self.settings.topic_prefix in name]
        for done in (self._admin.delete_topics(mine) if mine else {}).values():
            with contextlib.suppress(Exception):
                done.result()

    @contextlib.contextmanager
    def running(self, peer: Peer) -> Iterator[subprocess.Popen[bytes]]:
        """The peer's process, in a group of its own."""
        config = self.folder / "campaigns.yaml"
        config.write_text(peer.job.configuration)
        settings = self.settings
        given = {
            "JOB_KAFKA": settings.kafka, "JOB_REDIS": settings.redis, "JOB_GROUP": settings.group,
            "JOB_EVENTS": settings.topic("events"), "JOB_DECISIONS": settings.topic("decisions"),
            "JOB_FOLDER": str(self.folder), "DECISIONING_KAFKA": settings.kafka, "DECISIONING_REDIS": settings.redis,
            "DECISIONING_TOPIC_PREFIX": settings.topic_prefix, "DECISIONING_GROUP": settings.group,
            "DECISIONING_CONFIG": str(config),
        }  # fmt: skip
        with (self.folder / "output.log").open("wb") as output:
            process = subprocess.Popen(
                peer.command(), cwd=self.folder, env=environment(given), stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def committed(self) -> int:
        """Sum of the group's offsets."""
        try:
            found = self._asking.committed(self._places, 5)
        except KafkaException:  # as while the broker looks for the group
            return 0
        return sum(max(0, place.offset) for place in found)

    @contextlib.contextmanager
    def published(self, topic: str) -> Iterator[Consumer]:
        """A reader of what is committed there."""
        consumer = Consumer(QUIET | {
            "bootstrap.servers": self.settings.kafka, "group.id": "looking on", "isolation.level": "read_committed",
            "enable.auto.commit": False, "auto.offset.reset": "earliest",
        })  # fmt: skip
        consumer.assign([TopicPartition(self.settings.topic(topic), n, 0) for n in range(PARTITIONS)])
        try:
            yield consumer
        finally:
            consumer.close()


def run(race: Race, peer: Peer, lines: Sequence[Line], profile: Path | None = None) -> Outcome:
    """Fill, start, watch and check.

    Parameters
    ----------
    profile
        Where to leave the stacks that the process was seen in after the warm-up.

    Raises
    ------
    LeftOutError
        It cannot run here.
    """
    peer.command()  # so that what has to be built or installed is, before anything is measured
    wanted = peer.job.wanted(lines)
    race.prepare(peer, lines)
    wrong: list[str] = []
    with contextlib.ExitStack() as held:
        process = held.enter_context(race.running(peer))
        consumer = held.enter_context(race.published(peer.job.topic))
        usage, seen = Usage(process.pid), Seen(peer.job, len(lines), wanted)
        warm: Mark | None = None
        end: Mark | None = None
        now = Mark(time.monotonic(), 0.0, 0.0)
        moved_s, limit_s = now.at_s, START_S
        while not seen.complete(commits=peer.commits):
            before = seen.progress
            seen.take(consumer)
            seen.committed = race.committed()
            now = Mark(time.monotonic(), usage.cpu_s(), seen.progress)
            if now.share > before:
                moved_s, limit_s = now.at_s, STALLED_S
            if warm is None and now.share > peer.warm:
                warm = now
                if profile is not None:
                    held.enter_context(sampled(process.pid, profile))
            if end is None and seen.decided():
                end = now
            if process.poll() is not None or now.at_s - moved_s > limit_s:
                wrong.append("ended" if process.poll() is not None else "stood still")
                break
        last = end or now
        time.sleep(0.3)
        seen.take(consumer)  # what comes twice may come late
    wrong += seen.wrong(commits=peer.commits)
    first = warm or Mark(last.at_s - 1, last.cpu_s, 0.0)
    measured = max(1.0, len(lines) * (1 - first.share))
    return Outcome(
        peer=peer.name,
        events=len(lines),
        events_per_s=measured / max(POLL_S, last.at_s - first.at_s),
        cpu_us=(last.cpu_s - first.cpu_s) / measured * 1e6,
        peak_mb=usage.peak_kb / 1024,
        wrong=tuple(wrong),
    )
