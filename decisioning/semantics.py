"""What a shape cannot say: names that must refer to something, expressions that must compile, odd numbers.

Looks at the parsed data rather than at models, so that these findings are there even where the shape is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from decisioning import durations, expressions
from decisioning.fields import CHANNELS
from decisioning.findings import closest
from decisioning.oddities import oddities

if TYPE_CHECKING:
    from decisioning.config import Campaign, Config
    from decisioning.findings import FieldPath
    from decisioning.yaml_source import Source

_EXPRESSIONS: tuple[FieldPath, ...] = (
    ("rules", "*", "when"),
    ("campaigns", "*", "when"),
    ("campaigns", "*", "trigger", "where"),
    ("campaigns", "*", "variants", "*", "*", "when"),
)
_UNIQUE: tuple[tuple[FieldPath, str], ...] = (
    (("caps", "*", "name"), "caps"),
    (("rules", "*", "name"), "rules"),
    (("campaigns", "*", "id"), "campaigns"),
)
MAX_FINDINGS = 200  # beyond it nobody is told what was probably meant
SHOWN_NAMES = 10
PROPENSITY = "propensity"
VARIANTS: FieldPath = ("campaigns", "*", "variants", "*", "*")


def examine(source: Source, config: Config | None) -> None:
    """Add to `source` what is wrong or odd beyond its shape.

    Parameters
    ----------
    source
        The parsed file.
    config
        Its models, None where its shape is wrong; warnings about numbers need them.
    """
    _references(source)
    _duplicates(source)
    _compiled(source)
    if config is not None:
        _odd(source, config)
        for path, said, remedy in oddities(config):
            _warn(source, path, said, remedy)


def select(data: Any, pattern: FieldPath) -> Iterator[tuple[FieldPath, Any]]:
    """Yield path and value of everything that a pattern meets; `*` is any key or index.

    Examples
    --------
    >>> list(select({"caps": ({"max": 1}, {})}, ("caps", "*", "max")))
    [(('caps', 0, 'max'), 1)]
    """
    if not pattern:
        yield (), data
        return
    first, rest = pattern[0], pattern[1:]
    if isinstance(data, dict):
        items: list[tuple[str | int, Any]] = list(data.items())
    elif isinstance(data, tuple):
        items = list(enumerate(data))
    else:
        return
    for key, value in items:
        if first in ("*", key):
            for path, found in select(value, rest):
                yield (key, *path), found


def _error(source: Source, path: FieldPath, expected: str, remedy: str) -> None:
    source.find("error", path, expected, remedy)


def _warn(source: Source, path: FieldPath, expected: str, remedy: str) -> None:
    source.find("warning", path, expected, remedy)


def _references(source: Source) -> None:
    """Channels and campaigns that are named must exist."""
    channels = [path[1] for path, _ in select(source.data, ("channels", "*")) if isinstance(path[1], str)]
    campaigns = [value for _, value in select(source.data, ("campaigns", "*", "id")) if isinstance(value, str)]
    if isinstance(source.data, dict) and source.data.get("propensity") is not None:
        for path, value in select(source.data, ("campaigns", "*", "id")):
            if value == PROPENSITY:
                _error(source, path, "expected another name: propensity models have this one", "rename the campaign")
    for path, value in select(source.data, ("caps", "*", "channel")):
        if value in CHANNELS:
            _refer(source, path, value, [*channels, "any"], "channel")
    for path, value in select(source.data, ("campaigns", "*", "channels", "*")):
        if value in CHANNELS:  # of other names the shape has complained
            _refer(source, path, value, channels, "channel")
    for path, value in select(source.data, ("rules", "*", "campaigns", "*")):
        if isinstance(value, str):
            _refer(source, path, value, campaigns, "campaign")
    slots = {str(path[3]) for path, _ in select(source.data, ("campaigns", "*", "variants", "*"))}
    for path, _ in select(source.data, ("guardrails", "max_length", "*")):
        if slots and path[2] not in slots:
            likely = closest(str(path[2]), slots)
            _warn(source, path, "no campaign has this slot", f'try "{likely}"' if likely else "remove it")


def _refer(source: Source, path: FieldPath, value: str, known: list[str], what: str) -> None:
    if value in known:
        return
    likely = closest(value, known) if len(source.findings) < MAX_FINDINGS else None
    remedy = f'try "{likely}"' if likely else f'add "{value}" to {what}s, or remove it here'
    named = ", ".join(known[:SHOWN_NAMES]) + (", …" if len(known) > SHOWN_NAMES else "")
    _error(source, path, f"expected a {what} of this file ({named or 'there is none'})", remedy)


def _duplicates(source: Source) -> None:
    for pattern, what in _UNIQUE:
        _unique(source, select(source.data, pattern), what)
    for slot, variants in select(source.data, VARIANTS[:-1]):
        _unique(
            source,
            ((slot + path, value) for path, value in select(variants, ("*", "id"))),
            "variants of a slot",
        )
    for pattern in (("campaigns", "*", "channels"), ("rules", "*", "campaigns")):
        for owner, items in select(source.data, pattern):
            _unique(
                source,
                ((owner + path, value) for path, value in select(items, ("*",))),
                "entries of this list",
            )
    for path, target in select(source.data, ("event_aliases", "*")):
        aliases = source.data["event_aliases"]
        if isinstance(aliases, dict) and isinstance(target, str) and target in aliases:
            what = "is an alias itself; aliases are followed once"
            _error(
                source,
                path,
                what,
                f'write "{aliases[target]}"' if aliases[target] != path[1] else "remove one of them",
            )


def _unique(source: Source, items: Iterator[tuple[FieldPath, Any]], what: str) -> None:
    seen: dict[str, int] = {}
    for path, value in items:
        if isinstance(value, str):
            if value in seen:
                _error(
                    source,
                    path,
                    f"{what} must differ; line {seen[value]} has the same",
                    "rename or remove one",
                )
            seen.setdefault(value, source.place(path)[0])


def _compiled(source: Source) -> None:
    """Conditions must compile."""
    for pattern in _EXPRESSIONS:
        for path, text in select(source.data, pattern):
            if isinstance(text, str) and text:
                try:
                    expressions.compile(text)
                except expressions.ExpressionError as error:
                    for problem in error.problems:
                        _error(
                            source,
                            path,
                            f"{problem.expected} (at character {problem.at + 1})",
                            problem.remedy,
                        )


def _odd(source: Source, config: Config) -> None:
    """Warn of what is legal and probably not meant."""
    for index, cap in enumerate(config.caps):
        if cap.max == 0:
            where = "any channel" if cap.channel == "any" else cap.channel
            _warn(
                source,
                ("caps", index, "max"),
                f"nothing of marketing is ever sent on {where}",
                "use 1 or more, or remove the campaigns",
            )
    if config.holdout is not None and config.holdout.share == 1:
        _warn(
            source,
            ("holdout", "share"),
            "everybody is held out, nothing is ever sent",
            "use a share such as 0.05",
        )
    if not config.campaigns:
        _warn(source, (), "there are no campaigns: nothing is ever decided", "add campaigns")
    for index, campaign in enumerate(config.campaigns):
        _odd_campaign(source, config, ("campaigns", index), campaign)


def _odd_campaign(source: Source, config: Config, path: FieldPath, campaign: Campaign) -> None:
    trigger = campaign.trigger
    for slot, variants in campaign.variants.items():
        if not any(variant.status == "approved" for variant in variants):
            _warn(
                source,
                (*path, "variants", slot),
                "all variants are drafts: nothing is ever sent",
                "approve one",
            )
    expires_ms = campaign.expires_after_ms
    if campaign.kind == "marketing" and expires_ms is not None:
        for channel in config.channels.keys() & config.channels_of(campaign):  # of others `_references` complains
            quiet = config.quiet_hours_of(channel)
            if quiet is not None and quiet.length_ms > expires_ms:
                said = (
                    f"quiet hours of {channel} last {durations.spell(quiet.length_ms)}: what is due in them may expire"
                )
                _warn(
                    source,
                    (*path, "expires_after"),
                    said,
                    f'use at least "{durations.spell(quiet.length_ms)}"',
                )
    if expires_ms is not None and campaign.send_time.within_ms > expires_ms:
        said = "hours after expires_after are never picked"
        _warn(source, (*path, "send_time", "within"), said, f'use at most "{durations.spell(expires_ms)}"')
    if trigger.max_wait_ms is not None and not trigger.restart_on:
        _warn(
            source,
            (*path, "trigger", "max_wait"),
            "without restart_on it changes nothing",
            "add restart_on, or remove it",
        )
    elif trigger.max_wait_ms is not None and trigger.max_wait_ms < trigger.delay_ms:
        said = "it is shorter than the delay: restarts change nothing"
        _warn(
            source,
            (*path, "trigger", "max_wait"),
            said,
            f'use more than "{durations.spell(trigger.delay_ms)}"',
        )
    for alias in sorted({*trigger.events, *trigger.cancel_on, *trigger.restart_on} & set(config.event_aliases)):
        said = f'"{alias}" is an alias; events arrive as "{config.event_aliases[alias]}"'
        _warn(source, (*path, "trigger"), said, f'use "{config.event_aliases[alias]}"')
    if config.holdout is None and campaign.holdout is not None and campaign.holdout.share == 1:
        _warn(
            source,
            (*path, "holdout", "share"),
            "everybody is held out, nothing is ever sent",
            "use a share such as 0.05",
        )
