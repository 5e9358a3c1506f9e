"""The command line.

Each command imports what it needs when it runs, so that `--help` and `backtest` start at once.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from streams.cli_copy import copy_app
from streams.cli_evaluate import evaluate
from streams.cli_lift import lift
from streams.cli_models import models_app
from streams.failure import WRONG_USE, Failure
from streams.flags import (
    ByFlag,
    ConfigFlag,
    GroupFlag,
    KafkaFlag,
    PrefixFlag,
    ReasonFlag,
    RedisFlag,
    UserArgument,
    config_of,
    say,
    settings_of,
)

# Every wrong use of a flag or argument is one of these, whichever click is inside typer.
_UsageError: type[Any] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="decisioning",
    help="Decide in real time what to send to whom: events in, exactly one decision out per trigger.",
    epilog="Example: decisioning demo --seconds 30. Settings: DECISIONING_* variables; flags override them.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
topics_app = typer.Typer(
    help="Kafka's topics.",
    epilog="Example: decisioning topics create --kafka localhost:9092 --partitions 8",
    invoke_without_command=True,
    rich_markup_mode=None,
)
app.add_typer(topics_app, name="topics")
app.add_typer(copy_app, name="copy")
app.add_typer(models_app, name="models")
app.command(epilog="Example: decisioning evaluate --log examples.jsonl --policy uniform --policy thompson")(evaluate)
app.command(epilog="Example: decisioning lift --config campaigns.yaml --log log.jsonl --events events.jsonl")(lift)


@app.callback()
@topics_app.callback()
@copy_app.callback()
@models_app.callback()
def _no_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(WRONG_USE)


@app.command(epilog="Example: decisioning version")
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    typer.echo(installed("decisioning"))


@app.command(epilog="Example: decisioning check campaigns.yaml")
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The campaigns' YAML file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say in plain sentences what it means.")] = False,
) -> None:
    """Check a configuration file.

    Exit 0 if it can be used (warnings allowed), 1 if not.
    """
    from streams.checking import check_file

    raise typer.Exit(check_file(file, as_json=as_json, explained=explain))


@app.command(epilog="Example: decisioning schema decisions > decisions.schema.json")
def schema(
    what: Annotated[
        str,
        typer.Argument(metavar="WHAT", help="events, decisions, decision-log, examples, config or asyncapi."),
    ],
) -> None:
    """Print a JSON Schema or AsyncAPI.

    The schema of one topic's records or of the configuration, or the AsyncAPI document of all topics.
    """
    import orjson

    from decisioning import schemas

    try:
        document = schemas.schema(what)
    except KeyError:
        known = ", ".join(schemas.NAMES)
        raise Failure(f"there is no schema {what!r}; choose one of {known}", WRONG_USE) from None
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


@topics_app.command(epilog="Example: decisioning topics create --kafka localhost:9092 --partitions 8")
def create(
    kafka: KafkaFlag = None,
    topic_prefix: PrefixFlag = None,
    partitions: Annotated[
        str | None,
        typer.Option("--partitions", metavar="N", help="How many partitions `events` has."),
    ] = None,
    replication_factor: Annotated[
        int | None, typer.Option(min=1, max=100, metavar="N", help="Copies of each; default: the broker's.")
    ] = None,
) -> None:
    """Create the missing topics.

    Those that are there are verified and never changed; exit 1 if one is not as it has to be.
    """
    import asyncio
    import logging

    from streams import topics

    settings = settings_of(kafka=kafka, topic_prefix=topic_prefix, partitions=partitions)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it repeats what our one line says
    outcomes = asyncio.run(topics.create(settings, replication_factor))
    width = max(len(outcome.topic) for outcome in outcomes)
    for outcome in outcomes:
        if outcome.state != "wrong":
            done = "created" if outcome.state == "created" else "exists"
            typer.echo(f"{done:<8}{outcome.topic:<{width}}  {outcome.detail}")
    wrong: dict[str, list[str]] = {}  # most often all of them are wrong in the same way
    for outcome in outcomes:
        if outcome.state == "wrong":
            wrong.setdefault(outcome.detail, []).append(outcome.topic)
    for detail, names in wrong.items():
        say(f"topic {', '.join(names)}: {detail}")
    raise typer.Exit(1 if wrong else 0)


@app.command(epilog="Example: decisioning worker --config campaigns.yaml --kafka localhost:9092")
def worker(
    config: ConfigFlag = None,
    kafka: KafkaFlag = None,
    redis: RedisFlag = None,
    group: GroupFlag = None,
    topic_prefix: PrefixFlag = None,
    delivery: Annotated[
        str | None, typer.Option("--delivery", metavar="MODE", help="exactly_once or at_least_once.")
    ] = None,
    web_host: Annotated[str | None, typer.Option("--web-host", metavar="HOST", help="Where to listen.")] = None,
    web_port: Annotated[
        str | None,
        typer.Option("--web-port", metavar="PORT", help="Of /livez /readyz /metrics; 0: a free one."),
    ] = None,
) -> None:
    """Consume events, decide, publish.

    Runs until SIGTERM or Ctrl-C.
    """
    settings = settings_of(
        config=config,
        kafka=kafka,
        redis=redis,
        group=group,
        topic_prefix=topic_prefix,
        delivery=delivery,
        web_host=web_host,
        web_port=web_port,
    )
    if settings.config is None:
        raise Failure("no configuration; give --config FILE or set DECISIONING_CONFIG", WRONG_USE)
    loaded = config_of(settings.config)
    from streams import logs
    from streams.worker import run

    logs.configure()
    raise typer.Exit(run(settings, loaded))


@app.command(epilog="Example: decisioning backtest --config campaigns.yaml --events events.jsonl --log log.jsonl")
def backtest(
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="The campaigns' YAML file.")],
    events: Annotated[Path, typer.Option("--events", metavar="FILE", help="Events, one a line; - is stdin.")],
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="TIME", help="Fire timers due up to then; default: last arrival."),
    ] = None,
    decisions: Annotated[Path | None, typer.Option(metavar="FILE", help="Where decisions go; - is stdout.")] = None,
    log: Annotated[Path | None, typer.Option(metavar="FILE", help="Where the decision log goes.")] = None,
    examples: Annotated[Path | None, typer.Option(metavar="FILE", help="Where training examples go.")] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Where a page of charts (HTML) goes.")] = None,
    models: Annotated[Path | None, typer.Option(metavar="FILE", help="Where what was learned goes.")] = None,
    no_learn: Annotated[bool, typer.Option("--no-learn", help="Do not learn from outcomes on the way.")] = False,
) -> None:
    """Decide over a file of events.

    The same core as the worker's on a virtual clock, without Kafka or Redis: same input, same bytes.
    """
    from streams.backtesting import Outputs, backtest_file, parse_time

    until_ms = None if until is None else parse_time("--until", until)
    outputs = Outputs(decisions, log, examples, report, models)
    outputs.keep_apart(config, events)
    backtest_file(config_of(config), config.name, events, until_ms, outputs, learns=not no_learn)


@app.command(epilog="Example: decisioning explain --log log.jsonl 3f2a…")
def explain(
    decision_id: Annotated[str, typer.Argument(metavar="ID", help="The decision's id.")],
    log: Annotated[
        Path | None,
        typer.Option("--log", metavar="FILE", help="A decision log; default: the topic in Kafka."),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Also the whole record and every draw, for an audit.")] = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="What it was made with: recomputes the holdout too."),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option("--models", metavar="FILE", help="What was learned: recomputes probabilities too."),
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option("--examples", metavar="FILE", help="All examples, to learn again what --models no longer has."),
    ] = None,
    kafka: KafkaFlag = None,
    topic_prefix: PrefixFlag = None,
) -> None:
    """Say in words why a decision was made.

    It is recomputed from its log record; exit 1 if it is not found or comes out differently.
    """
    from streams.explaining import explain_decision
    from streams.recalling import recall_of

    settings = None if log else settings_of(kafka=kafka, topic_prefix=topic_prefix)
    loaded = None if config is None else config_of(config)
    recall = recall_of(models, examples)
    raise typer.Exit(explain_decision(decision_id, log, settings, loaded, recall, full=full))


@app.command(epilog="Example: decisioning erase u-17 --kafka localhost:9092")
def erase(
    user: UserArgument,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the proof, and print it.")] = True,
    timeout: Annotated[float, typer.Option(min=1, max=86_400, metavar="SECONDS", help="How long.")] = 60.0,
    kafka: KafkaFlag = None,
    topic_prefix: PrefixFlag = None,
) -> None:
    """Have a person forgotten.

    Under all their ids; the proof, a record of decision-log, goes to stdout. Exit 1 if none appears in time.
    """
    from streams.erasing import erase_person

    settings = settings_of(kafka=kafka, topic_prefix=topic_prefix)
    raise typer.Exit(erase_person(user, settings, timeout, say, wait=wait))


@app.command(epilog="Example: decisioning export u-17 > u-17.json")
def export(
    user: UserArgument,
    kafka: KafkaFlag = None,
    redis: RedisFlag = None,
    group: GroupFlag = None,
    topic_prefix: PrefixFlag = None,
) -> None:
    """Print everything held about a person.

    As JSON; reads only. Exit 1 if nothing is held.
    """
    from streams.exporting import export_person

    settings = settings_of(kafka=kafka, redis=redis, group=group, topic_prefix=topic_prefix)
    raise typer.Exit(export_person(user, settings, say))


@app.command(epilog="Example: decisioning pseudonym u-17")
def pseudonym(user: UserArgument) -> None:
    """Print what stands for a person in examples.

    A line for each key of DECISIONING_PSEUDONYM_KEY, the one in use first.
    """
    from streams.erasing import print_pseudonyms

    raise typer.Exit(print_pseudonyms(user, settings_of()))


CampaignArgument = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="Its id in the configuration.")]


@app.command(epilog="Example: decisioning pause cart-abandonment --reason 'wrong price' --kafka localhost:9092")
def pause(
    campaign: CampaignArgument,
    by: ByFlag = None,
    reason: ReasonFlag = "",
    config: ConfigFlag = None,
    kafka: KafkaFlag = None,
    topic_prefix: PrefixFlag = None,
) -> None:
    """Let a campaign decide nothing until it is resumed.

    What is pending waits. Who did it, when and why is in the decision log.
    """
    _switch(campaign, by, reason, paused=True, config=config, kafka=kafka, topic_prefix=topic_prefix)


@app.command(epilog="Example: decisioning resume cart-abandonment --kafka localhost:9092")
def resume(
    campaign: CampaignArgument,
    by: ByFlag = None,
    reason: ReasonFlag = "",
    config: ConfigFlag = None,
    kafka: KafkaFlag = None,
    topic_prefix: PrefixFlag = None,
) -> None:
    """Let a paused campaign go on.

    What waited is checked again and decided now; what came too late has expired.
    """
    _switch(campaign, by, reason, paused=False, config=config, kafka=kafka, topic_prefix=topic_prefix)


@app.command(epilog="Example: decisioning simulate --people 500 --rate 50 --seconds 600 > events.jsonl")
def simulate(
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 1,
    people: Annotated[int, typer.Option(min=1, max=10_000_000, help="How many there are.")] = 1000,
    rate: Annotated[float, typer.Option(min=0.001, max=1e6, help="Events a second.")] = 20.0,
    seconds: Annotated[float, typer.Option(min=0.001, max=1e8, help="Length of the traffic.")] = 600.0,
    odd: Annotated[float, typer.Option(min=0, max=0.5, help="Share of duplicate, late and broken records.")] = 0.0,
    start: Annotated[str, typer.Option(metavar="TIME", help="When it begins.")] = "2026-01-01T09:00:00Z",
) -> None:
    """Write a made-up shop's events.

    To stdout, one a line, in the order of arrival.
    """
    from decisioning.simulate import events
    from streams.backtesting import parse_time

    start_ms = parse_time("--start", start)
    end_ms = start_ms + seconds * 1000
    for record in events(seed, people, rate, start_ms, odd_share=odd):
        if record.at_ms >= end_ms:
            break
        sys.stdout.buffer.write(record.value + b"\n")


@app.command(epilog="Example: decisioning demo --seconds 30")
def demo(
    seconds: Annotated[float, typer.Option(min=5, max=86_400, help="How long the shop is open.")] = 60.0,
    rate: Annotated[float, typer.Option(min=10, max=20_000, help="Events a second.")] = 2000.0,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the chart goes.")] = Path("out"),
) -> None:
    """Show it at work, no services needed.

    Embedded Kafka and Redis, a simulated shop, a live table, and at the end a summary and a chart.
    """
    from streams.demo import run

    raise typer.Exit(run(seconds, rate, out))


def _switch(campaign: str, by: str | None, reason: str, *, paused: bool, **flags: Any) -> None:
    import getpass

    from streams.switching import Wanted, switch

    settings = settings_of(**flags)
    loaded = config_of(settings.config) if settings.config is not None else None
    switch(settings, loaded, Wanted(campaign, paused, by or getpass.getuser(), reason))


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command; whatever goes wrong is one line on stderr and an exit code, never a stack trace."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = app(arguments, prog_name="decisioning", standalone_mode=False)
        sys.stdout.flush()
    except Failure as failure:
        for line in str(failure).splitlines():
            say(line)
        code = failure.exit_code
    except _UsageError as error:
        say(f"{_one_line(error.format_message())}; see {_command(error)} --help")
        code = WRONG_USE
    except BrokenPipeError:
        # Whoever reads us has seen enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except KeyboardInterrupt:
        code = 130
    except Exception as error:  # noqa: BLE001 - the last resort of the program
        say(_bug(error))
        code = 1
    sys.exit(code or 0)


def _one_line(message: str) -> str:
    return " ".join(message.split()).rstrip(".")


def _command(error: Any) -> str:
    return error.ctx.command_path if error.ctx is not None else "decisioning"


def _bug(error: Exception) -> str:
    """Keep the trace for the report and give the line to print."""
    with tempfile.NamedTemporaryFile("w", prefix="decisioning-", suffix=".trace", delete=False) as trace:
        traceback.print_exception(error, file=trace)
    return f"internal error: {type(error).__name__}: {_one_line(str(error))}; please report it with {trace.name}"
