"""The commands `pause` and `resume`: a campaign's kill switch, and the record of who used it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import typer

from decisioning import broadcast
from decisioning.effects import Switch
from streams.control import Session, carried_out, checked_words, now, record_id
from streams.failure import WRONG_USE, Failure
from streams.tables import settings_told

if TYPE_CHECKING:
    from decisioning.config import Config
    from streams.settings import Settings

ID_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody wants of a campaign, and why."""

    campaign: str
    paused: bool
    by: str
    reason: str


def switch(settings: Settings, config: Config | None, wanted: Wanted) -> None:
    """Pause or resume a campaign, and say so; where it is so already, only say so.

    Parameters
    ----------
    config
        Where the campaign has to be in; None: nobody checks its id.

    Raises
    ------
    Failure
        There is no such campaign, or Kafka does not answer.
    """
    _check(config, wanted)
    before = carried_out(settings, ("control", "decision-log"), lambda session: _switched(session, wanted))
    word = "paused" if wanted.paused else "running"
    if (before is not None) == wanted.paused:
        since = f" since {before.at}, by {before.by}" if before is not None else ""
        typer.echo(f"{wanted.campaign}: {word} already{since}")
    else:
        typer.echo(f"{wanted.campaign}: {word}")


def _check(config: Config | None, wanted: Wanted) -> None:
    if not wanted.campaign or len(wanted.campaign) > ID_CHARACTERS or not wanted.campaign.isprintable():
        raise Failure(f"{wanted.campaign!r} cannot be a campaign's id; name one of the configuration", WRONG_USE)
    checked_words(by=wanted.by, reason=wanted.reason)
    if config is None:
        hint = "with --config FILE its id would be checked"
        typer.echo(
            f"decisioning: warning: whether there is a campaign {wanted.campaign!r} is not known; {hint}", err=True
        )
        return
    known = [campaign.id for campaign in config.campaigns]
    if wanted.paused and wanted.campaign not in known:  # one that is gone may still be resumed
        raise Failure(f"there is no campaign {wanted.campaign!r}; choose one of {', '.join(known)}", WRONG_USE)


async def _switched(session: Session, wanted: Wanted) -> Switch | None:
    """Change it where it is not so yet; returns who had paused it before."""
    before = (await settings_told(session.cluster)).paused.get(wanted.campaign)
    if (before is not None) != wanted.paused:
        said = Switch(paused=wanted.paused, at=now(), by=wanted.by, reason=wanted.reason)
        number = record_id(wanted.campaign, said.paused, said.at, said.by)
        action = "pause" if wanted.paused else "resume"
        audited = broadcast.audited(number, wanted.campaign, action, said)
        await session.publish([("control", broadcast.switch_record(wanted.campaign, said)), ("decision-log", audited)])
    return before
