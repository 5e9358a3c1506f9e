"""What all workers are told by compacted topics, which each reads from the beginning without a group.

A step is computed with the tables as they are at that moment, and its marker names the offsets they had been read to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

import structlog

from decisioning import broadcast
from decisioning.effects import Pin, Stock, Switch
from decisioning.learning import UNLEARNED, Models
from streams.kafka import Cluster
from streams.model_table import ModelTable, Usable
from streams.seams import Entry, RefusedError, UnknownOutcomeError

NAMES: Final = ("catalog", "control", "models")
RETRY_S: Final = 0.5

_log = structlog.get_logger(__name__)


class Tables:
    """The latest values of all broadcast topics. What a step is given are these very dictionaries, which never change
    while it is computed.

    Parameters
    ----------
    models
        Takes in `models`; None: nobody here decides.

    Attributes
    ----------
    stock, paused
        As in `effects.State`.
    pins
        Model -> which version of it everybody is to use.
    offsets
        Topic -> offset up to which it was read.
    switches
        How often `paused` changed.
    """

    def __init__(self, models: ModelTable | None = None) -> None:
        self.stock: dict[str, Stock] = {}
        self.paused: dict[str, Switch] = {}
        self.pins: dict[str, Pin] = {}
        self.models = models
        self.offsets = dict.fromkeys(NAMES, 0)
        self.switches = 0
        self._takes: dict[str, Callable[[Entry], bool]] = {"catalog": self._take_stock, "control": self._take_setting}

    def take(self, name: str, entries: Sequence[Entry], position: int) -> None:
        """Take in what follows the topic's offset, up to a position."""
        if name == "models":
            self.adopt(self.load(entries), position)
            return
        for entry in entries:
            if not self._takes[name](entry):
                _log.warning("record not understood", topic=name, offset=entry.offset)
        self.offsets[name] = position

    def load(self, entries: Sequence[Entry]) -> Mapping[str, Usable | None]:
        """Make records of `models` ready; changes nothing here, so that another thread can do it."""
        return {} if self.models is None else self.models.load(entries)

    def adopt(self, loaded: Mapping[str, Usable | None], position: int) -> None:
        """Take in what `load` made of the records up to a position."""
        if self.models is not None:
            self.models.adopt(loaded, self.pins)
        self.offsets["models"] = position

    @property
    def in_use(self) -> Models:
        """What was learned, as the next step is to know it."""
        return UNLEARNED if self.models is None else self.models.in_use

    def versions(self) -> dict[str, str]:
        """For the marker of a step."""
        return {name: str(offset) for name, offset in self.offsets.items()}

    def _take_stock(self, entry: Entry) -> bool:
        return broadcast.take_stock(self.stock, entry.key, entry.value)

    def _take_setting(self, entry: Entry) -> bool:
        paused = self.paused.keys() | set()
        understood = broadcast.take_switch(self.paused, entry.key, entry.value)
        self.switches += self.paused.keys() != paused
        pins = dict(self.pins)
        understood &= broadcast.take_pin(self.pins, entry.key, entry.value)
        if self.models is not None and self.pins != pins:
            self.models.choose(self.pins)
        return understood


class TableReader:
    """Reads the topics into the tables for as long as the worker runs.

    Parameters
    ----------
    changed
        Called when campaigns were paused or resumed.

    Attributes
    ----------
    caught_up
        Set once everything was read that was there at the start.
    """

    def __init__(self, cluster: Cluster, tables: Tables, changed: Callable[[], None]) -> None:
        self._cluster = cluster
        self._tables = tables
        self._changed = changed
        self.caught_up = asyncio.Event()

    async def run(self) -> None:
        """Read until cancelled.

        Raises
        ------
        RefusedError
            A topic was deleted and made anew: what was read of it is no longer true.
        """
        while True:
            try:
                await self._follow()
            except UnknownOutcomeError as error:
                _log.warning("broadcast topics cannot be read", error=str(error))
                await asyncio.sleep(RETRY_S)

    async def _follow(self) -> None:
        offsets = self._tables.offsets
        ends = await self._cluster.ends_of(NAMES)
        if anew := [name for name, end in ends.items() if end < offsets[name]]:
            raise RefusedError(f"topic {', '.join(anew)} was made anew while we ran; start the worker again")
        self._note(ends)
        async with aclosing(self._cluster.follow(offsets)) as chunks:
            async for name, entries, position in chunks:
                switches = self._tables.switches
                if name == "models":
                    # Solving for many arms takes milliseconds, which no decision has to wait for.
                    self._tables.adopt(await asyncio.to_thread(self._tables.load, entries), position)
                else:
                    self._tables.take(name, entries, position)
                if self._tables.switches != switches:
                    self._tell()
                self._note(ends)

    def _note(self, ends: dict[str, int]) -> None:
        if all(self._tables.offsets[name] >= end for name, end in ends.items()):
            self.caught_up.set()

    def _tell(self) -> None:
        paused: dict[str, Any] = {campaign: switch.by for campaign, switch in sorted(self._tables.paused.items())}
        _log.info("campaigns paused or resumed", paused=paused)
        self._changed()


async def settings_told(cluster: Cluster) -> Tables:
    """What `control` says now."""
    tables = Tables()
    end = (await cluster.ends_of(["control"]))["control"]
    async with aclosing(cluster.follow({"control": 0})) as chunks:
        while tables.offsets["control"] < end:
            name, entries, position = await anext(chunks)
            tables.take(name, entries, position)
    return tables
