"""`decisioning copy`: texts are proposed, and a person decides about them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streams.flags import ConfigFlag, settings_of

copy_app = typer.Typer(
    help="Proposed texts: ask for them, and decide about them. Nothing unreviewed is ever sent.",
    epilog="Example: decisioning copy suggest --config campaigns.yaml --campaign cart-abandonment",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@copy_app.command(epilog="Example: decisioning copy suggest --config campaigns.yaml --campaign cart-abandonment")
def suggest(
    campaign: Annotated[str, typer.Option("--campaign", metavar="ID", help="The campaign to write for.")],
    config: ConfigFlag = None,
    slot: Annotated[str, typer.Option("--slot", metavar="NAME", help="Which of its slots.")] = "subject",
    count: Annotated[int, typer.Option("--count", min=1, max=50, help="How many drafts at most.")] = 5,
    brief: Annotated[str, typer.Option("--brief", metavar="TEXT", help="What to say; its promises may be made.")] = "",
    generator: Annotated[
        str, typer.Option("--generator", metavar="NAME", help="grammar (offline) or http (OpenAI-compatible).")
    ] = "grammar",
    grammar: Annotated[Path | None, typer.Option("--grammar", metavar="FILE", help="Own rules, as YAML.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the grammar: same seed, same texts.")] = 1,
    copy_url: Annotated[str | None, typer.Option("--copy-url", metavar="URL", help="Base URL of the server.")] = None,
    copy_model: Annotated[str | None, typer.Option("--copy-model", metavar="NAME", help="The model to ask.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, max=600, help="Seconds to wait for it.")] = 60.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the drafts, do not write them.")] = False,
) -> None:
    """Add drafts to the file for a person to review.

    What breaks a guardrail, is profane, deceives or promises what nobody promised is refused and shown. The server's
    key is DECISIONING_COPY_KEY. Exit 1 if nothing was left.
    """
    from streams import copywriting

    settings = settings_of(config=config, copy_url=copy_url, copy_model=copy_model)
    made = copywriting.generator_of(generator, settings, grammar, seed, timeout)
    file = copywriting.open_file(settings)
    raise typer.Exit(copywriting.suggest(file, made, campaign, slot, count, brief, dry_run=dry_run))


@copy_app.command(epilog="Example: decisioning copy review --config campaigns.yaml --approve grammar-3f2a91c0 --by ann")
def review(
    config: ConfigFlag = None,
    campaign: Annotated[str | None, typer.Option("--campaign", metavar="ID", help="Only of this campaign.")] = None,
    approve: Annotated[list[str] | None, typer.Option("--approve", metavar="ID", help="A draft to be sent.")] = None,
    reject: Annotated[
        list[str] | None, typer.Option("--reject", metavar="ID", help="A draft never to be sent.")
    ] = None,
    by: Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who decides; goes into the file.")] = None,
    note: Annotated[str | None, typer.Option("--note", metavar="TEXT", help="Why; goes into the file.")] = None,
) -> None:
    """List the drafts, or approve and reject some.

    Who, when and on which words is recorded in the file. An id may be written campaign/slot/id. All or nothing: exit 1
    if one of them cannot be found or be sent.
    """
    from streams import copywriting

    file = copywriting.open_file(settings_of(config=config))
    raise typer.Exit(copywriting.review(file, campaign, approve or [], reject or [], by, note))
