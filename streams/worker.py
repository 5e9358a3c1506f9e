"""The worker process: runs the shell until it is told to stop, and ends at once on what it does not understand.

Crash-only: every state it could be in when it dies is one that START mends, so nothing is repaired in place. The
supervisor (systemd, Kubernetes, Compose) starts it again.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from typing import Final, NoReturn

import structlog
import uvloop
from redis.exceptions import RedisError

from decisioning.config import Config
from decisioning.engine import Engine
from decisioning.unsubscribe import Links
from streams.app import Shell
from streams.failure import Failure
from streams.kafka import Cluster
from streams.metrics import Metrics
from streams.seams import RefusedError, UnknownOutcomeError
from streams.settings import Settings
from streams.store import Scripts, connect
from streams.topics import TOPICS
from streams.web import Heartbeat, WebServer

HUNG_S: Final = 15.0  # the main loop or the consumer's thread not turning for so long
WATCH_S: Final = 1.0
STEP_PATIENCE_S: Final = 0.4  # on SIGTERM, for steps under way
LEAVE_PATIENCE_S: Final = 0.4  # and for leaving the group
PROBE_S: Final = 2.0
PROBE_STALE_S: Final = 8.0
# Objects made by a step live until it is committed; the collector would look at all of them again and again.
GC_THRESHOLDS: Final = (50_000, 20, 100)

_log = structlog.get_logger(__name__)


class Health:
    """What `/livez` and `/readyz` say. Called from the web server's thread."""

    def __init__(self) -> None:
        self.heartbeat = Heartbeat(HUNG_S)
        self.shell: Shell | None = None
        self._answered_s: dict[str, float] = {}

    def answered(self, service: str) -> None:
        """Note that a service has just answered."""
        self._answered_s[service] = time.monotonic()

    def alive(self) -> tuple[bool, str]:
        """Whether the main loop turns."""
        return self.heartbeat.alive()

    def ready(self) -> tuple[bool, str]:
        """Whether Kafka and Redis answer, broadcast topics were read and every assigned partition is recovered."""
        for service in ("Kafka", "Redis"):
            age_s = time.monotonic() - self._answered_s.get(service, float("-inf"))
            if age_s > PROBE_STALE_S:
                return False, f"{service} does not answer"
        shell = self.shell
        if shell is None or not shell.informed:
            return False, "the topics catalog and control are being read"
        if not shell.assigned:
            return False, "no partitions assigned yet: the group is rebalancing"
        owners = list(shell.owners.values())
        waiting = sorted(owner.number for owner in owners if not owner.ready)
        if waiting:
            return False, f"partitions {waiting} are being recovered"
        return True, f"{len(owners)} partitions owned"


def run(settings: Settings, config: Config) -> int:
    """Run until SIGTERM or SIGINT; does not return but ends the process.

    Raises
    ------
    Failure
        It cannot start; one line with the remedy.
    """
    uvloop.run(_serve(settings, config))
    return 0


async def _serve(settings: Settings, config: Config) -> None:
    metrics, health = Metrics(), Health()
    cluster = Cluster(settings.kafka_options(), settings.topic_prefix, settings.group)
    try:
        await cluster.start()
        partitions = _checked(settings, await cluster.partitions())
    except (UnknownOutcomeError, OSError, TimeoutError) as error:
        await cluster.stop()
        raise Failure(
            f"Kafka at {settings.kafka} does not answer ({error}); is it running? DECISIONING_KAFKA or --kafka"
            " names its address"
        ) from None
    scripts = Scripts(connect(settings.redis))
    versions = {"configuration": config.version_hash}
    shell = Shell(
        settings, Engine(config, _links(settings), settings.pseudonyms), cluster, scripts, metrics, _fail, versions
    )
    health.shell = shell
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    web = WebServer(health, metrics.registry, settings.web_host, settings.web_port)
    address = web.start()
    threading.Thread(target=_watch, args=(health,), name="watchdog", daemon=True).start()
    tasks = [
        asyncio.create_task(job) for job in (health.heartbeat.run(), _probe(health, shell, cluster, scripts, settings))
    ]
    await shell.start(partitions)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    _log.info("worker started", group=settings.group, partitions=partitions, web=address)
    await stopping.wait()
    try:
        async with asyncio.timeout(STEP_PATIENCE_S + LEAVE_PATIENCE_S):
            await shell.stop(STEP_PATIENCE_S)
    except TimeoutError:
        _log.warning("the group was not left in time; its coordinator will notice")
    del tasks
    _exit(0)


def _links(settings: Settings) -> Links:
    key = settings.token_key.get_secret_value().encode() if settings.token_key else b""
    return Links(settings.public_url if key else None, key)


def _checked(settings: Settings, there: Mapping[str, int]) -> int:
    """Number of partitions; raises `Failure` if the topics are not as they have to be."""
    names = [topic.name for topic in TOPICS if topic.name not in {"models", "model-history"}]
    missing = [settings.topic(name) for name in names if settings.topic(name) not in there]
    if missing:
        raise Failure(f"topics {', '.join(missing)} do not exist; run: decisioning topics create")
    partitions = there[settings.topic("events")]
    for name in ("internal", "changelog", "decisions"):
        found = there[settings.topic(name)]
        if found != partitions:
            raise Failure(
                f"topic {settings.topic(name)} has {found} partitions, {settings.topic('events')} has {partitions};"
                " number p of each belongs together: create it anew with as many"
            )
    return partitions


async def _probe(health: Health, shell: Shell, cluster: Cluster, scripts: Scripts, settings: Settings) -> None:
    """Ask Kafka and Redis whether they are there, for as long as the worker runs."""
    while True:
        try:
            await scripts.client.ping()
            health.answered("Redis")
        except (RedisError, OSError) as error:
            _log.warning("Redis does not answer", address=settings.redis_address, error=str(error))
        try:
            await cluster.partitions()
            health.answered("Kafka")
        except UnknownOutcomeError as error:
            _log.warning("Kafka does not answer", error=str(error))
        if shell.assigned:
            try:
                async with asyncio.timeout(HUNG_S):
                    await shell.consumer.ping()
            except TimeoutError:
                _fail(RuntimeError("the consumer's thread hangs"))
        await asyncio.sleep(PROBE_S)


def _watch(health: Health) -> None:
    """A hung loop keeps its membership of the group, since another thread heartbeats; so it is ended here."""
    while True:
        time.sleep(WATCH_S)
        alive, why = health.alive()
        if not alive:
            sys.stderr.write(f"decisioning worker: {why}; exiting so that others take over\n")
            faulthandler.dump_traceback()
            _exit(1)


def _fail(error: BaseException) -> None:
    """Nobody is there to handle it: end the process, at once."""
    if isinstance(error, RefusedError):
        sys.stderr.write(f"decisioning worker: {error}\n")
    else:
        # The place and the kind, but not the text: it may quote an event.
        where = "".join(traceback.format_tb(error.__traceback__))
        sys.stderr.write(f"decisioning worker: unexpected {type(error).__name__} at\n{where}")
    _exit(1)


def _exit(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
