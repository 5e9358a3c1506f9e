"""Everything that is done to workers, Redis, the broker and the network; each fault leaves things as they were."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import redis

from streams.app import SESSION_TIMEOUT_S
from tests.chaos.crashing import POINTS, Point
from tests.chaos.stage import Stage
from tests.services import UnavailableError, wait_until

SILENT_S = SESSION_TIMEOUT_S + 2.0  # of a worker that is stopped or cut off
HELD_S = 3.0  # how long Redis is slow or full
SLOW_S = 0.15  # each way to Redis and back
STALLED_S = 1.5  # how far a replica lags
CUT_BYTES = (2_000, 1_000_000)  # off the end of Redis's file
BROKER_DIES_S = 8.0
CRASH_S = 60.0
MOST_WORKERS = 3
TAKEOVER_S = 1.0  # promised wherever nobody has to be missed first
KILLED_S = SESSION_TIMEOUT_S + 2.0  # promised where somebody has


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes
    ----------
    name
        As in the table.
    part
        What it is done to: workers, Redis, broker or network.
    apply
        Does it and returns when it is over.
    recovery
        Counted from its beginning or its end until the last decision that came late; or, where partitions only move,
        the longest that any decision waited.
    promised_s
        How soon decisions are to be on time again; None: it depends on somebody else's start.
    """

    name: str
    part: str
    apply: Callable[[Stage, random.Random], None]
    recovery: Literal["from its beginning", "from its end", "longest wait"] = "from its beginning"
    promised_s: float | None = None


def _killed(stage: Stage, dice: random.Random) -> None:
    dice.choice(stage.fleet.workers).process.kill()


def _stopped(stage: Stage, dice: random.Random) -> None:
    stage.fleet.stop_one(dice.randrange(len(stage.fleet.workers)))


def _hung(stage: Stage, dice: random.Random) -> None:
    worker = dice.choice(stage.fleet.workers)
    worker.process.send_signal(signal.SIGSTOP)
    time.sleep(SILENT_S)
    worker.process.send_signal(signal.SIGCONT)


def _scaled(stage: Stage, dice: random.Random) -> None:
    for wanted in (1, 3, 1):
        stage.fleet.scale(wanted)
        stage.fleet.wait()
    stage.fleet.scale(dice.choice((1, 2, 2, 3)))
    stage.fleet.wait()


def _crashed(point: Point, stage: Stage, dice: random.Random) -> None:
    stage.orders.give(point)
    if point.provoked_by == "flush":
        stage.store.flush()
    elif point.provoked_by == "rebalance":
        workers = len(stage.fleet.workers)
        stage.fleet.scale(workers + 1 if workers < MOST_WORKERS else workers - 1)
    try:
        wait_until(stage.orders.carried_out, point.order, CRASH_S)
    finally:
        stage.orders.withdraw()


def _flushed(stage: Stage, dice: random.Random) -> None:
    stage.store.flush()


def _tail_cut(stage: Stage, dice: random.Random) -> None:
    stage.store.kill()
    folder = stage.store.data / "appendonlydir"
    file = max(folder.glob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]))
    with file.open("r+b") as opened:
        opened.truncate(max(0, file.stat().st_size - dice.randint(*CUT_BYTES)))
    try:
        stage.store.start()
    except UnavailableError as error:
        # After a full disk its file may have a torn write in the middle, which it does not load.
        print(f"          it starts empty, as it refuses its file: {str(error)[-120:]}")
        shutil.rmtree(folder)
        stage.store.start()


def _failed_over(stage: Stage, dice: random.Random) -> None:
    """A replica falls behind, the primary dies, and the replica is all there is."""
    primary, replica = stage.store, stage.stores[1 - stage.active]
    stage.link.stalled, stage.link.target = False, primary.port
    shutil.rmtree(replica.data / "appendonlydir", ignore_errors=True)
    replica.start()
    with redis.Redis.from_url(replica.url) as client:
        client.replicaof("127.0.0.1", stage.link.port)
        try:
            wait_until(lambda: _in_step(client), "the replica")
        except TimeoutError:
            replica.kill()
            raise
        stage.link.stalled = True
        time.sleep(STALLED_S)
        primary.kill()
        stage.link.cut()
        client.replicaof("NO", "ONE")
    stage.active = 1 - stage.active
    stage.proxy.target = replica.port
    stage.proxy.cut()


def _in_step(client: redis.Redis) -> bool:
    said = client.info("replication")
    assert isinstance(said, dict)
    return bool(said["master_link_status"] == "up" and not said["master_sync_in_progress"])


def _slowed(stage: Stage, dice: random.Random) -> None:
    stage.proxy.delay_s = SLOW_S
    time.sleep(HELD_S)
    stage.proxy.delay_s = 0.0


def _out_of_memory(stage: Stage, dice: random.Random) -> None:
    with redis.Redis.from_url(stage.store.url) as client:
        client.config_set("maxmemory", "1mb")
        time.sleep(HELD_S)
        client.config_set("maxmemory", "0")


def _redis_disk_full(stage: Stage, dice: random.Random) -> None:
    stage.disk.fill()
    time.sleep(HELD_S)
    stage.disk.free()


def _broker_restarted(stage: Stage, dice: random.Random) -> None:
    stage.kafka.restart()


def _broker_killed(stage: Stage, dice: random.Random) -> None:
    stage.kafka.restart(kill=True)


def _broker_disk_full(stage: Stage, dice: random.Random) -> None:
    """The broker ends itself once it cannot write, and is started when there is room again."""
    stage.kafka_disk.fill()
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: not stage.kafka.answers(), "the broker to give up", BROKER_DIES_S)
    stage.kafka_disk.free()
    stage.kafka.restart(kill=True)


def _cut_off(stage: Stage, dice: random.Random) -> None:
    assert stage.network is not None
    stage.network.pull()
    time.sleep(SILENT_S)
    stage.network.plug()


CRASHES = [
    Fault(f"crash: {name}", "workers", partial(_crashed, point), "from its end", KILLED_S)
    for name, point in POINTS.items()
]
FAULTS = [
    Fault("kill -9", "workers", _killed, promised_s=KILLED_S),
    Fault("SIGTERM, another started", "workers", _stopped, "longest wait", promised_s=TAKEOVER_S),
    Fault(f"SIGSTOP for {SILENT_S:.0f} s, SIGCONT", "workers", _hung, promised_s=KILLED_S),
    Fault("scaled 1 → 3 → 1", "workers", _scaled, "longest wait", promised_s=TAKEOVER_S),
    Fault("FLUSHALL", "Redis", _flushed),
    Fault("killed, tail of its file cut off", "Redis", _tail_cut, "from its end"),
    Fault("stalled replica promoted", "Redis", _failed_over, "from its end"),
    Fault(f"{SLOW_S * 1e3:.0f} ms slower each way", "Redis", _slowed, "from its end"),
    Fault("maxmemory reached", "Redis", _out_of_memory, "from its end"),
    Fault("disk full", "Redis", _redis_disk_full, "from its end"),
    Fault("restarted", "broker", _broker_restarted, "from its end"),
    Fault("killed and started", "broker", _broker_killed, "from its end"),
    Fault("disk full", "broker", _broker_disk_full, "from its end"),
    Fault(f"a worker cut off for {SILENT_S:.0f} s", "network", _cut_off, promised_s=KILLED_S),
]
NEEDS_COMPANY = {_hung, _cut_off}  # another worker has to be there to take over


def possible(stage: Stage) -> list[Fault]:
    """Those that this machine allows."""
    cannot = {"disk full": _redis_disk_full, "network partitioned": _cut_off}
    barred = {cannot[name] for name in stage.left_out}
    if _redis_disk_full in barred:
        barred.add(_broker_disk_full)
    return [fault for fault in (*FAULTS, *CRASHES) if fault.apply not in barred]


def sequence(faults: list[Fault], seed: int) -> Iterator[Fault]:
    """All of them again and again, each time in another order."""
    dice = random.Random(f"faults of {seed}")
    while True:
        yield from dice.sample(faults, len(faults))
