"""Charts as inline SVG: bars of parts, columns and bands over time. Colours are the page's, by class."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from bandits.lift import Interval

WIDTH = 720  # of the drawing's own units; the page scales it
_LABEL, _NUMBER, _ROW, _BAR = 190, 70, 26, 16
_HEIGHT, _AXIS, _ABOVE = 150, 20, 16
_GAP = 2
_MOST_CHARACTERS = 28
_HALF = 17  # of a label's width
_LABELS = 12  # under columns; more would touch
_MOST_BAND = 2.0  # times as wide as the last interval may an earlier one be drawn
_LINE = 13  # height of a text


@dataclass(frozen=True, slots=True)
class Bar:
    """One row: what it is about, and its parts as (class, name, number)."""

    label: str
    parts: tuple[tuple[str, str, int], ...]

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(number for *_, number in self.parts)


def bars(title: str, rows: Sequence[Bar]) -> str:
    """Horizontal bars to a common scale, each with its total; `title` is for those who cannot see them."""
    most = max([1, *(row.total for row in rows)])
    scale = (WIDTH - _LABEL - _NUMBER) / most
    drawn = [_bar(row, number * _ROW, scale) for number, row in enumerate(rows)]
    return _svg(title, len(rows) * _ROW, drawn)


def columns(title: str, values: Sequence[tuple[str, int]]) -> str:
    """Columns from left to right, labelled as often as there is room; the highest has its number above it."""
    most = max([1, *(value for _, value in values)])
    step = WIDTH / max(1, len(values))
    room = _HEIGHT - _AXIS - _ABOVE
    every = -(-len(values) // _LABELS)
    highest = max(range(len(values)), key=lambda place: values[place][1], default=0)
    drawn = [f'<line class="axis" x1="0" x2="{WIDTH}" y1="{_HEIGHT - _AXIS}" y2="{_HEIGHT - _AXIS}"/>']
    for place, (label, value) in enumerate(values):
        left, middle, tall = place * step, (place + 0.5) * step, room * value / most
        top = _HEIGHT - _AXIS - tall
        name = f"<title>{escape(label)}: {value:,}</title>"
        drawn.append(
            f'<rect class="send" x="{left + _GAP / 2:.1f}" y="{top:.1f}" width="{max(1.0, step - _GAP):.1f}" '
            f'height="{tall:.1f}" rx="2">{name}</rect>'
        )
        if place == highest and value:
            drawn.append(f'<text class="number" x="{middle:.1f}" y="{top - 4:.1f}" {_anchor(middle)}>{value:,}</text>')
        if place % every == 0:
            drawn.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 5}" {_anchor(middle)}>{escape(label)}</text>')
    return _svg(title, _HEIGHT, drawn)


def band(title: str, points: Sequence[tuple[str, Interval]], unit: Callable[[float], str]) -> str:
    """Intervals from left to right around a line at 0, labelled as often as there is room; the last is in numbers.

    Early intervals can be many times as wide as the last one: what is off the drawing is cut.
    """
    _, last = points[-1]
    most = _MOST_BAND * max(abs(last.low), abs(last.high), 1e-12)
    room = _HEIGHT - _AXIS - 2 * _ABOVE
    step = (WIDTH - _NUMBER) / max(1, len(points) - 1)

    def place(index: int, value: float) -> str:
        cut = max(-most, min(most, value))
        return f"{index * step:.1f},{_ABOVE + room * (most - cut) / (2 * most):.1f}"

    upper = [place(index, interval.high) for index, (_, interval) in enumerate(points)]
    lower = [place(index, interval.low) for index, (_, interval) in enumerate(points)]
    middle = [place(index, interval.mid) for index, (_, interval) in enumerate(points) if math.isfinite(interval.mid)]
    drawn = [
        f'<polygon class="send" opacity="0.25" points="{" ".join([*upper, *reversed(lower)])}"/>',
        f'<polyline class="middle" points="{" ".join(middle)}"/>',
        f'<line class="axis" x1="0" x2="{WIDTH - _NUMBER}" y1="{_ABOVE + room / 2:.1f}" y2="{_ABOVE + room / 2:.1f}"/>',
    ]
    tops = _apart([float(place(0, value).split(",")[1]) for value in (last.high, last.mid, last.low)])
    for value, top in zip((last.high, last.mid, last.low), tops, strict=True):
        drawn.append(f'<text class="number" x="{WIDTH - _NUMBER + 6}" y="{top + 4:.1f}">{escape(unit(value))}</text>')
    every = -(-len(points) // (_LABELS - 2))
    for index, (label, _) in enumerate(points):
        if index % every == 0:
            drawn.append(
                f'<text x="{index * step:.1f}" y="{_HEIGHT - 5}" {_anchor(index * step)}>{escape(label)}</text>'
            )
    return _svg(title, _HEIGHT, drawn)


def _apart(tops: list[float]) -> list[float]:
    """Three heights from top to bottom, the outer ones moved where the texts would touch."""
    first, middle, last = tops
    return [min(first, middle - _LINE), middle, max(last, middle + _LINE)]


def _anchor(middle: float) -> str:
    """Where a text stands, so that it does not leave the drawing on either side."""
    where = "start" if middle < _HALF else "end" if middle > WIDTH - _HALF else "middle"
    return f'text-anchor="{where}"'


def _bar(row: Bar, top: float, scale: float) -> str:
    middle = top + _ROW / 2
    short = row.label if len(row.label) <= _MOST_CHARACTERS else row.label[: _MOST_CHARACTERS - 1] + "…"
    name = f"<title>{escape(row.label)}</title>"
    said = [f'<text x="{_LABEL - 10}" y="{middle + 4}" text-anchor="end">{escape(short)}{name}</text>']
    left = float(_LABEL)
    for kind, what, number in row.parts:
        if number:
            wide = number * scale
            said.append(
                f'<rect class="{kind}" x="{left:.1f}" y="{top + (_ROW - _BAR) / 2}" width="{max(1.0, wide - 1):.1f}" '
                f'height="{_BAR}" rx="2"><title>{escape(what)}: {number:,}</title></rect>'
            )
            left += wide
    said.append(f'<text class="number" x="{left + 6:.1f}" y="{middle + 4}">{row.total:,}</text>')
    return "".join(said)


def _svg(title: str, height: float, drawn: Sequence[str]) -> str:
    name = f"<title>{escape(title)}</title>"
    return f'<svg role="img" viewBox="0 0 {WIDTH} {height}">{name}{"".join(drawn)}</svg>'
