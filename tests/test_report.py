"""`backtest --report`: one page, self-contained, that says what the log says."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from decisioning.charts import Bar, bars, columns
from decisioning.config import load
from decisioning.effects import DeadLetter
from decisioning.report import MAX_COLUMNS, Report
from tests.play import config, identify, play, track
from tests.test_engine_laws import Line

SHOP = Path(__file__).parent / "golden" / "shop"
SETUP = config(
    timezone="Asia/Tokyo",
    quiet_hours={"from": "21:00", "to": "08:00"},
    caps=[{"name": "few", "channel": "any", "max": 1, "per": "1h"}],
    campaign={"trigger": {"delay": "0s"}},
)


class Page(HTMLParser):
    """Text, tags and open elements of a page."""

    EMPTY = ("meta", "!doctype")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def reported(events: list[dict[str, Any]], until: str = "+1d 12:00", name: str = "shop.yaml") -> str:
    """The page of a story."""
    report = Report(SETUP)
    report.add(play(events, until=until, setup=SETUP).log)
    return report.page(name, "events.jsonl", len(events))


STORY = [
    track("10:00", "t1"),  # 19:00 in Tokyo
    track("10:30", "t2"),  # the cap is full
    track("13:00", "t3"),  # quiet hours: waits until 08:00
    track("13:00", "t4", user="nobody"),  # no address
]


def test_the_page_says_what_the_log_says() -> None:
    """Totals, campaigns, channels, days, hours in the configuration's zone, and reasons."""
    text = " ".join(Page(reported(STORY)).text)
    assert "4" in re.findall(r"decisions\s+(\d+)", text)
    assert re.search(r"sent\s+2\s+not sent\s+2\s+held out\s+0\s+people written to\s+1\s+unreadable\s+0", text)
    assert "19: 1" in text
    assert "08: 1" in text
    assert "03-02: 1" in text
    assert "03-03: 1" in text
    assert "the frequency cap 'few' has no room: 1" in text
    assert "there is no address to send to: 1" in text
    assert "1 of those sent waited for the end of quiet hours." in text
    assert "Sent by hour of the day, Asia/Tokyo" in text


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    """Tags close, drawings are XML, no script runs and nothing is loaded; it has colours for light and dark."""
    made = reported(STORY)
    page = Page(made)
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "base"}
    assert not [at for _, attrs in page.tags for at in attrs if at in {"src", "href", "style"} or at.startswith("on")]
    assert "url(" not in made
    assert "@import" not in made
    assert "http" not in made
    drawings = re.findall(r"<svg.*?</svg>", made, re.DOTALL)
    assert len(drawings) == 5
    for drawing in drawings:
        root = ET.fromstring(drawing)
        assert root.get("role") == "img"
        assert root.findtext("title")
    assert "prefers-color-scheme:dark" in made


def test_whatever_was_written_elsewhere_is_text_here() -> None:
    """Names of files, and reasons of dead letters."""
    report = Report(SETUP)
    report.add([], [DeadLetter(Line(b""), "<b>bad</b>", "")])
    made = report.page("<script>alert(1)</script>.yaml", "a&b.jsonl", 0)
    assert "<script>" not in made
    assert "<b>" not in made
    assert "&lt;script&gt;" in made
    assert "a&amp;b.jsonl" in made


def test_the_same_records_give_the_same_page() -> None:
    """To the byte, also where reasons are equally frequent."""
    assert reported(STORY) == reported(STORY)


def test_a_backtest_without_decisions_has_a_page_too() -> None:
    """Every campaign of the file is on it, with zeros."""
    text = " ".join(Page(reported([])).text)
    assert "nothing was decided" in text
    assert "cart" in text
    assert "Sent by day" not in text


def test_the_recorded_hour_of_a_shop() -> None:
    """Held out, erased and unreadable are counted; a transactional campaign stands beside the other."""
    report = Report(load((SHOP / "config.yaml").read_text()))
    erased = identify("10:00", "e") | {"type": "delete"}
    report.add(play([erased], setup=report.config).log, [DeadLetter(Line(b"x"), "not_json", "")])
    text = " ".join(Page(report.page("shop", "hour", 1)).text)
    assert "1 people were erased." in text
    assert "Records that are no events: not_json 1." in text
    assert "order-thanks" in text


@pytest.mark.parametrize("days", [1, 2, MAX_COLUMNS, MAX_COLUMNS + 1, 400])
def test_the_days_always_fit(days: int) -> None:
    """Over a long time a column stands for several days, and none is lost."""
    report = Report(config())
    for day in range(days):
        at = datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(days=day)
        record = {
            "decided_at": at.isoformat(), "campaign": "cart", "action": "send", "channel": "email", "user_id": "u",
            "reasons": [],
        }  # fmt: skip
        report.add([record])
    shown = report._over_days()
    assert len(shown) <= MAX_COLUMNS
    assert sum(count for _, count in shown) == days
    assert shown[0][0] == "01-01"


def test_bars_are_to_scale() -> None:
    """The longest fills the room, the others in proportion, parts beside each other."""
    rows = [Bar("a", (("send", "sent", 30), ("suppress", "not sent", 10))), Bar("b", (("send", "sent", 20),))]
    widths = [float(width) for width in re.findall(r'<rect[^>]* width="([0-9.]+)"', bars("t", rows))]
    assert widths == [pytest.approx(part * 460 / 40 - 1) for part in (30, 10, 20)]
    assert "40</text>" in bars("t", rows)


def test_columns_are_to_scale_and_stay_inside() -> None:
    """The highest is named; all tops are within the drawing."""
    drawn = columns("t", [("x", 0), ("y", 50), ("z", 25)])
    heights = [float(height) for height in re.findall(r'<rect[^>]* height="([0-9.]+)"', drawn)]
    assert heights == [0, pytest.approx(114), pytest.approx(57)]
    assert ">50</text>" in drawn
    assert ">25</text>" not in drawn
