"""The commands `copy suggest` and `copy review`: drafts into the file, verdicts into the file."""

from __future__ import annotations

import datetime as dt
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import typer

from decisioning import config as configuration
from decisioning import drafts, yaml_source
from decisioning.drafts import Entry, Generator
from decisioning.grammar import RULES, Grammar, GrammarError, rules_of
from decisioning.yaml_edit import EditError
from streams.checking import read_bytes, unreadable
from streams.failure import NO, WRONG_USE, Failure

if TYPE_CHECKING:
    from decisioning.config import Campaign, Config
    from streams.settings import Settings

FILE_BYTES: Final = yaml_source.MAX_BYTES
GENERATORS: Final = ("grammar", "http")
SPARE: Final = 2  # times as many are asked for as are wanted: some are refused
Verdict = Literal["approved", "rejected"]


@dataclass(frozen=True, slots=True)
class File:
    """A configuration file as it was read."""

    path: Path
    data: bytes
    config: Config

    @property
    def text(self) -> str:
        """Its text, line ends and byte order mark included."""
        return self.data.decode()


def generator_of(name: str, settings: Settings, grammar: Path | None, seed: int, timeout_s: float) -> Generator:
    """The generator that was asked for.

    Raises
    ------
    Failure
        There is no such generator, or it lacks what it needs.
    """
    if name == "http":
        if settings.copy_url is None or settings.copy_model is None:
            raise Failure("no server to ask; set DECISIONING_COPY_URL and DECISIONING_COPY_MODEL", WRONG_USE)
        from streams.generators import HttpGenerator  # noqa: PLC0415 - of no use offline

        key = settings.copy_key.get_secret_value() if settings.copy_key else None
        return HttpGenerator(settings.copy_url, settings.copy_model, key, timeout_s)
    if name != "grammar":
        raise Failure(f"--generator {name}: expected {' or '.join(GENERATORS)}; write one of them", WRONG_USE)
    if grammar is None:
        return Grammar(RULES, seed)
    source = yaml_source.parse(read_bytes(grammar, FILE_BYTES), str(grammar))
    if source.findings:
        raise Failure(str(source.findings[0]), WRONG_USE)
    try:
        return Grammar(rules_of(source.data), seed)
    except GrammarError as error:
        raise Failure(f"{grammar}: {error}", WRONG_USE) from None


def open_file(settings: Settings) -> File:
    """Read the configuration that is to be changed; it must be free of errors.

    Raises
    ------
    Failure
        None was named, or it cannot be used.
    """
    if settings.config is None:
        raise Failure("no configuration; give --config FILE or set DECISIONING_CONFIG", WRONG_USE)
    data = read_bytes(settings.config, FILE_BYTES)
    return File(settings.config, data, _usable(data, settings.config, "mend it first"))


def suggest(
    file: File, generator: Generator, campaign_id: str, slot: str, count: int, notes: str, *, dry_run: bool
) -> int:
    """Ask for texts, say what was refused and why, and write the others as drafts.

    Returns
    -------
    int
        Exit code: 1 where nothing was left.
    """
    campaign = _campaign(file, campaign_id)
    if slot not in campaign.variants:
        known = ", ".join(campaign.variants)
        raise Failure(f"--slot {slot}: campaign {campaign_id} has {known}; name one of them", WRONG_USE)
    brief = drafts.brief_of(file.config, campaign, slot, notes)
    try:
        proposal = generator.propose(brief, count * SPARE)
    except GrammarError as error:
        raise Failure(f"--grammar: {error}", WRONG_USE) from None
    made: list[dict[str, Any]] = []
    now = _now()
    for text, why in drafts.screened(file.config, campaign, brief, proposal.texts):
        if why is not None:
            typer.echo(f"refused ({why}): {_shown(text)}", err=True)
        elif len(made) < count:
            made.append(drafts.draft(generator, proposal, text, now))
    if not made:
        raise Failure(f"none of {len(proposal.texts)} proposed texts may be used; change the brief or the seed", NO)
    if not dry_run:
        changed = _edited(file, partial(drafts.added, file.text, file.config, campaign, slot, made))
        _write(file, changed)
    for draft in made:
        typer.echo(f"{campaign_id}/{slot}/{draft['id']}  {draft['text']}")
    done = "would be added to" if dry_run else "added to"
    typer.echo(f"{_count(len(made))} {done} {file.path}; next: decisioning copy review --config {file.path}", err=True)
    return 0


def review(
    file: File, campaign_id: str | None, approve: Sequence[str], reject: Sequence[str], by: str | None, note: str | None
) -> int:
    """List the drafts, or write verdicts on some of them: all or none.

    Returns
    -------
    int
        Exit code.
    """
    if campaign_id is not None:
        _campaign(file, campaign_id)
    entries = dict(drafts.entries(file.config, campaign_id))
    waiting = {name: entry for name, entry in entries.items() if entry.variant.status == "draft"}
    if not approve and not reject:
        for name, entry in waiting.items():
            typer.echo(f"{name}  {_shown(entry.variant.text)}")
        typer.echo(f"{_count(len(waiting))} in {file.path}", err=True)
        return 0
    if not by or not by.strip() or not by.isprintable():
        raise Failure("who decides? give --by NAME", WRONG_USE)
    verdicts: list[tuple[str, Verdict]] = [(name, "approved") for name in approve]
    verdicts += [(name, "rejected") for name in reject]
    chosen = {}
    for name, verdict in verdicts:
        full = _found(file, name, entries, waiting)
        if full in chosen:
            raise Failure(f"{name} is named twice; decide once", WRONG_USE)
        chosen[full] = verdict
    now, text = _now(), file.text
    for full, verdict in chosen.items():
        text = _edited(file, partial(drafts.reviewed, text, waiting[full], verdict, by.strip(), now, note))
    _write(file, text)
    for full, verdict in chosen.items():
        typer.echo(f"{verdict}  {full}  by {by.strip()} at {now}")
    return 0


def _found(file: File, name: str, entries: dict[str, Entry], waiting: dict[str, Entry]) -> str:
    """Full name of the draft that is meant."""
    matching = [full for full in entries if name in (full, full.rpartition("/")[2])]
    drafted = [full for full in matching if full in waiting]
    if len(drafted) > 1:
        raise Failure(f"{name} is there more than once; write one of {', '.join(drafted)}", WRONG_USE)
    if drafted:
        return drafted[0]
    if matching:
        status = entries[matching[0]].variant.status
        raise Failure(f'{name} is {status} already; set "status: draft" in {file.path} to review it again', NO)
    raise Failure(f"there is no variant {name} in {file.path}; list the drafts with decisioning copy review", NO)


def _campaign(file: File, campaign_id: str) -> Campaign:
    found = next((campaign for campaign in file.config.campaigns if campaign.id == campaign_id), None)
    if found is None:
        known = ", ".join(campaign.id for campaign in file.config.campaigns[:10]) or "none"
        raise Failure(f"--campaign {campaign_id}: {file.path} has {known}; name one of them", WRONG_USE)
    return found


def _edited(file: File, edit: Callable[[], str]) -> str:
    try:
        return edit()
    except EditError as error:
        raise Failure(f"{file.path}: {error}; write it there by hand", NO) from None


def _usable(data: bytes, path: Path, remedy: str) -> Config:
    found, findings = configuration.read(data, str(path))
    if found is None:
        errors = [str(finding) for finding in findings if finding.severity == "error"]
        raise Failure("\n".join([*errors, f"{path} cannot be used so; {remedy}"]), NO)
    return found


def _write(file: File, text: str) -> None:
    """Replace the file at once, if the result can be used and nobody else has changed it meanwhile."""
    data = text.encode()
    _usable(data, file.path, "nothing was written")
    path = file.path.resolve()
    try:
        if path.read_bytes() != file.data:
            raise Failure(f"{file.path} was changed by somebody else meanwhile; try again", NO)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as made:
            made.write(data)
            made.flush()
            os.fsync(made.fileno())
        draft = Path(made.name)
        try:
            draft.chmod(path.stat().st_mode & 0o7777)
            draft.replace(path)
        except OSError:
            draft.unlink()
            raise
    except OSError as error:
        raise unreadable(file.path, error) from None


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _shown(text: str) -> str:
    """One line that moves no cursor."""
    return "".join(character if character.isprintable() else " " for character in text)[:200]


def _count(number: int) -> str:
    return f"{number} draft" if number == 1 else f"{number} drafts"
