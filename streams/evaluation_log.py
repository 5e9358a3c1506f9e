"""Logs of choices from files: examples, a decision log with them, or a CSV; what is wrong is named by its line."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import Any, Final

import orjson

from decisioning.backtest import BYTE_ORDER_MARK
from decisioning.evaluation import Choices, LogError, Row, eligible_arms
from streams.checking import unreadable
from streams.failure import NO, WRONG_USE, Failure

MAX_LINE_BYTES: Final = 1 << 20
MAX_ROWS: Final = 5_000_000
CSV_COLUMNS: Final = ("arm", "propensity", "reward")
CSV_POLICY: Final = "log"  # of a file that names none
_OTHER_COLUMNS: Final = ("context", "policy", "decision_id", "at", "arms")


def read(log: Path, examples: Path | None) -> Choices:
    """What was chosen, with what came of it.

    Parameters
    ----------
    log
        `examples` or `decision-log`, one record a line, or a CSV; also gzipped.
    examples
        Where the rewards of a decision log are.

    Raises
    ------
    Failure
        A file cannot be read, is none of these, or has a line that cannot be used; or a decision log comes without
        examples.
    """
    try:
        kind = _kind(log)
        choices = Choices()
        if kind == "csv":
            _alone(log, examples, "a CSV")
            _each(log, _rows(log, choices))
        elif kind == "examples":
            _alone(log, examples, "examples")
            _each(log, _records(log, lambda record: _example(choices, record)))
        else:
            if examples is None:
                remedy = "add the examples of the same run: --examples FILE"
                raise Failure(f"{log}: a decision log alone cannot answer, it has no rewards; {remedy}", NO)
            eligible: dict[tuple[str, str], dict[str, float]] = {}
            _each(log, _records(log, lambda record: eligible.update(_decision(record))))
            _each(examples, _records(examples, lambda record: _example(choices, record)))
            choices.narrow(eligible)
    except LogError as error:
        raise Failure(f"{log}: {error}", WRONG_USE) from None
    except (OSError, EOFError) as error:
        what = error if isinstance(error, OSError) else OSError("it is cut off")
        raise unreadable(log, what) from None
    return choices


def _alone(log: Path, examples: Path | None, kind: str) -> None:
    if examples is not None:
        raise Failure(f"{log}: this is {kind} and has the rewards; --examples goes with a decision log", WRONG_USE)


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader | gzip.GzipFile]:
    """The file, from behind its byte order mark on if it has one."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        if file.peek(len(BYTE_ORDER_MARK)).startswith(BYTE_ORDER_MARK):
            file.read(len(BYTE_ORDER_MARK))
        yield file


def _kind(path: Path) -> str:
    with _opened(path) as file:
        first = next((line for line in iter(lambda: file.readline(MAX_LINE_BYTES), b"") if line.strip()), b"")
    if not first:
        raise LogError("it is empty; expected examples, a decision log or a CSV")
    if not first.lstrip().startswith(b"{"):
        return "csv"
    try:
        record = orjson.loads(first)
    except orjson.JSONDecodeError as error:
        raise LogError(f"line 1: not JSON: {error}; expected one record a line") from None
    if "policy" in record:
        return "examples"
    if "action" in record:
        return "decision-log"
    raise LogError("line 1: neither an example nor a decision; expected a file of `backtest --examples` or `--log`")


def _each(path: Path, lines: Iterator[int]) -> None:
    """Work through a file's lines, which are counted as they are begun."""
    number = 0
    try:
        for number in lines:
            if number > MAX_ROWS:
                break
    except LogError as error:
        raise Failure(f"{path}:{number}: {error}", WRONG_USE) from None
    if number > MAX_ROWS:
        raise Failure(f"{path}: more than {MAX_ROWS:,} lines; evaluate a part of it", WRONG_USE)


def _records(path: Path, take: Callable[[dict[str, Any]], None]) -> Iterator[int]:
    with _opened(path) as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES):
            number += 1
            yield number
            if not line.strip():
                continue
            if not line.endswith(b"\n") and len(line) == MAX_LINE_BYTES:
                raise LogError(f"longer than {MAX_LINE_BYTES:,} bytes; expected one record a line")
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                why = "the line is cut off" if not line.endswith(b"\n") else str(error)
                raise LogError(f"not JSON: {why}; leave the line out, or write the file again") from None
            if not isinstance(record, dict):
                raise LogError("expected a record, such as {...}")
            take(record)


def _example(choices: Choices, record: dict[str, Any]) -> None:
    choices.example(record, _seconds(record.get("at")))


def _decision(record: dict[str, Any]) -> dict[tuple[str, str], dict[str, float]]:
    if record.get("campaign") is None or record.get("action") not in {"send", "holdout"}:
        return {}
    return eligible_arms(record)


def _seconds(at: Any) -> float:
    if at in {None, ""}:
        return 0.0
    try:
        return dt.datetime.fromisoformat(at).timestamp()
    except (TypeError, ValueError, OverflowError):
        raise LogError(f"at is {at!r}; expected a time such as 2026-11-24T09:30:00Z") from None


def _rows(path: Path, choices: Choices) -> Iterator[int]:
    with _opened(path) as file, TextIOWrapper(file, "utf-8", newline="") as text:
        try:
            reader = csv.DictReader(text, strict=True)
            yield 1
            missing = [name for name in CSV_COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                found = ", ".join(reader.fieldnames or ()) or "nothing"
                raise LogError(f"no column {missing[0]!r}; expected {', '.join(CSV_COLUMNS)}, found {found[:200]}")
            for fields in reader:
                yield reader.line_num
                if None in fields or None in fields.values():
                    raise LogError("another number of fields than the header has; the line may be cut off")
                _row(choices, fields, reader.line_num)
        except (csv.Error, UnicodeDecodeError) as error:
            raise LogError(f"not a line of CSV: {error}") from None


def _row(choices: Choices, fields: dict[str, str], number: int) -> None:
    record: dict[str, Any] = {"arm": fields["arm"], "context": _context(fields)}
    for name in ("propensity", "reward"):
        record[name] = _float(name, fields[name])
    row = choices.row(record, _seconds(fields.get("at")))
    if fields.get("arms"):
        row.eligible = _arms(fields["arms"], row)
    rows: dict[str, Row] = choices.rows.setdefault(fields.get("policy") or CSV_POLICY, {})
    decision = fields.get("decision_id") or str(number)
    if decision in rows:
        raise LogError(f"decision_id {decision} is there twice; expected one row for each decision and policy")
    rows[decision] = row


def _float(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise LogError(f"{name} is {text[:60]!r}; expected a number") from None


def _context(fields: dict[str, str]) -> dict[str, Any]:
    """The column `context` (JSON), and every other column of numbers whose name begins with `context_`."""
    found: dict[str, Any] = {}
    given = _json("context", fields["context"]) if fields.get("context") else {}
    if isinstance(given, list):
        given = {str(place): value for place, value in enumerate(given)}
    found |= given if isinstance(given, dict) else {"context": given}
    for name, text in fields.items():
        if name.startswith("context_"):
            found[name.removeprefix("context_")] = _float(name, text) if text else 0.0
    return found


def _arms(text: str, row: Row) -> dict[str, float]:
    """Eligible arms: JSON of arms with their probabilities."""
    given = _json("arms", text)
    numbers = isinstance(given, dict) and all(isinstance(p, int | float) and 0.0 <= p <= 1.0 for p in given.values())
    if not numbers or row.arm not in given:
        raise LogError(f'arms is {text[:60]!r}; expected the eligible arms with their probabilities, {{"a": 0.5, …}}')
    return {str(arm): float(probability) for arm, probability in given.items()}


def _json(name: str, text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise LogError(f"{name} is {text[:60]!r}, not JSON: {error}") from None
