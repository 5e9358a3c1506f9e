"""A picture that compares policies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bandits.evaluate import Estimate
from streams.checking import unreadable
from streams.failure import WRONG_USE, Failure

Line = tuple[str, Estimate, Estimate, Estimate | None]
WIDE_INCHES: Final = 9.0
ROW_INCHES: Final = 0.5
DPI: Final = 120
MAX_CHOICES: Final = 12
MAX_CHARACTERS: Final = 44


def draw(choices: Sequence[tuple[str, Sequence[Line]]], alpha: float, path: Path) -> None:
    """Write the values of policies with both intervals, a panel for each choice, as a PNG.

    Parameters
    ----------
    choices
        Choice -> (policy, always-valid and fixed estimate, gain), the logged policy first.
    alpha
        Of the intervals.

    Raises
    ------
    Failure
        The file cannot be written, or what draws is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra, and slow to import
        from matplotlib.figure import Figure  # noqa: PLC0415 - likewise
    except ImportError:
        raise Failure("--png needs matplotlib; pip install 'decisioning[demo]'", WRONG_USE) from None
    drawn = choices[:MAX_CHOICES]
    heights = [len(lines) + 1.6 for _, lines in drawn]
    figure = Figure(figsize=(WIDE_INCHES, 1.0 + ROW_INCHES * sum(heights)), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(drawn), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (choice, lines) in zip(panels, drawn, strict=True):
        _panel(axes, choice, lines)
    panels[-1].set_xlabel("reward per decision (green: surely better than what was logged, orange: surely worse)")
    figure.suptitle(
        f"What policies would have earned: {1.0 - alpha:.0%} intervals, always valid (thin), one look (thick)"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png")
    except OSError as error:
        raise unreadable(path, error) from None


def _panel(axes: object, choice: str, lines: Sequence[Line]) -> None:
    from matplotlib.axes import Axes  # noqa: PLC0415 - as above

    assert isinstance(axes, Axes)
    logged = lines[0][1].value
    axes.axvline(logged, color="tab:gray", linestyle=":", linewidth=1)
    for place, (_, always, fixed, gain) in enumerate(lines):
        color = "tab:gray" if gain is None else "tab:red" if always.refusal else _color(gain)
        axes.plot([always.low, always.high], [place, place], color=color, linewidth=1.2, marker="|", markersize=9)
        axes.plot([fixed.low, fixed.high], [place, place], color=color, linewidth=5, alpha=0.45, solid_capstyle="butt")
        axes.plot([always.value], [place], color=color, marker="o", markersize=6)
        if always.refusal:
            axes.annotate("the log cannot say", (always.value, place), (0, 8), textcoords="offset points", color=color)
    axes.set_yticks(range(len(lines)), [_label(*line[:2]) for line in lines])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xlim(*_limits(lines))
    axes.set_title(choice, loc="left", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _color(gain: Estimate) -> str:
    """Green and orange for what is surely better and surely worse than what was logged."""
    return "tab:green" if gain.low > 0.0 else "tab:orange" if gain.high < 0.0 else "tab:blue"


def _label(name: str, always: Estimate) -> str:
    short = name if len(name) <= MAX_CHARACTERS else name[: MAX_CHARACTERS - 1] + "…"
    short = short.replace("$", r"\$")  # or it would begin a formula
    return f"{short}\nworth {always.effective_sample_size:,.0f} rows"


def _limits(lines: Sequence[Line]) -> tuple[float, float]:
    """What a refused estimate knows nothing of does not squeeze the rest."""
    sure = [line for line in lines if not line[1].refusal] or lines
    low, high = min(line[1].low for line in sure), max(line[1].high for line in sure)
    low, high = min([low, *(line[1].value for line in lines)]), max([high, *(line[1].value for line in lines)])
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room
