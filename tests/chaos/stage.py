"""All that a run needs: broker, two Redis servers behind a proxy, workers, and the world around them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import redis

from streams import topics
from streams.settings import Settings
from tests.chaos.crashing import Orders
from tests.chaos.fleet import Fleet
from tests.chaos.outside import Traffic, Watcher, looping
from tests.chaos.people import PARTITIONS, Population
from tests.chaos.proxy import Proxy
from tests.chaos.surroundings import Namespace, SmallDisk
from tests.services import LocalKafka, LocalRedis, LocalServer, UnavailableError, free_port, wait_until

RATE_PER_S = 500.0
KAFKA_MB = 6144
REDIS_MB = 1024
QUIET_S = 120.0  # at the end, for all that is pending to come out


class Stage(contextlib.ExitStack):
    """Sets everything up, and takes it down.

    Parameters
    ----------
    seed
        Of what people do.
    folder
        For the workers' output.

    Attributes
    ----------
    left_out
        What cannot be done on this machine -> why.
    """

    def __init__(self, seed: int, folder: Path, rate_per_s: float = RATE_PER_S) -> None:
        super().__init__()
        self.left_out: dict[str, str] = {}
        try:
            self._set_up(seed, folder, rate_per_s)
        except BaseException:
            self.close()
            raise

    def _set_up(self, seed: int, folder: Path, rate_per_s: float) -> None:
        self.network = self._namespace()
        hosts = ["127.0.0.1"] + ([self.network.outside] if self.network else [])
        self.kafka_disk, *redis_disks = (self._disk(size) for size in (KAFKA_MB, REDIS_MB, REDIS_MB))
        self.kafka = LocalKafka(host=hosts[-1], data=self.kafka_disk.path)
        self.stores = [LocalRedis(data=disk.path) for disk in redis_disks]
        self.redis_disks = redis_disks
        self.active = 0
        for server in (self.kafka, *self.stores):
            self.callback(server.close)
            self.callback(_kept, server, folder)
        self.kafka.start()
        self.stores[0].start()
        self.loop = self.enter_context(looping())
        self.proxy = self._proxy(hosts, self.stores[0].port)
        self.link = self._proxy(hosts[:1], self.stores[0].port)  # from a replica to its primary
        self.settings = Settings(
            kafka=self.kafka.bootstrap,
            redis=f"redis://{hosts[-1]}:{self.proxy.port}/0",
            topic_prefix="chaos.",
            group="chaos",
            partitions=PARTITIONS,
        )
        asyncio.run(topics.create(self.settings))
        self.population = Population(f"people {seed}")
        self.traffic = Traffic(self.settings, self.population, rate_per_s)
        self.watcher = Watcher(self.settings)
        self.orders = Orders(folder / "order")
        self.fleet = Fleet(self.settings, folder, folder / "order", self.network)
        self.callback(self.fleet.close)

    @property
    def store(self) -> LocalRedis:
        """The Redis that is in use."""
        return self.stores[self.active]

    @property
    def disk(self) -> SmallDisk:
        """Where it keeps its file."""
        return self.redis_disks[self.active]

    def begin(self, workers: int) -> None:
        """Start workers, then the world."""
        self.fleet.scale(workers)
        self.fleet.wait()
        self.began_s = time.time()
        self._start(self.watcher.run())
        self._published = self._start(self.traffic.run())
        wait_until(lambda: self.watcher.recovered(self.began_s), "first decisions")

    def end(self) -> None:
        """Stop the world, and wait until nothing is unread or pending."""
        self.traffic.stop()
        self._published.result(QUIET_S)
        with contextlib.suppress(TimeoutError):  # the verdict will tell what is missing
            wait_until(self.settled, "all that is pending", QUIET_S)

    def settled(self) -> bool:
        """Whether all workers are ready, all was read and no timer is left."""
        if not self.fleet.ready():
            return False
        namespace = self.settings.topic(self.settings.group)
        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self.store.url) as client:
            pending = [int(client.zcard(f"{namespace}:{{{number}}}:due")) for number in range(PARTITIONS)]
            return not any(pending) and self.loop.run(unread(self.settings)) == 0
        return False

    def _start(self, coroutine: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop.loop)

    def _proxy(self, hosts: list[str], target: int) -> Proxy:
        proxy = Proxy(self.loop.loop, free_port(), target)
        self.loop.run(proxy.start(hosts))
        self.callback(lambda: self.loop.run(proxy.stop()))
        return proxy

    def _disk(self, megabytes: int) -> SmallDisk:
        disk = SmallDisk(megabytes)
        self.callback(disk.close)
        if disk.why_not:
            self.left_out["disk full"] = disk.why_not
        return disk

    def _namespace(self) -> Namespace | None:
        try:
            return self.enter_context(Namespace())
        except UnavailableError as error:
            self.left_out["network partitioned"] = str(error)
            return None


def _kept(server: LocalServer, folder: Path) -> None:
    """Keep what a server wrote, beside the workers' output."""
    if server.log_path.exists():
        shutil.copy(server.log_path, folder / f"{server.name}-{server.port}.log")


async def unread(settings: Settings) -> int:
    """How many offsets of the inputs no step has taken in."""
    from aiokafka import TopicPartition

    from streams.kafka import Cluster
    from streams.seams import INPUTS

    cluster = Cluster(settings.kafka_options(), settings.topic_prefix, settings.group)
    await cluster.start()
    try:
        rest = 0
        for number in range(settings.partitions):
            places = {name: TopicPartition(settings.topic(name), number) for name in INPUTS}
            ends = await cluster.stable_offsets(list(places.values()))
            committed = (await cluster.committed(number)).offsets
            rest += sum(ends[place] - committed.get(name, 0) for name, place in places.items())
    finally:
        await cluster.stop()
    return rest
