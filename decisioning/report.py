"""What a configuration would have done, on one page: a pure function from the records of a backtest to HTML.

The page is one file: no script, nothing loaded from anywhere, charts drawn as SVG, in the reader's light or dark
colours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime
from html import escape
from typing import Any
from zoneinfo import ZoneInfo

from decisioning.charts import Bar, band, bars, columns
from decisioning.config import Config
from decisioning.effects import DeadLetter
from decisioning.lift import COLUMNS as LIFT_COLUMNS
from decisioning.lift import TITLES, Comparison, Measured, amount, cells
from decisioning.localtime import resolve_zone
from decisioning.wording import reason_in_words

MAX_COLUMNS = 62  # of the chart over days; beyond it a column stands for several days
MAX_ROWS = 20  # of a chart of bars
MAX_REASONS = 3  # named for each campaign
ACTIONS = (("send", "sent"), ("suppress", "not sent"), ("holdout", "held out"))

_STYLE = """\
:root{color-scheme:light dark;--paper:#fff;--ink:#1d2430;--soft:#5b6675;--line:#d8dee6;
--send:#2f6fd0;--suppress:#c9823a;--holdout:#8a7fb8}
@media (prefers-color-scheme:dark){:root{--paper:#14181e;--ink:#e6eaf0;--soft:#9aa6b5;--line:#333c48;
--send:#6ea3f2;--suppress:#dfa065;--holdout:#aaa0d6}}
*{box-sizing:border-box}
body{margin:0 auto;padding:2rem 1.25rem 3rem;max-width:60rem;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 .25rem}
h2{font-size:1rem;margin:2rem 0 .5rem}
p{margin:.25rem 0;color:var(--soft)}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(7rem,1fr));gap:.75rem;margin:1.5rem 0}
dl div{border-top:2px solid var(--line);padding-top:.4rem}
dt{color:var(--soft);font-size:.85rem}
dd{margin:0;font-size:1.4rem;font-variant-numeric:tabular-nums}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font:12px system-ui,sans-serif}
svg .number{fill:var(--ink);font-variant-numeric:tabular-nums}
svg .axis{stroke:var(--line)}
svg .middle{fill:none;stroke:var(--send);stroke-width:2}
.send{fill:var(--send);color:var(--send)}
.suppress{fill:var(--suppress);color:var(--suppress)}
.holdout{fill:var(--holdout);color:var(--holdout)}
.key span{margin-right:1rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600}
th:first-child,td:first-child,th:last-child,td:last-child{text-align:left}
"""


class Report:
    """Counts what comes out of a backtest; `page` says it.

    Parameters
    ----------
    config
        What was played.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.zone: ZoneInfo = resolve_zone(None, None, None, config.timezone)
        self.actions: Counter[tuple[str, str]] = Counter()  # campaign, action
        self.channels: Counter[str] = Counter()
        self.reasons: Counter[tuple[str, str]] = Counter()  # campaign, reason
        self.hours: Counter[int] = Counter()
        self.days: Counter[date] = Counter()
        self.written_to: set[str] = set()
        self.waited = 0
        self.erased = 0
        self.letters: Counter[str] = Counter()
        self.first: str | None = None
        self.last: str | None = None

    def add(self, log: Sequence[dict[str, Any]], dead_letters: Sequence[DeadLetter] = ()) -> None:
        """Count records of `decision-log`, in their order, and what was no event."""
        self.letters.update(letter.reason for letter in dead_letters)
        for record in log:
            self.first, self.last = self.first or record["decided_at"], record["decided_at"]
            if record["campaign"] is None:
                self.erased += 1
                continue
            campaign, action = record["campaign"], record["action"]
            self.actions[campaign, action] += 1
            if action == "send":
                self._sent(record)
            elif action == "suppress":
                causes = [code for code in record["reasons"] if code != "no_channel"]
                self.reasons.update((campaign, code) for code in causes)

    def _sent(self, record: dict[str, Any]) -> None:
        at = datetime.fromisoformat(record["decided_at"]).astimezone(self.zone)
        self.channels[record["channel"]] += 1
        self.hours[at.hour] += 1
        self.days[at.date()] += 1
        self.written_to.add(record["user_id"])
        self.waited += bool(record["reasons"])

    def page(self, config_name: str, events_name: str, events: int, lifts: Sequence[Comparison] = ()) -> str:
        """The page.

        Parameters
        ----------
        config_name, events_name
            What was played and on what, as the reader knows them.
        events
            How many events were taken in.
        lifts
            Treatment against holdout, of the campaigns that have one.
        """
        title = f"What {config_name} would have done"
        parts = [
            f"<h1>{escape(title)}</h1>",
            f"<p>On the events of {escape(events_name)}: {self._span()}. Configuration {self.config.version_hash}.</p>",
            self._totals(events),
            *self._charts(),
            *(self._lift(one) for one in lifts),
            self._table(),
            self._notes(),
        ]
        body = "\n".join(part for part in parts if part)
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(title)}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
        )

    def _span(self) -> str:
        if self.first is None or self.last is None:
            return "nothing was decided"
        return f"decisions from {self.first[:10]} to {self.last[:10]}"

    def _totals(self, events: int) -> str:
        by_action = self._by_action()
        numbers = [
            ("events", events),
            ("decisions", by_action.total()),
            *((words, by_action[action]) for action, words in ACTIONS),
            ("people written to", len(self.written_to)),
            ("unreadable", self.letters.total()),
        ]
        return "<dl>" + "".join(f"<div><dt>{name}</dt><dd>{number:,}</dd></div>" for name, number in numbers) + "</dl>"

    def _by_action(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for (_, action), count in self.actions.items():
            found[action] += count
        return found

    def _charts(self) -> list[str]:
        by_campaign = [
            Bar(campaign, tuple((action, words, self.actions[campaign, action]) for action, words in ACTIONS))
            for campaign in self._campaigns()
        ]
        by_channel = [Bar(name, (("send", "sent", self.channels[name]),)) for name in self.config.channels]
        reasons: Counter[str] = Counter()
        for (_, code), count in self.reasons.items():
            reasons[code] += count
        by_reason = [Bar(code, (("suppress", reason_in_words(code), n),)) for code, n in _ordered(reasons)]
        key = "".join(f'<span class="{action}">■ {words}</span>' for action, words in ACTIONS)
        clock = [(f"{hour:02d}", self.hours[hour]) for hour in range(24)]
        return [
            _figure("Decisions by campaign", bars("Decisions by campaign", by_campaign[:MAX_ROWS]), key),
            _figure("Sent by channel", bars("Sent by channel", by_channel)),
            _figure("Sent by day", columns("Sent by day", self._over_days())) if self.days else "",
            _figure(f"Sent by hour of the day, {self.config.timezone}", columns("Sent by hour of the day", clock)),
            _figure("Why not sent", bars("Why not sent", by_reason[:MAX_ROWS])) if by_reason else "",
        ]

    def _lift(self, one: Comparison) -> str:
        """What a campaign did, and how sure that was over time."""
        parts = [f"<h2>Treatment against holdout: {escape(one.name)}</h2>"]
        parts += [f"<p>{escape(sentence)}</p>" for sentence in one.warnings()]
        rows = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells(each))}</tr>" for each in one.measured
        )
        head = "".join(f"<th>{name}</th>" for name in LIFT_COLUMNS)
        parts.append(f'<div class="wide"><table><tr>{head}</tr>{rows}</table></div>')
        for each in one.measured:
            if not each.why_not and len(each.path) > 1:
                parts += [
                    f"<p>{escape(TITLES[each.metric])}: difference, as it was known by the day</p>",
                    self._band(each),
                ]
        return "".join(parts)

    def _band(self, each: Measured) -> str:
        points = [
            (datetime.fromtimestamp(at_ms / 1000, self.zone).date().isoformat()[5:], interval)
            for at_ms, interval in each.path
        ]
        return band(TITLES[each.metric], points, lambda value: amount(each.metric, value, signed=True))

    def _campaigns(self) -> list[str]:
        """Those of the file in its order, also where they did nothing."""
        return [campaign.id for campaign in self.config.campaigns]

    def _over_days(self) -> list[tuple[str, int]]:
        first, last = min(self.days).toordinal(), max(self.days).toordinal()
        width = -(-(last - first + 1) // MAX_COLUMNS)
        found = [0] * (-(-(last - first + 1) // width))
        for day, count in self.days.items():
            found[(day.toordinal() - first) // width] += count
        return [(date.fromordinal(first + place * width).isoformat()[5:], count) for place, count in enumerate(found)]

    def _table(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("campaign", *(words for _, words in ACTIONS), "why not, mostly"))
        rows = []
        for campaign in self._campaigns():
            counts = "".join(f"<td>{self.actions[campaign, action]:,}</td>" for action, _ in ACTIONS)
            own = Counter({code: count for (name, code), count in self.reasons.items() if name == campaign})
            why = "; ".join(f"{reason_in_words(code)} ({count:,})" for code, count in _ordered(own)[:MAX_REASONS])
            rows.append(f"<tr><td>{escape(campaign)}</td>{counts}<td>{escape(why)}</td></tr>")
        return f'<h2>In numbers</h2><div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'

    def _notes(self) -> str:
        said = [f"Days and hours are those of {self.config.timezone}; quiet hours are by each person's own clock."]
        if self.reasons:
            said.append("A decision that was not sent can have several reasons.")
        if self.waited:
            said.append(f"{self.waited:,} of those sent waited for the end of quiet hours.")
        if self.erased:
            said.append(f"{self.erased:,} people were erased.")
        if self.letters:
            kinds = ", ".join(f"{reason} {count:,}" for reason, count in _ordered(self.letters))
            said.append(f"Records that are no events: {kinds}.")
        return "".join(f"<p>{escape(sentence)}</p>" for sentence in said)


def _figure(title: str, drawing: str, key: str = "") -> str:
    legend = f'<p class="key">{key}</p>' if key else ""
    return f"<h2>{escape(title)}</h2>{legend}{drawing}"


def _ordered(counts: Counter[str]) -> list[tuple[str, int]]:
    """The most frequent first, equals by name: the same counts give the same page."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
