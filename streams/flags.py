"""What the commands share: flags, settings from flags and environment, one line on stderr."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from decisioning.config import Config
    from streams.settings import Settings

ConfigFlag = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="The campaigns' YAML file.")]
KafkaFlag = Annotated[str | None, typer.Option("--kafka", metavar="HOST:PORT", help="Kafka's address.")]
RedisFlag = Annotated[str | None, typer.Option("--redis", metavar="URL", help="Redis's address.")]
GroupFlag = Annotated[str | None, typer.Option("--group", metavar="TEXT", help="The consumer group.")]
UserArgument = Annotated[
    str, typer.Argument(metavar="USER", help="Any id of the person; after -- if it begins with -.")
]
ByFlag = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who wants it; default: the user here.")]
ReasonFlag = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the log.")]
PrefixFlag = Annotated[str | None, typer.Option("--topic-prefix", metavar="TEXT", help="Before every topic's name.")]


def settings_of(**flags: Any) -> Settings:
    """Settings from flags and environment; variables that look like ours and are not are named."""
    from streams import settings

    for warning in settings.unknown(os.environ):
        say(f"warning: {warning}")
    return settings.load(**flags)


def config_of(path: Path) -> Config:
    """The configuration in a file; raises `Failure` if it cannot be used."""
    from streams.checking import load_file

    return load_file(path)


def say(line: str) -> None:
    """Tell whoever sits at the terminal, beside what is printed."""
    typer.echo(f"decisioning: {line}", err=True)
