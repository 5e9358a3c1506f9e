"""Worker processes under a supervisor that starts again what has ended, as long as so many are wanted."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

from streams.settings import Settings
from tests.chaos.people import CONFIG
from tests.chaos.surroundings import Namespace
from tests.services import wait_until
from tests.test_shell_worker import COMMAND, DEADLINE_S, Worker

LOOK_S = 0.1
PATIENCE_S = 2 * DEADLINE_S


class Fleet:
    """One to three workers; the first lives in the namespace, if there is one.

    Parameters
    ----------
    orders
        The file by which one of them is told to die.

    Attributes
    ----------
    ended
        Time and reason of each end that nobody asked for.
    """

    def __init__(self, settings: Settings, folder: Path, orders: Path, network: Namespace | None) -> None:
        self._settings = settings
        self._folder = folder
        self._command = (COMMAND[0], "-m", "tests.chaos.crashing", str(orders))
        self._network = network
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._wanted = 0
        self.workers: list[Worker] = []
        self.ended: list[tuple[float, str]] = []
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._supervisor.start()

    def scale(self, wanted: int) -> None:
        """Have so many; who is too many leaves in good order, the last first."""
        with self._lock:
            self._wanted = wanted
            leaving, self.workers = self.workers[wanted:], self.workers[:wanted]
        for worker in reversed(leaving):
            worker.end(signal.SIGTERM)
        self._fill()

    def stop_one(self, number: int) -> None:
        """End one in good order; another takes its place."""
        with self._lock:
            self.workers[number].end(signal.SIGTERM)
            self._fill()

    def ready(self) -> bool:
        """Whether all that are wanted own partitions, and nobody else's."""
        with self._lock:
            workers = list(self.workers)
        return bool(workers) and all(worker.answer().startswith("200") for worker in workers)

    def wait(self) -> None:
        """Wait until they are."""
        wait_until(self.ready, f"{self._wanted} workers", PATIENCE_S)

    def close(self) -> None:
        """Kill all."""
        self._closing.set()
        self._supervisor.join()
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.end()

    def _supervise(self) -> None:
        while not self._closing.wait(LOOK_S):
            self._fill()

    def _fill(self) -> None:
        with self._lock:
            for number, worker in enumerate(self.workers):
                code = worker.process.poll()
                if code is not None:
                    if code > 0:
                        lines = worker.output.read_text(errors="replace").splitlines()
                        self.ended.append((time.time(), f"{worker.output.name}: {lines[-1] if lines else code}"))
                    self.workers[number] = self._start(number)
            while len(self.workers) < self._wanted:
                self.workers.append(self._start(len(self.workers)))

    def _start(self, number: int) -> Worker:
        if number or self._network is None:
            return Worker(self._settings, CONFIG, self._folder, self._command)
        command = (*self._network.command, *self._command)
        return Worker(self._settings, CONFIG, self._folder, command, self._network.inside)
