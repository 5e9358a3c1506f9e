"""Fixtures that several test files share."""

from __future__ import annotations

import logging
import os
import signal
import uuid
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import NoReturn

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests import services

# No property is about speed, and a busy machine is no failure. In CI the examples are the same each time.
settings.register_profile(
    "project",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("project")


def _end_in_order(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def pytest_configure() -> None:
    """Make SIGTERM end a run as Ctrl-C does, so that fixtures stop what they started."""
    signal.signal(signal.SIGTERM, _end_in_order)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A test that configures logging, as commands do, leaves no handler that writes to what it captured."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def _missing(what: str, error: services.UnavailableError) -> NoReturn:
    """In CI the service must be there; elsewhere the tests that need it are skipped with the reason."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is not available in CI: {error}", pytrace=False)
    pytest.skip(f"{what}: {error}")


@pytest.fixture(scope="session")
def missing() -> Callable[[str, services.UnavailableError], NoReturn]:
    """What a fixture does that cannot have its service; see `_missing`."""
    return _missing


def _service(
    what: str,
    variable: str,
    answers: Callable[[str], bool],
    sources: Sequence[Callable[[], tuple[str, Callable[[], None]]]],
) -> Iterator[str]:
    try:
        address, stop = services.obtain(variable, answers, sources)
    except services.UnavailableError as error:
        _missing(what, error)
    yield address
    stop()


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """Bootstrap address of a broker that all tests of the run share; see `topic_prefix`."""
    sources = (services.docker_kafka, services.local_kafka)
    yield from _service("Kafka", "DECISIONING_TEST_KAFKA", services.kafka_answers, sources)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """Address of a Redis that all tests of the run share."""
    sources = (services.docker_redis, services.local_redis)
    yield from _service("Redis", "DECISIONING_TEST_REDIS", services.redis_answers, sources)


@pytest.fixture
def kafka_server() -> Iterator[services.LocalKafka]:
    """A running broker of the test's own, to stop, kill and restart."""
    try:
        server = services.LocalKafka().start()
    except services.UnavailableError as error:
        _missing("Kafka", error)
    yield server
    server.close()


@pytest.fixture
def redis_server() -> Iterator[services.LocalRedis]:
    """A running Redis of the test's own, to stop, kill, restart and flush."""
    try:
        server = services.LocalRedis().start()
    except services.UnavailableError as error:
        _missing("Redis", error)
    yield server
    server.close()


@pytest.fixture
def topic_prefix() -> str:
    """Prefix of topic, group and transactional names that no other test uses."""
    return f"t{uuid.uuid4().hex[:10]}."
