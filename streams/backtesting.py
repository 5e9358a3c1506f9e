"""The command `backtest`: files in, files out, around the pure core."""

from __future__ import annotations

import datetime as dt
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import orjson
import typer

from decisioning import backtest
from decisioning.cohorts import Cohorts, has_holdout
from decisioning.effects import DeadLetter, Effects, Outgoing
from decisioning.learning import Learning
from decisioning.lift import Comparison, compare
from decisioning.plan import plans_of
from decisioning.propensities import labels_of
from decisioning.report import Report
from streams.checking import unreadable
from streams.failure import WRONG_USE, Failure

if TYPE_CHECKING:
    from decisioning.config import Config

STANDARD: Final = Path("-")
STDIN: Final = Path("/dev/stdin")  # under this name it is told from other files
SHOWN_DEAD_LETTERS: Final = 5
PROGRESS_BYTES: Final = 4 << 20  # a smaller file is done before a bar could be read
REDRAWN_BYTES: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where the records go; None: nowhere, `-`: to stdout."""

    decisions: Path | None = None
    log: Path | None = None
    examples: Path | None = None
    report: Path | None = None
    models: Path | None = None

    def keep_apart(self, config: Path, events: Path) -> None:
        """See that writing one file destroys neither what is read nor another output; nothing is opened.

        Raises
        ------
        Failure
            An output is also an input or another output, by whatever name.
        """
        taken = {"--config": config, "--events": STDIN if events == STANDARD else events}
        named = (
            ("--decisions", self.decisions),
            ("--log", self.log),
            ("--examples", self.examples),
            ("--report", self.report),
            ("--models", self.models),
        )
        for flag, path in named:
            if path is None or path == STANDARD:
                continue
            for other, used in taken.items():
                if _is_same(path, used):
                    raise Failure(f"{flag} {path}: this is the file of {other}; write to another one", WRONG_USE)
            taken[flag] = path


def parse_time(flag: str, text: str) -> int:
    """Read an RFC 3339 time as milliseconds since the epoch.

    Raises
    ------
    Failure
        It is none, or lacks the offset from UTC.
    """
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        remedy = f"try {flag} 2026-11-24T09:30:00Z"
        raise Failure(f"{flag} {text}: expected a time with its offset from UTC; {remedy}", WRONG_USE)
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return (at - epoch) // dt.timedelta(milliseconds=1)


def backtest_file(
    config: Config, name: str, events: Path, until_ms: int | None, outputs: Outputs, *, learns: bool
) -> None:
    """Play a file through the engine, write what comes out and say how much it was.

    Parameters
    ----------
    name
        What to call the configuration in a report.
    learns
        Whether each decision knows the outcomes of those before it.

    Raises
    ------
    Failure
        A file cannot be read or written.
    """
    actions: Counter[str] = Counter()
    report = Report(config)
    cohorts = Cohorts(config) if outputs.report is not None and has_holdout(config) else None
    learning = Learning(plans_of(config), labels_of(config)) if learns else None
    letters: list[DeadLetter] = []
    counted: Counter[str] = Counter()
    held: list[bytes] = []
    with ExitStack() as files:
        lines = files.enter_context(reading(events))
        if cohorts is not None and events == STANDARD:
            lines = held = list(lines)  # standard input cannot be read again
        sinks = {
            output: files.enter_context(_writing(path))
            for output in ("decisions", "log", "examples")
            if (path := getattr(outputs, output)) is not None
        }
        page = files.enter_context(_writing(outputs.report)) if outputs.report is not None else None
        models = files.enter_context(_writing(outputs.models)) if outputs.models is not None else None
        for effects in backtest.run(config, lines, until_ms, learning=learning):
            for output, sink in sinks.items():
                _write(sink, getattr(effects, output))
            decided = [orjson.loads(record.value) for record in effects.log]
            actions.update(record["action"] for record in decided)
            report.add(decided, effects.dead_letters)
            if cohorts is not None:
                for record in decided:
                    cohorts.decide(record)
            letters.extend(effects.dead_letters[: SHOWN_DEAD_LETTERS - len(letters)])
            counted.update(_totals(effects))
        if page is not None:
            lifts = _lifts(cohorts, events, held)
            page.write(report.page(name, events.name, counted["events"], lifts).encode())
        if models is not None and learning is not None:
            models.writelines(snapshot + b"\n" for _, snapshot in sorted(learning.snapshots().items()))
    for letter in letters:
        typer.echo(f"{events}: event {letter.record.offset + 1}: {letter.reason}: {letter.message}", err=True)
    # What was asked for on stdout stays alone there.
    on_stdout = STANDARD in (outputs.decisions, outputs.log, outputs.examples, outputs.report, outputs.models)
    typer.echo(_summary(actions, counted), err=on_stdout)


def _lifts(cohorts: Cohorts | None, events: Path, held: list[bytes]) -> list[Comparison]:
    """Treatment against holdout, from the decisions that were made and the events, read once more."""
    if cohorts is None:
        return []
    if held:
        cohorts.read(held)
    else:
        with reading(events) as lines:
            cohorts.read(lines)
    return [compare(cohort) for cohort in cohorts.cohorts()]


def _is_same(path: Path, other: Path) -> bool:
    """Whether two names mean one file, links followed; what is no file, such as /dev/null, can be shared."""
    try:
        if path.exists():
            return path.is_file() and path.samefile(other)
        return path.resolve() == other.resolve()
    except (OSError, RuntimeError):  # the other is not there, or a link leads to itself: opening it will tell
        return False


def _totals(effects: Effects) -> dict[str, int]:
    events = sum(int(count) for (name, *_), count in effects.counts.items() if name == "events_total")
    return {"events": events, "dead letters": len(effects.dead_letters)}


def _summary(actions: Counter[str], counted: Counter[str]) -> str:
    by_action = ", ".join(f"{count:,} {action}" for action, count in sorted(actions.items()))
    decided = f"{actions.total():,} decisions" + (f" ({by_action})" if by_action else "")
    return f"{counted['events']:,} events, {decided}, {counted['dead letters']:,} dead letters"


def _write(sink: BinaryIO, records: Iterable[Outgoing]) -> None:
    sink.writelines(record.value + b"\n" for record in records)


@contextmanager
def _writing(path: Path) -> Iterator[BinaryIO]:
    if path == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with path.open("wb") as file:
            yield file
    except OSError as error:
        raise unreadable(path, error) from None


@contextmanager
def reading(path: Path, command: str = "backtest") -> Iterator[Iterable[bytes]]:
    """Lines of the file; with a progress bar if it is long and somebody watches."""
    if path == STANDARD:
        yield sys.stdin.buffer
        return
    try:
        with path.open("rb") as file:
            size_bytes = path.stat().st_size
            if size_bytes > PROGRESS_BYTES and sys.stderr.isatty():
                yield _with_progress(file, size_bytes, command)
            else:
                yield file
    except OSError as error:
        raise unreadable(path, error) from None


def _with_progress(file: BinaryIO, size_bytes: int, command: str) -> Iterator[bytes]:
    from rich.console import Console  # noqa: PLC0415 - only where there is a terminal to draw on
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn(command), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(command, total=size_bytes)
        read_bytes = 0
        for line in file:
            read_bytes += len(line)
            if read_bytes >= REDRAWN_BYTES:
                progress.advance(task, read_bytes)
                read_bytes = 0
            yield line
