"""Recorded stories: a configuration, events, and what must come out."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from decisioning import backtest
from decisioning.config import load

STORIES = sorted(path for path in (Path(__file__).parent / "data" / "stories").iterdir() if path.is_dir())


def run(story: Path, until: str) -> tuple[list[bytes], list[bytes]]:
    """Decisions and log of a story, as bytes."""
    config = load((story / "config.json").read_text())
    until_ms = int(datetime.fromisoformat(until).timestamp() * 1000)
    with (story / "events.jsonl").open("rb") as lines:
        steps = list(backtest.run(config, lines, until_ms))
    return [r.value for s in steps for r in s.decisions], [r.value for s in steps for r in s.log]


def check(expected: Any, found: Any, where: str) -> None:
    """Everything that is expected is there; more may be."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert key in found, f"{where}.{key} is missing"
            check(value, found[key], f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(expected) == len(found), f"{where}: {len(found)} instead of {len(expected)}"
        for index, (one, other) in enumerate(zip(expected, found, strict=True)):
            check(one, other, f"{where}[{index}]")
    else:
        assert expected == found, where


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_a_story_comes_out_as_recorded(story: Path) -> None:
    """What the story names is in the decisions and the log."""
    expected = json.loads((story / "expected.json").read_text())
    decisions, log = run(story, expected["until"])
    check(expected.get("decisions", []), [orjson.loads(value) for value in decisions], "decisions")
    if "log" in expected:
        check(expected["log"], [orjson.loads(value) for value in log], "log")


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_a_story_gives_the_same_bytes_twice(story: Path) -> None:
    """A backtest is deterministic to the byte."""
    until = json.loads((story / "expected.json").read_text())["until"]
    assert run(story, until) == run(story, until)
