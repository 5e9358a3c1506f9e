"""`/livez`, `/readyz` and `/metrics` of a worker.

They are served from a thread of their own with a loop of its own: when the worker's loop hangs, `/livez`
still answers, and says so, and a slow scrape never delays a decision.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from types import TracebackType
from typing import Final, Protocol, Self

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from streams.failure import Failure

START_TIMEOUT_S: Final = 10
STOP_TIMEOUT_S: Final = 2
BEAT_S: Final = 0.25

Verdict = tuple[bool, str]


class Probes(Protocol):
    """What the answers depend on; called from the web thread, so no waiting and no touching of the loop."""

    def alive(self) -> Verdict:
        """Whether the process still makes progress, and in words why (not)."""

    def ready(self) -> Verdict:
        """Whether partitions are assigned and recovered, Redis and Kafka answer, and in words why (not)."""


class Heartbeat:
    """Proof that a loop still turns.

    Parameters
    ----------
    limit_s
        Without a beat for so long, the loop counts as hung.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._last_s = time.monotonic()

    async def run(self) -> None:
        """Beat in the calling loop until cancelled."""
        while True:
            self._last_s = time.monotonic()
            await asyncio.sleep(BEAT_S)

    def alive(self) -> Verdict:
        """Tell whether the last beat is recent; safe from any thread."""
        age_s = time.monotonic() - self._last_s
        if age_s > self._limit_s:
            return False, f"the main loop has not turned for {age_s:.0f} s (limit {self._limit_s:g} s)"
        return True, "the main loop turns"


class WebError(Failure):
    """The server cannot listen where it should; one line with the remedy."""


class WebServer:
    """The server, from `with` or `start` to `stop`.

    Parameters
    ----------
    host, port
        Where to listen; port 0 takes a free one, which `address` then names.
    """

    def __init__(self, probes: Probes, registry: CollectorRegistry, host: str, port: int) -> None:
        self._probes = probes
        self._registry = registry
        self._host, self._port = host, port
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._failure: OSError | None = None
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    @property
    def address(self) -> str:
        """Base URL, such as `http://127.0.0.1:6066`."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def start(self) -> str:
        """Listen; returns the address.

        Raises
        ------
        WebError
            The port is taken or the host is not ours.
        """
        self._thread.start()
        if not self._started.wait(START_TIMEOUT_S):
            raise WebError(f"the web server does not start within {START_TIMEOUT_S} s; look at the machine's load")
        if self._failure is not None:
            self._thread.join()
            reason = os.strerror(self._failure.errno) if self._failure.errno else self._failure
            raise WebError(
                f"cannot listen on {self._host}:{self._port} ({reason}); "
                "choose another --web-port (0 takes a free one) or DECISIONING_WEB_HOST"
            )
        return self.address

    def stop(self) -> None:
        """Stop listening; requests under way get two seconds."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(2 * STOP_TIMEOUT_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        app = web.Application()
        app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_TIMEOUT_S, handle_signals=False)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
            self._port = runner.addresses[0][1]
        except OSError as error:
            self._failure = error
        self._started.set()
        if self._failure is None:
            await self._stopping.wait()
        await runner.cleanup()

    async def _livez(self, _request: web.Request) -> web.Response:
        return _answer(self._probes.alive())

    async def _readyz(self, _request: web.Request) -> web.Response:
        alive, reason = self._probes.alive()
        return _answer(self._probes.ready() if alive else (False, reason))

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})


def _answer(verdict: Verdict) -> web.Response:
    good, reason = verdict
    return web.Response(status=200 if good else 503, text=f"{reason}\n")
