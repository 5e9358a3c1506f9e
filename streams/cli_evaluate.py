"""`decisioning evaluate`: its flags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PolicyFlag = Annotated[
    list[str],
    typer.Option(
        "--policy",
        metavar="SPEC",
        help="uniform, arm:ID, thompson, squarecb:explore=0.1, … or JSON; several are compared.",
    ),
]


def evaluate(
    log: Annotated[
        Path,
        typer.Option("--log", metavar="FILE", help="Examples, a decision log (with --examples), or a CSV."),
    ],
    policy: PolicyFlag,
    examples: Annotated[
        Path | None, typer.Option("--examples", metavar="FILE", help="Rewards of the decisions of a decision log.")
    ] = None,
    campaign: Annotated[str | None, typer.Option("--campaign", metavar="ID", help="Only of this campaign.")] = None,
    choice: Annotated[
        str | None, typer.Option("--choice", metavar="NAME", help="Only this: subject, channel, …")
    ] = None,
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="For the gain: ips, snips or dr.")] = "dr",
    alpha: Annotated[float, typer.Option("--alpha", metavar="SHARE", help="How often an interval may miss.")] = 0.05,
    margin: Annotated[float, typer.Option("--margin", metavar="REWARD", help="Least gain worth a promotion.")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Draw the comparison.")] = None,
) -> None:
    """Say what another policy would have earned.

    From what was logged, off-policy: value, interval, effective rows, overlap, and the gain over the logged policy. A
    CSV has the columns arm, propensity, reward and perhaps context (JSON). Policies that learn are replayed over the
    log, block by block. Exit 1 where the log cannot answer.
    """
    from streams.evaluating import Asked
    from streams.evaluating import evaluate as run

    asked = Asked(log, policy, examples, campaign, choice, method, alpha, margin, as_json, png)
    raise typer.Exit(run(asked))
