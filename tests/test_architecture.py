"""What holds for all code: one direction of imports, a pure core, no pickle, small rooms, a lock by hash."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.services import ROOT

PURE = ("bandits", "decisioning", "features")
PACKAGES = (*PURE, "streams")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PICKLES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
IMPURE_CALL = re.compile(
    r"(^|\.)(datetime|date)\.(now|utcnow|today)$|^time\.|^random\.|(^|\.)uuid[14]$|^secrets\.|^os\.|^input$|^print$"
    r"|^open$|^(np|numpy)\.random\.(?!Generator|PCG64|Philox|SeedSequence|default_rng)"
)
MAX_FILE_LINES = 450
MAX_FUNCTION_LINES = 70


def sources(*folders: str) -> list[Path]:
    """Python files of these folders."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or attribute, else an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def impure_calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of each call that reads a clock, chance or a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            unseeded = name.endswith("default_rng") and not node.args and not node.keywords
            if unseeded or IMPURE_CALL.search(name):
                yield node.lineno, name


def pickle_imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, module) of each import of a module that runs code when it reads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names if a.name.split(".")[0] in PICKLES)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PICKLES:
            yield node.lineno, node.module


def named(paths: list[Path], find: Callable[[ast.AST], Iterator[tuple[int, str]]]) -> list[str]:
    """`file:line name` of everything `find` finds in these files."""
    return [
        f"{path.relative_to(ROOT)}:{line} {name}" for path in paths for line, name in find(ast.parse(path.read_text()))
    ]


def test_imports_go_one_way_and_the_core_is_pure() -> None:
    """The contracts of import-linter in pyproject.toml are kept."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_core_reads_no_clock_no_chance_and_no_file() -> None:
    """Time is passed in as `now_ms`, chance is a keyed hash, and what is read comes as an argument."""
    assert named(sources(*PURE), impure_calls) == []


@pytest.mark.parametrize(
    "code",
    [
        "datetime.now(UTC)",
        "datetime.datetime.utcnow()",
        "date.today()",
        "time.time()",
        "time.monotonic_ns()",
        "random.random()",
        "uuid.uuid4()",
        "uuid4()",
        "np.random.rand(3)",
        "np.random.default_rng()",
        "open('f')",
    ],
)
def test_an_impure_call_is_noticed(code: str) -> None:
    """The check above sees each of the usual ways out of purity."""
    assert [line for line, _ in impure_calls(ast.parse(code))] == [1]


@pytest.mark.parametrize(
    "code", ["datetime.fromtimestamp(1, UTC)", "np.random.default_rng(7)", "local.now", "reopen(1)"]
)
def test_a_pure_call_is_let_through(code: str) -> None:
    """What depends on its arguments alone is no finding."""
    assert list(impure_calls(ast.parse(code))) == []


def test_nothing_unpickles() -> None:
    """Stored and received bytes are data: no module that runs code while reading is imported anywhere."""
    assert named(sources(*PACKAGES, "tests", "benchmarks"), pickle_imports) == []
    assert list(pickle_imports(ast.parse("import pickle\nfrom joblib import load"))) == [
        (1, "pickle"),
        (2, "joblib"),
    ]


def test_rooms_stay_small() -> None:
    """A file is one idea (about 400 lines), a function fits a screen (70 lines)."""
    found = []
    for path in sources(*PACKAGES):
        text = path.read_text()
        if (lines := text.count("\n")) > MAX_FILE_LINES:
            found.append(f"{path.relative_to(ROOT)} has {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > MAX_FUNCTION_LINES:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {size} lines")
    assert found == []


def test_every_package_is_shipped() -> None:
    """The packages named in pyproject.toml are those in the tree, with the data files beside the code."""
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in sources(*PACKAGES)}
    setuptools = PROJECT["tool"]["setuptools"]
    assert there == set(setuptools["packages"])
    for package in there:
        folder = ROOT.joinpath(*package.split("."))
        data = {f for f in folder.rglob("*") if f.is_file() and f.suffix not in {".py", ".pyc", ".md"}}
        shipped = {f for pattern in setuptools["package-data"].get(package, []) for f in folder.glob(pattern)}
        assert data <= shipped, f"{package}: not shipped: {sorted(map(str, data - shipped))}"


def test_the_lock_is_by_hash_and_names_no_registry() -> None:
    """Every locked package has an exact version and hashes, and none says where to fetch it."""
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host", text)
    entries = re.split(r"\n(?=[a-z0-9])", text)
    entries = [entry for entry in entries if re.match(r"[a-z0-9]", entry)]
    assert len(entries) > 50
    assert [entry.split("\n")[0] for entry in entries if "==" not in entry or "--hash=sha256:" not in entry] == []
    locked = {re.split(r"[=\[ ]", entry)[0].lower() for entry in entries}
    wanted = [*PROJECT["project"]["dependencies"]]
    for extra in PROJECT["project"]["optional-dependencies"].values():
        wanted += extra
    names = {re.split(r"[<>=\[; ]", line)[0].lower() for line in wanted}
    assert names <= locked, f"run `make lock`: {sorted(names - locked)}"
