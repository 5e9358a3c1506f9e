"""Whether a line of the log is one of those that may come of its trigger."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from decisioning.localtime import iso
from tests.simulated_work import Expected


def unexpected(line: dict[str, Any], expected: Expected) -> Iterator[str]:
    """What a line says that may not come of its trigger."""
    outcome = "send" if line["action"] == "send" else line["reasons"][0]
    by_channel = {reason for reasons in line["channel_reasons"].values() for reason in reasons}
    if outcome not in expected.outcomes and expected.outcomes.isdisjoint(by_channel):
        yield f"{outcome}, expected {sorted(expected.outcomes)}"
    if outcome != "cancelled" and line["due_at"] not in {iso(due_ms) for due_ms in expected.due_ms}:
        yield f"due {line['due_at']}, expected {[iso(ms) for ms in expected.due_ms]}"
    if outcome == "send" and line["decided_at"] < line["due_at"]:
        yield f"due {line['due_at']}, decided {line['decided_at']}"
