"""What the documents say is true: links lead somewhere, snippets run, tables say what the code says.

`python -m tests.test_readme` writes the tables anew.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from streams.metrics import Metrics
from streams.settings import PREFIX, Settings
from tests.services import ROOT
from tests.test_architecture import sources

README = ROOT / "README.md"
OPERATIONS = ROOT / "docs" / "operations.md"
PRIVACY = ROOT / "docs" / "privacy.md"
CAMPAIGNS = ROOT / "docs" / "campaigns.md"
DOCUMENTS = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
BIN = Path(sys.executable).parent
# Commands that need no server: their snippets are run. Of the others, name and flags are checked.
OFFLINE = {"backtest", "check", "explain", "schema", "simulate", "version"}


def snippets(language: str, path: Path = README) -> list[str]:
    """Fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every `decisioning` command line in the documents' snippets, as words."""
    lines = [
        line
        for path in (README, OPERATIONS, PRIVACY, CAMPAIGNS)
        for block in snippets("sh", path)
        for line in block.splitlines()
    ]
    return [shlex.split(line) for line in lines if line.startswith("decisioning ")]


def anchors(path: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def settings_table() -> str:
    """All settings as a table."""
    rows = ["| variable | default | a value is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = f"`{field.default}`" if field.default not in {None, ""} else ""
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


def metrics_table() -> str:
    """All metrics of ours as a table."""
    rows = ["| metric | what |", "|---|---|"]
    for family in Metrics().registry.collect():
        if family.name.startswith("decisioning_"):
            suffix = "_total" if family.type == "counter" else ""
            rows.append(f"| `{family.name}{suffix}` | {family.documentation} |")
    return "\n".join(rows)


TABLES = {"settings": settings_table, "metrics": metrics_table}


def with_tables(text: str) -> str:
    """The text with every table between its markers written anew."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: begin -->\n", f"\n<!-- {name}: end -->"
        before, _, rest = text.partition(begin)
        text = before + begin + table() + end + rest.partition(end.lstrip("\n"))[2]
    return text


def test_tables_say_what_the_code_says() -> None:
    """The settings and metrics in docs/operations.md are those of the code."""
    assert OPERATIONS.read_text() == with_tables(OPERATIONS.read_text()), "run python -m tests.test_readme"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """Each relative link names a file, and a heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), f"{path.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{path.name} links to {target}"


def test_reading_order_names_every_module() -> None:
    """No module is left out of the README, so that whoever adds one says where it is to be read."""
    named = set(re.findall(r"\b(\w+\.py)\b", README.read_text()))
    modules = {path.name for path in sources("bandits", "decisioning", "features", "streams")}
    assert {name for name in modules if not name.startswith("__")} - named == set()


def test_the_two_commands_are_what_ci_runs() -> None:
    """The README begins with two make targets, and CI calls the one that tests."""
    first = snippets("sh")[0].splitlines()
    targets = [line.split()[:2] for line in first]
    assert targets == [["make", "demo"], ["make", "test"]]
    assert re.search(r"^exec make test\b", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}: .*## ", makefile, re.MULTILINE) for _, target in targets)


def test_the_main_path_is_quoted_word_for_word() -> None:
    """The Python in the README is the code."""
    code = (ROOT / "decisioning" / "engine.py").read_text()
    blocks = snippets("python")
    assert blocks
    assert all(block in code for block in blocks)


def test_offline_snippets_run(tmp_path: Path) -> None:
    """The commands that need no server do what the README shows, Ann is written to, and no file is left behind."""
    blocks = [block for block in snippets("sh") if _words_of(block) and _words_of(block) <= OFFLINE]
    assert blocks
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    for block in blocks:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path,
            env={"PATH": f"{BIN}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "ann@example.com" in done.stdout


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_and_flags_exist(words: list[str]) -> None:
    """Every command line in the documents has flags that its command knows."""
    names = words[1:3] if words[1] in {"copy", "models", "topics"} else words[1:2]
    done = subprocess.run([BIN / "decisioning", *names, "--help"], capture_output=True, text=True, check=True)
    assert [word for word in words if word.startswith("--") and word not in done.stdout] == []


def _words_of(block: str) -> set[str]:
    return {words.split()[1] for words in block.splitlines() if words.startswith("decisioning ")}


if __name__ == "__main__":
    OPERATIONS.write_text(with_tables(OPERATIONS.read_text()))
