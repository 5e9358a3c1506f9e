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
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from streams.failure import WRONG_USE, Failure

if TYPE_CHECKING:
    from decisioning.config import Config
    from streams.settings import Settings

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
copy_app = typer.Typer(
    help="Proposed texts: ask for them, and decide about them. Nothing unreviewed is ever sent.",
    epilog="Example: decisioning copy suggest --config campaigns.yaml --campaign cart-abandonment",
    invoke_without_command=True,
    rich_markup_mode=None,
)
app.add_typer(copy_app, name="copy")

ConfigFlag = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="The campaigns' YAML file.")]
KafkaFlag = Annotated[str | None, typer.Option("--kafka", metavar="HOST:PORT", help="Kafka's address.")]
RedisFlag = Annotated[str | None, typer.Option("--redis", metavar="URL", help="Redis's address.")]
PrefixFlag = Annotated[str | None, typer.Option("--topic-prefix", metavar="TEXT", help="Before every topic's name.")]


@app.callback()
@topics_app.callback()
@copy_app.callback()
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
) -> None:
    """Check a configuration file.

    Exit 0 if it can be used (warnings allowed), 1 if not.
    """
    from streams.checking import check_file

    raise typer.Exit(check_file(file, as_json=as_json))


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

    settings = _settings(kafka=kafka, topic_prefix=topic_prefix, partitions=partitions)
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
        _say(f"topic {', '.join(names)}: {detail}")
    raise typer.Exit(1 if wrong else 0)


@app.command(epilog="Example: decisioning worker --config campaigns.yaml --kafka localhost:9092")
def worker(
    config: ConfigFlag = None,
    kafka: KafkaFlag = None,
    redis: RedisFlag = None,
    group: Annotated[str | None, typer.Option("--group", metavar="TEXT", help="The consumer group.")] = None,
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
    settings = _settings(
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
    loaded = _config(settings.config)
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
    no_learn: Annotated[bool, typer.Option("--no-learn", help="Do not learn from outcomes on the way.")] = False,  # noqa: ARG001
) -> None:
    """Decide over a file of events.

    The same core as the worker's on a virtual clock, without Kafka or Redis: same input, same bytes.
    """
    from streams.backtesting import Outputs, backtest_file, parse_time

    until_ms = None if until is None else parse_time("--until", until)
    outputs = Outputs(decisions, log, examples)
    outputs.keep_apart(config, events)
    backtest_file(_config(config), events, until_ms, outputs)


@app.command(epilog="Example: decisioning explain --log log.jsonl 3f2a…")
def explain(
    decision_id: Annotated[str, typer.Argument(metavar="ID", help="The decision's id.")],
    log: Annotated[
        Path | None,
        typer.Option("--log", metavar="FILE", help="A decision log; default: the topic in Kafka."),
    ] = None,
    kafka: KafkaFlag = None,
    topic_prefix: PrefixFlag = None,
) -> None:
    """Say in words why a decision was made.

    It is recomputed from its log record; exit 1 if it is not found or comes out differently.
    """
    from streams.explaining import explain_decision

    settings = None if log else _settings(kafka=kafka, topic_prefix=topic_prefix)
    raise typer.Exit(explain_decision(decision_id, log, settings))


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

    settings = _settings(config=config, copy_url=copy_url, copy_model=copy_model)
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

    file = copywriting.open_file(_settings(config=config))
    raise typer.Exit(copywriting.review(file, campaign, approve or [], reject or [], by, note))


def _settings(**flags: Any) -> Settings:
    """Settings from flags and environment; variables that look like ours and are not are named."""
    from streams import settings

    for warning in settings.unknown(os.environ):
        _say(f"warning: {warning}")
    return settings.load(**flags)


def _config(path: Path) -> Config:
    from streams.checking import load_file

    return load_file(path)


def _say(line: str) -> None:
    typer.echo(f"decisioning: {line}", err=True)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command; whatever goes wrong is one line on stderr and an exit code, never a stack trace."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = app(arguments, prog_name="decisioning", standalone_mode=False)
        sys.stdout.flush()
    except Failure as failure:
        for line in str(failure).splitlines():
            _say(line)
        code = failure.exit_code
    except _UsageError as error:
        _say(f"{_one_line(error.format_message())}; see {_command(error)} --help")
        code = WRONG_USE
    except BrokenPipeError:
        # Whoever reads us has seen enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except KeyboardInterrupt:
        code = 130
    except Exception as error:  # noqa: BLE001 - the last resort of the program
        _say(_bug(error))
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
