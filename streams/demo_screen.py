"""What the demo shows: a live table on a terminal, plain lines elsewhere, and the summary at the end."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import orjson
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from decisioning.explain import explain
from streams.demo_audience import BEST, CHANCES, MOST_LIFT, WINDOW, lift, share
from streams.demo_traffic import Gauges, Tally

PLAIN_EVERY_S: Final = 5.0
ACTIONS: Final = ("send", "suppress", "holdout")
COLOURS: Final = {"send": "green", "suppress": "yellow", "holdout": "cyan"}
SPECIMENS: Final = 3


@dataclass(frozen=True, slots=True)
class Moment:
    """All figures of one moment of the run; `None` where nothing was seen yet."""

    elapsed_s: float
    total_s: float
    address: str
    events_per_s: float
    gauges: Gauges
    tally: Tally


class Screen(Protocol):
    """Where moments are shown."""

    def show(self, moment: Moment) -> None:
        """Show it, if it is time to."""


@contextmanager
def screen(console: Console) -> Iterator[Screen]:
    """A live table if somebody watches, else lines."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield _Table(live)


class _Table:
    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, moment: Moment) -> None:
        self._live.update(_dashboard(moment), refresh=True)


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_s = PLAIN_EVERY_S

    def show(self, moment: Moment) -> None:
        if moment.elapsed_s < self._next_s:
            return
        self._next_s += PLAIN_EVERY_S
        by_action = _by_action(moment.tally)
        self._console.print(
            f"{moment.elapsed_s:4.0f} s  {moment.events_per_s:,.0f} events/s, lag {moment.gauges.lag:,}, "
            f"{moment.gauges.timers:,} timers pending, {by_action['send']:,} sent, "
            f"{by_action['suppress']:,} suppressed, {by_action['holdout']:,} held out, "
            f"delay p50 {_ms(moment.tally.recent_ms(50))} p99 {_ms(moment.tally.recent_ms(99))}, "
            f"best subject {_percent(share(moment.tally.mix.latest))}, lift {_percent(lift(moment.tally.mix.latest))}",
            highlight=False,
            soft_wrap=True,
        )


def _dashboard(moment: Moment) -> RenderableType:
    return Group(
        Text.assemble(("decisioning demo", "bold"), f"  metrics at {moment.address}/metrics"),
        _progress(moment),
        Padding(_figures(moment), (1, 0, 0, 0)),
        Padding(_campaigns(moment.tally), (1, 0, 0, 0)),
        Padding(_learned(moment.tally), (1, 0, 0, 0)),
        Text("Ctrl-C ends it with the summary", style="dim"),
    )


def _progress(moment: Moment) -> RenderableType:
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(ratio=1)
    row.add_column(no_wrap=True)
    done_s = min(moment.elapsed_s, moment.total_s)
    row.add_row(ProgressBar(total=moment.total_s, completed=done_s), f"{done_s:.0f} of {moment.total_s:.0f} s")
    return row


def _figures(moment: Moment) -> RenderableType:
    table = Table.grid(padding=(0, 3))
    heads = ("events/s", "lag", "timers pending", "delay p50", "delay p99")
    for _ in heads:
        table.add_column(justify="right", no_wrap=True)
    table.add_row(*heads, style="dim")
    table.add_row(
        f"{moment.events_per_s:,.0f}",
        f"{moment.gauges.lag:,}",
        f"{moment.gauges.timers:,}",
        _ms(moment.tally.recent_ms(50)),
        _ms(moment.tally.recent_ms(99)),
        style="bold",
    )
    return table


def _campaigns(tally: Tally) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    table.add_column("campaign", no_wrap=True)
    for action in ACTIONS:
        table.add_column(action, justify="right", style=COLOURS[action], no_wrap=True)
    table.add_column("why not, most often", overflow="ellipsis", no_wrap=True, ratio=1)
    actions, reasons = dict(tally.actions), dict(tally.reasons)
    for campaign in sorted({campaign for campaign, _ in actions}):
        counts = [f"{actions.get((campaign, action), 0):,}" for action in ACTIONS]
        own = sorted(((count, reason) for (name, reason), count in reasons.items() if name == campaign), reverse=True)
        table.add_row(campaign, *counts, ", ".join(f"{reason} {count:,}" for count, reason in own[:3]))
    return table


def _learned(tally: Tally) -> RenderableType:
    """How often the best subject is sent by now, and what that brings."""
    latest = tally.mix.latest
    row = Table.grid(padding=(0, 2))
    for _ in range(4):
        row.add_column(no_wrap=True)
    bar = ProgressBar(total=1.0, completed=share(latest) or 0.0, width=16, complete_style="green")
    row.add_row(f"best subject '{BEST}'", bar, f"{_percent(share(latest)):>4} of the last {WINDOW}", _gain(latest))
    return row


def _gain(subjects: list[str]) -> str:
    return f"lift {_percent(lift(subjects))} of {_percent(MOST_LIFT)}"


def summary(console: Console, moment: Moment, published: int) -> None:
    """Print how the run went, with some decisions in words."""
    tally, gauges = moment.tally, moment.gauges
    by_action = _by_action(tally)
    _paragraph(
        console,
        f"{moment.elapsed_s:.0f} s: {published:,} records published, {gauges.events:,} events taken in, "
        f"{gauges.duplicates:,} duplicates dropped, {gauges.dead_letters:,} dead letters; "
        f"the worker used {1e6 * gauges.cpu_s / max(1, gauges.events):.0f} µs CPU per event.",
    )
    _paragraph(
        console,
        f"{sum(by_action.values()):,} decisions: {by_action['send']:,} sent, {by_action['suppress']:,} suppressed, "
        f"{by_action['holdout']:,} held out. From the time to fire to published: "
        f"p50 {_ms(tally.overall_ms(50))}, p99 {_ms(tally.overall_ms(99))}.",
    )
    _paragraph(console, _lesson(tally))
    console.print()
    console.print(_campaigns(tally))
    for number, specimen in enumerate(_specimens(tally), 1):
        headline, *details, _provenance = explain(orjson.loads(specimen)).sentences
        _paragraph(console, f"{number}. {headline}", style="bold")
        for sentence in details:
            _lines(console, sentence, indent="   ")


def _lesson(tally: Tally) -> str:
    """What was learned, in words."""
    first, latest = tally.mix.first, tally.mix.latest
    if len(latest) < WINDOW:
        return f"Too little was sent to show learning: {len(latest)} messages with a choice of subjects."
    return (
        f"Learning: of the first {WINDOW} messages {_percent(share(first))} had the subject that works best, '{BEST}'; "
        f"of the last {WINDOW} {_percent(share(latest))}. So {_percent(lift(latest))} more of their readers click than "
        f"with an even split of the {len(CHANCES)} subjects; with '{BEST}' alone it would be {_percent(MOST_LIFT)}."
    )


def _percent(part: float | None) -> str:
    return "-" if part is None else f"{part:.0%}"


def _paragraph(console: Console, text: str, style: str = "") -> None:
    console.print()
    _lines(console, text, style=style)


def _lines(console: Console, text: str, indent: str = "", style: str = "") -> None:
    """Wrap here: rich would fill the lines with blanks, which are in the way wherever the text is pasted."""
    for line in textwrap.wrap(text, console.width - 1, initial_indent=indent, subsequent_indent=indent):
        console.print(Text(line, style))


def _specimens(tally: Tally) -> list[bytes]:
    """A decision to send, one not to, one held out; else whatever there is, one of each reason."""
    kinds = dict(tally.specimens)
    order = sorted(kinds, key=lambda kind: (kind[0] != "send", kind[1] != "cancelled", kind[0] == "suppress", kind))
    chosen = [next((kind for kind in order if kind[0] == action), None) for action in ACTIONS]
    rest = [kind for kind in order if kind not in chosen]
    return [kinds[kind] for kind in [*filter(None, chosen), *rest][:SPECIMENS]]


def _by_action(tally: Tally) -> dict[str, int]:
    actions = dict(tally.actions)
    return {wanted: sum(n for (_, action), n in actions.items() if action == wanted) for wanted in ACTIONS}


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} ms"
