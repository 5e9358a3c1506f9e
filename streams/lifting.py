"""The command `lift`: treatment against holdout, from files, as a table, JSON or a picture."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from bandits.lift import ALPHA
from bandits.lift_fold import LiftFold, Trial
from decisioning.backtest import BYTE_ORDER_MARK
from decisioning.cohorts import Cohorts
from decisioning.lift import COLUMNS, TITLES, Comparison, Measured, amount, cells, compare
from decisioning.lift import Group as Mean
from streams.backtesting import reading
from streams.checking import unreadable
from streams.failure import NO, WRONG_USE, Failure

if TYPE_CHECKING:
    from decisioning.config import Config

INCHES: Final = (4.8, 2.6)  # of one panel
DPI: Final = 110
MAX_PANELS: Final = 24
CUT: Final = 2.0  # times as wide as the last interval may an earlier one be drawn
BAR: Final = "#2f6fd0"


def from_log(config: Config, log: Path, events: Path, days: int) -> list[Comparison]:
    """Compare every campaign that has a holdout, by intention to treat.

    Raises
    ------
    Failure
        A file cannot be read, or a line of the log is no decision.
    """
    cohorts = Cohorts(config, days)
    with reading(log, "lift") as lines:
        _each(log, lines, cohorts.decide)
    with reading(events, "lift") as lines:
        cohorts.read(lines)
    return [compare(cohort) for cohort in cohorts.cohorts()]


def from_examples(examples: Path) -> list[Comparison]:
    """Compare what the live metric compares: the `holdout` choices of a file of examples.

    Raises
    ------
    Failure
        The file cannot be read, or a line is no example.
    """
    fold = LiftFold()

    def take(record: Mapping[str, Any]) -> None:
        reason = fold.take(record)
        if reason is not None:
            raise ValueError(reason)

    with reading(examples, "lift") as lines:
        _each(examples, lines, take)
    found = ((name, fold.trial(name)) for name in fold.campaigns())
    return [_live(name, trial) for name, trial in found if trial is not None]


def show(found: Sequence[Comparison], campaign: str | None, *, as_json: bool, png: Path | None) -> None:
    """Print what was found, and draw it where asked to.

    Raises
    ------
    Failure
        There is no such campaign, nothing can be said or it is not to be trusted, or the picture cannot be written.
    """
    chosen = [one for one in found if campaign in (None, one.name)]
    if not chosen:
        known = ", ".join(one.name for one in found)
        if campaign is not None and known:
            raise Failure(f"campaign {campaign!r} has no holdout here; there is one for {known}", NO)
        raise Failure("no campaign has a holdout with a share between 0 and 1; add one to the configuration", NO)
    if as_json:
        document = {"alpha": ALPHA, "campaigns": [_as_json(one) for one in chosen]}
        sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    else:
        _print(chosen)
    if png is not None:
        draw(chosen, png)
    doubtful = [one for one in chosen if one.mismatched or one.contradicted]
    if doubtful:
        raise Failure(f"{doubtful[0].name}: {doubtful[0].warnings()[-1]}", NO)
    if not any(one.answers for one in chosen):
        why = "; ".join(f"{one.name}: {one.measured[0].why_not}" for one in chosen)
        raise Failure(f"nothing can be said yet: {why}", NO)


def draw(found: Sequence[Comparison], path: Path) -> None:
    """Write the differences over time as a PNG, a panel for each campaign and metric.

    Raises
    ------
    Failure
        Nothing can be drawn, or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra, and slow to import
        from matplotlib.figure import Figure  # noqa: PLC0415 - likewise
    except ImportError:
        raise Failure("--png needs matplotlib; install decisioning[demo]", NO) from None
    drawn = [(one.name, each) for one in found for each in one.measured if len(each.path) > 1][:MAX_PANELS]
    if not drawn:
        raise Failure(f"{path}: there is nothing to draw over time yet", NO)
    rows = -(-len(drawn) // 2)
    figure = Figure(figsize=(2 * INCHES[0], INCHES[1] * rows + 0.5), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes in panels[len(drawn) :]:
        axes.set_axis_off()
    for (name, each), axes in zip(drawn, panels, strict=False):
        _panel(axes, f"{name}: {TITLES[each.metric]}", each)
    figure.suptitle("Treatment - holdout, 95 % confidence sequence: holds at all times at once")
    try:
        figure.savefig(path)
    except OSError as error:
        raise unreadable(path, error) from None


def _panel(axes: Any, title: str, each: Measured) -> None:
    import numpy as np  # noqa: PLC0415 - as above
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415 - as above

    times = np.array([at_ms for at_ms, _ in each.path], "datetime64[ms]")
    low, mid, high = (np.array([getattr(at, name) for _, at in each.path]) for name in ("low", "mid", "high"))
    last = each.path[-1][1]
    most = CUT * max(abs(last.low), abs(last.high)) if np.isfinite([last.low, last.high]).all() else 1.0
    axes.fill_between(times, np.clip(low, -most, most), np.clip(high, -most, most), color=BAR, alpha=0.25, linewidth=0)
    axes.plot(times, mid, color=BAR)
    axes.axhline(0.0, color="black", linewidth=1)
    axes.set_ylim(-most, most)
    locator = AutoDateLocator(maxticks=6)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.yaxis.set_major_formatter(lambda value, _: amount(each.metric, value, signed=True))
    axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _print(found: Sequence[Comparison]) -> None:
    from rich.table import Table  # noqa: PLC0415 - takes a moment

    from streams.plain import plain_console  # noqa: PLC0415 - likewise

    console = plain_console()
    for one in found:
        table = Table(title=f"{one.name}\n{' '.join(one.warnings())}", title_justify="left", title_style="")
        for place, name in enumerate(COLUMNS):
            table.add_column(name, justify="left" if place in {0, len(COLUMNS) - 1} else "right")
        for each in one.measured:
            table.add_row(*cells(each))
        console.print(table)
    console.print("Intervals hold with 95 % at all times together: look as often as you like.")


def _as_json(one: Comparison) -> dict[str, Any]:
    return {
        "campaign": one.name,
        "share": one.share,
        "people": {"treatment": one.treated, "holdout": one.held},
        "mismatch": one.mismatched,
        "contradicted": one.contradicted,
        "metrics": {
            each.metric: {
                "treatment": asdict(each.treated),
                "holdout": asdict(each.held),
                "waiting": each.waiting,
                "difference": asdict(each.lift.difference),
                "relative": asdict(each.lift.relative),
                "adjusted": each.lift.adjusted,
                "why_not": each.why_not or None,
            }
            for each in one.measured
        },
    }


def _live(name: str, trial: Trial) -> Comparison:
    treated, held = (Mean(group.count.people, group.count.rate) for group in trial.groups)
    why_not = "" if treated.people and held.people else "nobody of one of the groups yet"
    measured = Measured("conversion", treated, held, 0, trial.lift(), (), why_not)
    people = [group.people for group in trial.groups]
    return Comparison(name, trial.share, people[0], people[1], trial.is_mismatched(), False, (measured,))


def _each(path: Path, lines: Iterable[bytes], take: Callable[[Mapping[str, Any]], None]) -> None:
    for number, record in _records(path, lines):
        try:
            take(record)
        except KeyError as error:
            raise Failure(f"{path}: line {number} lacks {error}; is it the right file?", WRONG_USE) from None
        except (TypeError, ValueError, AttributeError) as error:
            raise Failure(f"{path}: line {number}: {error}; is it the right file?", WRONG_USE) from None


def _records(path: Path, lines: Iterable[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = orjson.loads(line if number > 1 else line.removeprefix(BYTE_ORDER_MARK))
        except orjson.JSONDecodeError:
            record = None
        if not isinstance(record, dict):
            raise Failure(f"{path}: line {number} is no JSON object; is it the right file?", WRONG_USE)
        yield number, record
