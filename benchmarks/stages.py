"""Where the worker's CPU goes: stacks that a sampling profiler saw, counted by stage."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

# A stack belongs to the stage of the innermost frame that one of these is found in; a frame is `name (file:line)`.
STAGES: Final = {
    "decode": r"decisioning/(events|reading|strict|partitioner|paths|fields|messages)\.py",
    "gather, fresh, fold": r"features/(rows|layout|signals|table)\.py|decisioning/signals\.py",
    "decide": r"decisioning/(decide|decision|eligibility|choice|content|expressions|localtime|view|unsubscribe)\.py"
    r"|bandits/|features/vector\.py|liquid",
    "people: profiles, timers": r"decisioning/",
    "post-images": r"features/codec\.py|streams/changelog\.py|Partition\._images",
    "transaction": r"aiokafka/producer/|streams/kafka\.py",
    "read from Redis": r"Partition\._load|View\.read",
    "apply to Redis": r"View\.apply",
    "fetch": r"aiokafka/consumer/|ServiceThread\.",
}
REST: Final = "Faust, asyncio and the rest"
# py-spy cannot always tell who waits from who works: these wait.
IDLE: Final = re.compile(r"(EpollSelector\.select|_watch) \([^;]*\)$|^thread \(\d+\): (web|watchdog)\b")

_stages = [(stage, re.compile(pattern)) for stage, pattern in STAGES.items()]


def stage_of(stack: str) -> str:
    """Stage of a stack, its frames from the outermost to the innermost with semicolons between."""
    for frame in reversed(stack.split(";")):
        for stage, pattern in _stages:
            if pattern.search(frame):
                return stage
    return REST


def shares(profile: str) -> dict[str, float]:
    """Share of the busy samples by stage, from lines of a stack and how often it was seen."""
    seen: Counter[str] = Counter()
    for line in profile.splitlines():
        stack, _, times = line.rpartition(" ")
        if not IDLE.search(stack):
            seen[stage_of(stack)] += int(times)
    return {stage: seen[stage] / max(1, seen.total()) for stage in (*STAGES, REST)}


def table(found: Mapping[str, tuple[str, float]]) -> list[str]:
    """µs CPU per event by stage as Markdown, from job -> (profile, µs CPU per event)."""
    columns = {job: (shares(profile), cost) for job, (profile, cost) in found.items()}
    lines = [f"| stage | {' | '.join(columns)} |", "|---" + "|--:" * len(columns) + "|"]
    for stage in (*STAGES, REST):
        cells = [f"{share[stage] * cost:.1f}" for share, cost in columns.values()]
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    return [*lines, f"| together | {' | '.join(f'{cost:.1f}' for _, cost in columns.values())} |"]
