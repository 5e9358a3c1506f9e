"""Which peers there are, and how each is started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.configurations import FOLD_ONLY, PLAIN, WHOLE, Job
from tests.services import KAFKA_VERSION, ROOT

OWN_PYTHON: Final = ROOT / ".cache" / "bench-venv" / "bin" / "python"
REQUIREMENTS: Final = ROOT / "benchmarks" / "peers" / "requirements.txt"
SAMPLER: Final = [str(OWN_PYTHON.with_name("py-spy"))]
STREAMS: Final = ROOT / ".cache" / "kafka-streams"
PROJECT: Final = ROOT / "benchmarks" / "peers" / "kafka-streams"


class LeftOutError(Exception):
    """A peer cannot run here; the text says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One of those who are compared.

    Attributes
    ----------
    name
        In tables.
    command
        Its command line; raises `LeftOutError`.
    exactly_once
        Whether it promises to publish each decision once.
    scale
        Of the events of a pass, so that it is at work for some seconds: a slow one gets fewer, a fast one more, and
        Java has time to compile.
    warm
        Share of its work before which nothing is measured: starting, joining, compiling. Ours is measured from its
        first commit: it decides when the backlog is read, so a later start would count decisions without their events.
    commits
        Whether it commits its group's offsets to Kafka.
    job
        What it does: the same for all but for this worker's further rows.
    """

    name: str
    command: Callable[[], list[str]]
    exactly_once: bool = False
    scale: float = 1.0
    warm: float = 0.25
    commits: bool = True
    job: Job = PLAIN

    @property
    def ours(self) -> bool:
        """Whether it is this worker."""
        return self.command is _worker


def _ours(module: str, *arguments: str) -> Callable[[], list[str]]:
    return lambda: [sys.executable, "-m", f"benchmarks.peers.{module}", *arguments]


def _theirs(module: str, package: str) -> Callable[[], list[str]]:
    def command() -> list[str]:
        install()
        _run([str(OWN_PYTHON), "-W", "ignore", "-c", f"import {package}"])
        return [str(OWN_PYTHON), "-W", "ignore", "-m", f"benchmarks.peers.{module}"]

    return command


def install() -> None:
    """Give what cannot share our environment one of its own, as locked.

    Raises
    ------
    LeftOutError
        It cannot be had here.
    """
    home = OWN_PYTHON.parent.parent
    stamp = home / ".installed"
    if not stamp.exists() or stamp.stat().st_mtime < REQUIREMENTS.stat().st_mtime:
        _run([sys.executable, "-m", "venv", str(home)])
        options = ["--quiet", "--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:"]
        _run([str(OWN_PYTHON), "-m", "pip", "install", *options, "-r", str(REQUIREMENTS)])
        stamp.touch()


def _kafka_streams() -> list[str]:
    if not (shutil.which("mvn") and shutil.which("javac")):
        raise LeftOutError("needs a JDK and Maven")
    jar, source = STREAMS / "job.jar", PROJECT / "src" / "main" / "java" / "Job.java"
    if not jar.exists() or jar.stat().st_mtime < source.stat().st_mtime:
        copied = ["package", "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={STREAMS}"]
        options = [f"-Dkafka.version={KAFKA_VERSION}", f"-Djob.output={STREAMS}"]
        _run(["mvn", "-q", "-B", "--strict-checksums", "-f", str(PROJECT / "pom.xml"), *options, *copied])
    return ["java", "-Xmx1g", "-cp", f"{STREAMS}/*", "Job"]


def _worker() -> list[str]:
    return [sys.executable, "-c", "from streams.cli import main; main()", "worker", "--web-port", "0"]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise LeftOutError(said[-1] if said else f"{command[0]} ended with {done.returncode}")


WHOLE_FLOW: Final = Peer("this worker, a shop's whole decision flow", _worker, exactly_once=True, warm=0.0, job=WHOLE)
WORKER: Final = Peer("this worker, exactly once, Redis", _worker, exactly_once=True, warm=0.0)
PEERS: Final = (
    WORKER,
    Peer("Kafka Streams, exactly once, in memory", _kafka_streams, exactly_once=True, scale=4),
    Peer("librdkafka loop, dict", _ours("librdkafka_loop", "dict"), scale=4),
    Peer("librdkafka loop, Redis", _ours("librdkafka_loop", "redis"), scale=4),
    Peer("aiokafka loop, dict", _ours("aiokafka_loop", "dict"), scale=4),
    Peer("aiokafka loop, Redis", _ours("aiokafka_loop", "redis"), scale=4),
    Peer("Bytewax, in memory", _theirs("bytewax_flow", "bytewax"), commits=False),
    Peer("Quix Streams, RocksDB", _theirs("quix", "quixstreams")),
    Peer("Faust, take(1000), dict", _ours("faust_agent", "take"), scale=0.1),
    Peer("Faust, take(1000), Redis", _ours("faust_agent", "redis"), scale=0.1),
    Peer("Faust, agent and Table", _ours("faust_agent", "table"), scale=0.1),
    Peer("this worker without decisions", _worker, exactly_once=True, warm=0.0, job=FOLD_ONLY),
    WHOLE_FLOW,
)


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """What a peer's process sees: ours, without settings of ours, and what it is given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DECISIONING_", "JOB_"))}
    return kept | {"PYTHONPATH": str(Path(ROOT))} | dict(given)
