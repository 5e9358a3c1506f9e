"""A picture of regret over time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.worlds import POINTS, Floats

COLOURS: Final = {"ours": "tab:orange", "River": "tab:blue", "MABWiser": "tab:green", "Vowpal Wabbit": "tab:purple"}
DASHES: Final = ("-", "--", ":", "-.")


def draw(found: Mapping[str, Mapping[str, Floats]], path: Path) -> None:
    """Write mean cumulative regret by stream as a PNG, with the 95 % interval of the first of ours shaded.

    Parameters
    ----------
    found
        stream -> player -> float64[seeds, points].
    path
        Where to.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - slow to import
    from matplotlib.figure import Figure  # noqa: PLC0415 - likewise

    rows = -(-len(found) // 3)
    figure = Figure(figsize=(13, 1.2 + 3.3 * rows), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, 3, squeeze=False).ravel()
    at = (np.arange(POINTS) + 1.0) / POINTS * 100.0
    handles = {}
    for axes, (title, players) in zip(panels, found.items(), strict=False):
        used: dict[str, int] = {}
        for name, curves in players.items():
            maker = next((maker for maker in COLOURS if name.startswith(maker)), "")
            style = DASHES[used.get(maker, 0) % len(DASHES)]
            used[maker] = used.get(maker, 0) + 1
            mean = curves.mean(axis=0)
            if name == "uniform":
                continue  # would hide all others
            (handles[name],) = axes.plot(
                at, mean, style, color=COLOURS.get(maker, "tab:gray"), lw=2.4 if name == next(iter(players)) else 1.2
            )
            if name == next(iter(players)) and len(curves) > 1:
                half = 1.96 * curves.std(axis=0, ddof=1) / np.sqrt(len(curves))
                axes.fill_between(at, mean - half, mean + half, color=COLOURS["ours"], alpha=0.2, lw=0)
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(0, 100)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("% of the stream", fontsize=8)
    for axes in panels[len(found) :]:
        axes.set_axis_off()
    figure.suptitle("Cumulative regret: less is better", fontsize=12)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, fontsize=9, frameon=False)
    figure.savefig(path)
