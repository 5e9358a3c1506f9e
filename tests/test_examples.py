"""The example campaigns do what docs/campaigns.md says of them.

`python -m tests.test_examples` writes its tables anew.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from decisioning import backtest
from decisioning.check import check
from decisioning.config import load
from decisioning.describe import describe
from decisioning.explain import explain
from decisioning.report import Report
from decisioning.wording import reason_in_words
from tests.services import ROOT

DOCUMENT = ROOT / "docs" / "campaigns.md"
EXAMPLES = sorted(path for path in (ROOT / "docs" / "examples").iterdir() if path.is_dir())
UNTIL_MS = int(datetime(2026, 7, 1, tzinfo=UTC).timestamp() * 1000)


def played(example: Path) -> list[dict[str, Any]]:
    """The decision log of an example."""
    config = load((example / "campaign.yaml").read_text())
    with (example / "events.jsonl").open("rb") as lines:
        steps = list(backtest.run(config, lines, UNTIL_MS))
    assert not [letter for step in steps for letter in step.dead_letters]
    return [orjson.loads(record.value) for step in steps for record in step.log]


def table(example: Path) -> str:
    """What was decided, as a table."""
    rows = ["| when | who | campaign | what |", "|---|---|---|---|"]
    for record in played(example):
        if record["action"] == "send":
            waited = ", after quiet hours" if record["reasons"] else ""
            what = f"sent, subject `{record['variants']['subject']}`{waited}"
        else:
            what = f"not sent: {reason_in_words(record['reasons'][0])} (`{record['reasons'][0]}`)"
        when = f"{record['decided_at'][:10]} {record['decided_at'][11:16]}"
        rows.append(f"| {when} | {record['user_id'].title()} | {record['campaign']} | {what} |")
    return "\n".join(rows)


def with_tables(text: str) -> str:
    """The document with every table between its markers written anew."""
    for example in EXAMPLES:
        begin, end = f"<!-- {example.name}: begin -->\n", f"<!-- {example.name}: end -->"
        before, _, rest = text.partition(begin)
        assert rest, f"{DOCUMENT.name} does not show {example.name}"
        text = f"{before}{begin}{table(example)}\n{end}{rest.partition(end)[2]}"
    return text


def test_the_document_says_what_the_backtests_decide() -> None:
    """Every example is in it, with what comes out."""
    assert DOCUMENT.read_text() == with_tables(DOCUMENT.read_text()), "run python -m tests.test_examples"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_quoted_word_for_word(example: Path) -> None:
    """Its campaigns stand in the document as they are in the file."""
    text = (example / "campaign.yaml").read_text()
    assert f"```yaml\n{text[text.index('campaigns:') :]}```" in DOCUMENT.read_text()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_sound(example: Path) -> None:
    """Neither error nor oddity; each decision is recomputed; it can be described and reported."""
    text = (example / "campaign.yaml").read_text()
    assert check(text, example.name) == []
    config, log = load(text), played(example)
    assert {record["campaign"] for record in log} == {campaign.id for campaign in config.campaigns}
    assert {record["action"] for record in log} == {"send", "suppress"}
    assert [explain(record, config).differences for record in log] == [()] * len(log)
    assert log == played(example)
    assert len(describe(config)) == 1 + len(config.campaigns)
    report = Report(config)
    report.add(log)
    assert "<svg" in report.page("campaign.yaml", "events.jsonl", 1)


def test_the_follow_up_never_repeats_a_subject() -> None:
    """Whoever is written to twice is asked differently."""
    (example,) = (path for path in EXAMPLES if path.name == "follow-up")
    subjects: dict[str, list[str]] = {}
    for record in played(example):
        if record["action"] == "send":
            subjects.setdefault(record["user_id"], []).append(record["variants"]["subject"])
    assert sorted(len(sent) for sent in subjects.values()) == [1, 1, 2, 2]
    assert all(len(set(sent)) == len(sent) for sent in subjects.values())


if __name__ == "__main__":
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text()))
