"""A picture of the demo's run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from streams.checking import unreadable
from streams.demo_audience import CHANCES, MOST_LIFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INCHES: Final = (9.0, 10.0)
DPI: Final = 120
PROMISE_MS: Final = 1000.0
LEAST_MS: Final = 10.0
MOST_MS: Final = 5000.0


@dataclass(frozen=True, slots=True)
class Point:
    """The run at one time; delays and subjects are those of just before, None where nothing was sent."""

    at_s: float
    events_per_s: float
    decided: int
    sent: int
    timers: int
    p50_ms: float | None
    p99_ms: float | None
    best_share: float | None = None
    lift: float | None = None


def draw(points: Sequence[Point], path: Path) -> None:
    """Write events/s, decisions/s, timers, delays and what was learned over time as a PNG.

    Raises
    ------
    Failure
        The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra, and slow to import
    from matplotlib.figure import Figure  # noqa: PLC0415 - likewise

    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    traffic, decided, waiting, delay, best, gain = figure.subplots(6, 1, sharex=True)
    at_s = [point.at_s for point in points]
    traffic.plot(at_s, [point.events_per_s for point in points], color="tab:blue")
    traffic.set_ylabel("events/s")
    rates = _rates(at_s, [point.decided for point in points]), _rates(at_s, [point.sent for point in points])
    decided.plot(at_s, rates[0], color="tab:gray", label="all")
    decided.plot(at_s, rates[1], color="tab:green", label="sent")
    decided.set_ylabel("decisions/s")
    decided.legend(loc="upper left", frameon=False)
    waiting.plot(at_s, [point.timers for point in points], color="tab:purple")
    waiting.set_ylabel("timers pending")
    seen = [point for point in points if point.p50_ms is not None and point.p99_ms is not None]
    delay.plot([point.at_s for point in seen], [point.p50_ms for point in seen], color="tab:green", label="p50")
    delay.plot([point.at_s for point in seen], [point.p99_ms for point in seen], color="tab:red", label="p99")
    delay.axhline(PROMISE_MS, color="black", linestyle=":", linewidth=1, label="promised: 1 s")
    # The limits first: a logarithmic axis that has nothing on it finds none of its own.
    delay.set_ylim(bottom=LEAST_MS, top=max([MOST_MS, *(2 * point.p99_ms for point in seen if point.p99_ms)]))
    delay.set_yscale("log")
    delay.yaxis.set_major_formatter("{x:,.0f}")
    delay.set_ylabel("delay, ms")
    delay.legend(loc="lower left", frameon=False, ncols=3)
    _learning(best, gain, points)
    gain.set_xlabel("seconds")
    for axes in (traffic, decided, waiting):
        axes.set_ylim(bottom=0)
    for axes in (traffic, decided, waiting, delay, best, gain):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("decisioning demo: one worker, embedded Kafka and Redis")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise unreadable(path, error) from None


def _learning(best: Axes, gain: Axes, points: Sequence[Point]) -> None:
    """The share of the best subject, and what it brings."""
    seen = [point for point in points if point.best_share is not None and point.lift is not None]
    at_s = [point.at_s for point in seen]
    best.plot(at_s, [100 * (point.best_share or 0.0) for point in seen], color="tab:green")
    best.axhline(100 / len(CHANCES), color="black", linestyle=":", linewidth=1, label="an even split")
    best.set_ylim(0, 100)
    best.set_ylabel("best subject, %")
    best.legend(loc="lower right", frameon=False)
    gain.plot(at_s, [100 * (point.lift or 0.0) for point in seen], color="tab:orange")
    gain.axhline(100 * MOST_LIFT, color="black", linestyle=":", linewidth=1, label="the best subject alone")
    gain.set_ylabel("lift, %")
    gain.legend(loc="lower right", frameon=False)


def _rates(at_s: Sequence[float], totals: Sequence[int]) -> list[float]:
    """Differences per second of a running total, as long as the total; smoothed over about two seconds."""
    span = 4
    rates = []
    for place, total in enumerate(totals):
        first = max(0, place - span)
        passed_s = at_s[place] - at_s[first]
        rates.append((total - totals[first]) / passed_s if passed_s > 0 else 0.0)
    return rates
