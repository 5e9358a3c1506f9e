"""The probes: they tell the truth, also about a loop that hangs."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from streams.web import Heartbeat, WebError, WebServer


class _Worker:
    """A worker whose state the test sets."""

    def __init__(self) -> None:
        self.life = (True, "the main loop turns")
        self.readiness = (True, "4 partitions, all recovered")

    def alive(self) -> tuple[bool, str]:
        return self.life

    def ready(self) -> tuple[bool, str]:
        return self.readiness


@pytest.fixture
def worker() -> _Worker:
    return _Worker()


@pytest.fixture
def server(worker: _Worker) -> Iterator[WebServer]:
    registry = CollectorRegistry()
    Counter("seen_total", "A counter.", registry=registry).inc(3)
    with WebServer(worker, registry, "127.0.0.1", 0) as running:
        yield running


def _get(server: WebServer, path: str, **headers: str) -> tuple[int, str, str]:
    request = urllib.request.Request(server.address + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers["Content-Type"]


def test_a_good_worker(server: WebServer) -> None:
    """Alive and ready: 200 and a sentence."""
    assert _get(server, "/livez")[:2] == (200, "the main loop turns\n")
    assert _get(server, "/readyz")[:2] == (200, "4 partitions, all recovered\n")


def test_not_ready_says_why(server: WebServer, worker: _Worker) -> None:
    """503 with the reason in words; it lives all the same."""
    worker.readiness = (False, "Redis at localhost:6379 does not answer")
    assert _get(server, "/readyz")[:2] == (503, "Redis at localhost:6379 does not answer\n")
    assert _get(server, "/livez")[0] == 200


def test_who_is_not_alive_is_not_ready(server: WebServer, worker: _Worker) -> None:
    """A hung worker's last word on readiness does not count."""
    worker.life = (False, "hung")
    assert _get(server, "/livez")[:2] == (503, "hung\n")
    assert _get(server, "/readyz")[:2] == (503, "hung\n")


def test_metrics_in_both_formats(server: WebServer) -> None:
    """Text for people and old scrapers, OpenMetrics for those who ask for it."""
    status, text, kind = _get(server, "/metrics")
    assert (status, "seen_total 3.0" in text, kind.startswith("text/plain")) == (200, True, True)
    _, text, kind = _get(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


def test_nothing_else_is_served(server: WebServer) -> None:
    """Unknown paths are 404 and nothing can be posted."""
    assert _get(server, "/")[0] == 404
    request = urllib.request.Request(server.address + "/livez", data=json.dumps({}).encode())
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(request, timeout=10)


def test_a_hung_loop_is_reported(worker: _Worker) -> None:
    """While the main loop hangs the server answers, and says that it hangs."""
    heartbeat = Heartbeat(limit_s=0.0)
    worker.alive = heartbeat.alive  # type: ignore[method-assign]
    hanging, go_on = threading.Event(), threading.Event()

    async def hang() -> None:
        beat = asyncio.create_task(heartbeat.run())
        await asyncio.sleep(0)
        hanging.set()
        go_on.wait(60)
        beat.cancel()

    with WebServer(worker, CollectorRegistry(), "127.0.0.1", 0) as server:
        loop = threading.Thread(target=lambda: asyncio.run(hang()))
        loop.start()
        assert hanging.wait(60)
        status, reason, _ = _get(server, "/livez")
        go_on.set()
        loop.join()
    assert status == 503
    assert "the main loop has not turned" in reason


def test_a_beating_loop_is_alive() -> None:
    """A loop that turns within the limit is alive."""

    async def turn() -> tuple[bool, str]:
        heartbeat = Heartbeat(limit_s=60)
        beat = asyncio.create_task(heartbeat.run())
        await asyncio.sleep(0)
        beat.cancel()
        return heartbeat.alive()

    assert asyncio.run(turn())[0]


def test_a_taken_port_is_refused_with_a_remedy(server: WebServer, worker: _Worker) -> None:
    """One line: where, why, what to do; and no thread is left."""
    port = int(server.address.rpartition(":")[2])
    before = threading.active_count()
    with pytest.raises(
        WebError, match=rf"cannot listen on 127\.0\.0\.1:{port} \(Address already in use\); .*--web-port"
    ):
        WebServer(worker, CollectorRegistry(), "127.0.0.1", port).start()
    assert threading.active_count() == before


def test_stopping_frees_the_port(worker: _Worker) -> None:
    """After the end of `with` nobody listens there."""
    with WebServer(worker, CollectorRegistry(), "127.0.0.1", 0) as server:
        assert _get(server, "/livez")[0] == 200
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(server.address + "/livez", timeout=10)
