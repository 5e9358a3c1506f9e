"""The commands `models list` and `models show`: what was learned, and which version of it is used."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson
import typer
from rich.table import Table

from bandits.arms import ArmModel
from bandits.snapshot import SnapshotError, decode
from decisioning.effects import Pin
from decisioning.localtime import iso
from streams.erasing import connected
from streams.failure import NO, Failure
from streams.plain import plain_console
from streams.snapshots import INTERNAL, PINNED, Kept, kept_versions, latest_of
from streams.tables import settings_told

if TYPE_CHECKING:
    from decisioning.config import Config
    from streams.kafka import Cluster
    from streams.settings import Settings

SHOWN_VERSIONS: Final = 10


@dataclass(frozen=True, slots=True)
class Known:
    """What the topics say of one model."""

    model: str
    latest: Kept | None
    pinned: Kept | None
    pin: Pin | None

    def summary(self) -> dict[str, Any]:
        """Which version there is, and which is used."""
        said: dict[str, Any] = {"model": self.model}
        if self.latest is not None:
            said |= _version_of(self.latest) | {"published_at": iso(self.latest.at_ms)}
        said["in_use"] = self.pin.version if self.pin is not None else said.get("version")
        if self.pin is not None:
            said["pinned"] = {"at": self.pin.at, "by": self.pin.by, "reason": self.pin.reason}
        return said

    @property
    def used(self) -> Kept | None:
        """The snapshot that decisions are made with."""
        return self.latest if self.pin is None else self.pinned


def list_models(settings: Settings, *, as_json: bool) -> int:
    """Print all models; returns the exit code.

    Raises
    ------
    Failure
        Kafka does not answer.
    """
    found = [known.summary() for known in _told(settings, _all).values()]
    if as_json:
        _print_json(found)
        return 0
    if not found:
        typer.echo("nothing was learned yet")
        return 0
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("model", "kind", "version", "in use", "published", "pinned"):
        table.add_column(name, overflow="fold")
    for one in found:
        pin = one.get("pinned")
        why = f"{pin['at']} by {pin['by']}" + (f": {pin['reason']}" if pin["reason"] else "") if pin else ""
        words = [one.get(name, "-") for name in ("kind", "version", "in_use", "published_at")]
        table.add_row(one["model"], *map(str, words), why)
    plain_console().print(table)
    return 0


def show_model(settings: Settings, config: Config | None, model: str, *, as_json: bool) -> int:
    """Print what is known of a model; returns the exit code.

    Parameters
    ----------
    config
        For the probabilities that the campaign's rule makes of it.

    Raises
    ------
    Failure
        There is no such model, or Kafka does not answer.
    """

    async def asked(cluster: Cluster) -> tuple[dict[str, Known], int, list[Kept]]:
        count, last = 0, deque[Kept](maxlen=SHOWN_VERSIONS)
        async with aclosing(kept_versions(cluster, model)) as versions:
            async for one in versions:
                count += 1
                last.append(one)
        return await _all(cluster), count, list(last)

    known, count, last = _told(settings, asked)
    if model not in known:
        names = f"known are {', '.join(known)}" if known else "nothing was learned yet"
        raise Failure(f"there is no model {model!r}; {names}", NO)
    said = known[model].summary() | {"arms": _arms(known[model], config), "measures": _measures(known[model])}
    said["kept"] = {"count": count, "last": [{"version": one.version, "at": iso(one.at_ms)} for one in last]}
    if as_json:
        _print_json(said)
        return 0
    typer.echo(_sentence(said))
    console = plain_console()
    if said["arms"]:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("arm", overflow="fold")
        for name in ("examples", "reward each", "chance"):
            table.add_column(name, justify="right")
        for arm, one in said["arms"].items():
            chance = f"{one['chance']:.1%}" if "chance" in one else "-"
            table.add_row(arm, f"{one['examples']:,.0f}", f"{one['mean']:.4g}", chance)
        console.print(table)
    if said["measures"]:
        typer.echo(", ".join(f"{name} {value}" for name, value in said["measures"].items()))
    typer.echo(f"{count:,} versions are kept; the last: " + ", ".join(str(one.version) for one in last))
    return 0


def _sentence(said: dict[str, Any]) -> str:
    pin = said.get("pinned")
    if pin is None:
        return f"{said['model']}: version {said['version']} of {said['published_at']}, the latest, is in use"
    latest = f"the latest is {said['version']}" if "version" in said else "there is no other"
    return f"{said['model']}: version {said['in_use']}, pinned by {pin['by']} on {pin['at']}, is in use; {latest}"


def _arms(known: Known, config: Config | None) -> dict[str, dict[str, float]]:
    """Arm -> what was seen of it in the version in use, and its chance for somebody of whom nothing is known."""
    if known.used is None:
        return {}
    try:
        snapshot = decode(known.used.value)
        if snapshot.kind != "arms":
            return {}
        model = ArmModel.from_bytes(snapshot.data)
    except SnapshotError:
        return {}
    tried = model.tried()
    arms = {arm: {"examples": count, "mean": mean} for arm, (count, mean) in tried.items()}
    if config is not None and arms:
        from decisioning.plan import plans_of  # noqa: PLC0415 - compiles all rules and texts of the configuration

        plan = plans_of(config).get(known.model.rpartition("/")[0])
        if plan is not None:
            chances = model.ready(plan.spec).probabilities(list(arms), np.zeros(model.width))
            for arm, chance in zip(arms, chances.tolist(), strict=True):
                arms[arm]["chance"] = chance
    return arms


def _measures(known: Known) -> dict[str, Any]:
    """How the propensity model in use predicts, as its snapshot tells it."""
    if known.used is None:
        return {}
    try:
        snapshot = decode(known.used.value)
    except SnapshotError:
        return {}
    told = ("champion", "examples", "log_loss", "auc", "calibration_error", "drifts")
    return {name: snapshot.meta[name] for name in told if name in snapshot.meta}


def _version_of(kept: Kept) -> dict[str, Any]:
    try:
        snapshot = decode(kept.value)
    except SnapshotError as error:
        return {"error": str(error)}
    return {"kind": snapshot.kind, "version": snapshot.version, "context_version": snapshot.context_version}


async def _all(cluster: Cluster) -> dict[str, Known]:
    pins = (await settings_told(cluster)).pins
    latest = await latest_of(cluster)
    names = {name for name in latest if not name.startswith(INTERNAL)} | pins.keys()
    return {
        name: Known(name, latest.get(name), latest.get(f"{PINNED}{name}"), pins.get(name)) for name in sorted(names)
    }


def _told(settings: Settings, ask: Any) -> Any:
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it repeats what our one line says

    async def run() -> Any:
        async with connected(settings) as (cluster, there):
            for name in ("control", "models", "model-history"):
                if settings.topic(name) not in there:
                    raise Failure(f"topic {settings.topic(name)} does not exist; run: decisioning topics create")
            return await ask(cluster)

    return asyncio.run(run())


def _print_json(said: Any) -> None:
    typer.echo(orjson.dumps(said, option=orjson.OPT_INDENT_2).decode())
