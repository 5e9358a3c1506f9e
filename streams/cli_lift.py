"""`decisioning lift`: what treatment does against holdout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streams.failure import WRONG_USE, Failure
from streams.flags import config_of


def lift(
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="The campaigns' YAML file the log was made with.")
    ] = None,
    log: Annotated[Path | None, typer.Option("--log", metavar="FILE", help="A decision log; - is stdin.")] = None,
    events: Annotated[
        Path | None, typer.Option("--events", metavar="FILE", help="The events before, during and after it.")
    ] = None,
    examples: Annotated[
        Path | None, typer.Option("--examples", metavar="FILE", help="Instead: examples, as the live metric sees them.")
    ] = None,
    campaign: Annotated[str | None, typer.Option("--campaign", metavar="ID", help="Only this one.")] = None,
    days: Annotated[int, typer.Option(min=1, max=365, help="For retention and unsubscriptions.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Draw it over time.")] = None,
) -> None:
    """Compare treatment with holdout.

    By campaign and per person from the first eligible trigger on, with intervals that hold however often one looks.
    Exit 1 if nothing can be said, or what can be said is not to be trusted.
    """
    from streams import lifting

    if examples is not None:
        if config or log or events or png:
            raise Failure("--examples stands alone; leave out --config, --log, --events and --png", WRONG_USE)
        found = lifting.from_examples(examples)
    else:
        if config is None or log is None or events is None:
            raise Failure("give --config, --log and --events, or --examples alone", WRONG_USE)
        found = lifting.from_log(config_of(config), log, events, days)
    lifting.show(found, campaign, as_json=as_json, png=png)
