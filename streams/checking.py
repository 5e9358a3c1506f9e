"""Reading the files that commands are given, and saying what is wrong with them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson
import typer

from streams.failure import NO, WRONG_USE, Failure

if TYPE_CHECKING:
    from decisioning.config import Config
    from decisioning.findings import Finding

CONFIG_BYTES: Final = 4 << 20


def load_file(path: Path) -> Config:
    """Read a configuration that a command is to use; its warnings go to stderr.

    Raises
    ------
    Failure
        The file cannot be read, or has errors: all of them are in the message, one a line.
    """
    config, findings = _read(path)
    if config is None:
        errors = [str(finding) for finding in findings if finding.severity == "error"]
        raise Failure("\n".join([*errors, f"{path} cannot be used; mend {_count(len(errors), 'error')}"]), WRONG_USE)
    _print_findings(findings)
    return config


def check_file(path: Path, *, as_json: bool, explained: bool = False) -> int:
    """Print what is wrong or odd in a configuration, and the verdict.

    Parameters
    ----------
    explained
        Whether to say in plain sentences what a usable file means.

    Returns
    -------
    int
        Exit code: 0 where it can be used, 1 where not.
    """
    config, findings = _read(path)
    sentences = _described(config) if config is not None and explained else {}
    errors = sum(finding.severity == "error" for finding in findings)
    code = NO if config is None else 0
    if as_json:
        report = {
            "file": str(path),
            "ok": config is not None,
            "campaigns": [campaign.id for campaign in config.campaigns] if config is not None else [],
            "config_version": config.version_hash if config is not None else None,
            "findings": [_as_json(finding) for finding in findings],
        }
        if explained:
            report["explained"] = sentences
        sys.stdout.buffer.write(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        return code
    _print_findings(findings)
    warnings = len(findings) - errors
    told = f", {_count(warnings, 'warning')}" if warnings else ""
    if config is None:
        typer.echo(f"{path}: {_count(errors, 'error')}{told}", err=True)
    else:
        typer.echo(f"{path}: ok, {_count(len(config.campaigns), 'campaign')}{told}")
    for title, said in sentences.items():
        typer.echo("\n".join(["", f"{title}:", *(f"  {sentence}" for sentence in said)]))
    return code


def read_bytes(path: Path, limit_bytes: int) -> bytes:
    """Read a whole file that is not to be larger than `limit_bytes`.

    Raises
    ------
    Failure
        It is not there, is no file, is too large or may not be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise unreadable(path, error) from None
    if len(data) > limit_bytes:
        raise Failure(f"{path} is larger than {limit_bytes >> 20} MB; is it the right file?", WRONG_USE)
    return data


def unreadable(path: Path, error: OSError) -> Failure:
    """What to say about a file that cannot be opened, read or written."""
    return Failure(f"{path}: {(error.strerror or str(error)).lower()}; check the path and its rights", WRONG_USE)


def _read(path: Path) -> tuple[Config | None, list[Finding]]:
    from decisioning import config  # noqa: PLC0415 - pydantic and the expressions take a moment

    return config.read(read_bytes(path, CONFIG_BYTES), str(path))


def _described(config: Config) -> dict[str, list[str]]:
    from decisioning.describe import describe  # noqa: PLC0415 - as above

    return describe(config)


def _print_findings(findings: list[Finding]) -> None:
    for finding in findings:
        typer.echo(str(finding), err=True)


def _as_json(finding: Finding) -> dict[str, object]:
    return {name: getattr(finding, name) for name in finding.__slots__}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
