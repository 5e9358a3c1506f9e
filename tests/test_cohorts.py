"""Who is compared with whom: by intention to treat, per person, from the first eligible trigger on."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.lift_fold import LiftFold
from decisioning.choice import held_out
from decisioning.cohorts import EVERYTHING, Cohort, Cohorts, Metric, has_holdout
from decisioning.config import Config
from decisioning.lift import Comparison, Measured, compare
from streams import cli
from tests.lift_world import World, document, setup
from tests.play import identify, play_raw, track
from tests.test_cli import _own_environment, run  # noqa: F401  # fixtures

HALF = {"share": 0.5, "salt": "s"}
CONFIG = setup(HALF)


def somebody(treated: bool, number: int = 0, config: Config = CONFIG, prefix: str = "u") -> str:
    """Somebody of a group."""
    assert config.holdout is not None
    names = (f"{prefix}{n}" for n in range(1000))
    return [name for name in names if held_out(config.holdout, "", name) != treated][number]


TREATED, HELD = somebody(True), somebody(False)


def story(events: list[dict[str, Any]], config: Config = CONFIG, until: str = "+40d 00:00") -> list[Cohort]:
    """The cohorts of a story that goes on until nothing more can happen."""
    whole = sorted([*events, track(until, "end", "Nothing", user="last")], key=lambda event: str(event["timestamp"]))
    cohorts = Cohorts(config)
    for record in play_raw(whole, until, config).log:
        cohorts.decide(record)
    cohorts.read(orjson.dumps(event) for event in whole)
    return cohorts.cohorts()


def outcomes(found: list[Cohort], metric: Metric, name: str = "cart") -> list[tuple[bool, float]]:
    """(treated, value) of each person."""
    [cohort] = [cohort for cohort in found if cohort.name == name]
    return [(outcome.treated, outcome.value) for outcome in cohort.outcomes[metric]]


def basket(clock: str, number: int, user: str | None, **more: Any) -> dict[str, Any]:
    """Something is put into a basket."""
    return track(clock, f"b{number}", user=user, **more)


def order(clock: str, number: int, user: str | None, revenue: float = 10.0, **more: Any) -> dict[str, Any]:
    """Something is bought."""
    return track(clock, f"o{number}", "Order Completed", user, properties={"revenue": revenue}, **more)


def known(*people: str) -> list[dict[str, Any]]:
    """They have addresses."""
    return [identify("08:00", f"i-{one}", one) for one in people]


def test_a_person_counts_once_and_what_they_did_within_the_window_counts() -> None:
    """Both groups alike: goals from the decision to the end of the window, added up; duplicates and later ones not."""
    events = [*known(TREATED, HELD)]
    for number, one in enumerate((TREATED, HELD)):
        events += [
            order("09:00", 10 + number, one, 7.0),
            basket("10:00", 20 + number, one),
            order("12:00", 30 + number, one),
            order("12:00", 30 + number, one),
            order("13:00", 40 + number, one, 5.0),
            basket("+1d 10:00", 50 + number, one),
            order("+3d 10:31", 60 + number, one, 100.0),
        ]
    found = story(events)
    assert sorted(outcomes(found, "conversion")) == [(False, 1.0), (True, 1.0)]
    assert [value for _, value in outcomes(found, "value")] == [15.0, 15.0]
    assert [outcome.before for outcome in found[0].outcomes["value"]] == [7.0, 7.0]


@pytest.mark.parametrize(
    ("events", "counts"),
    [
        ([basket("10:00", 1, "nobody")], False),  # no address
        ([*known(TREATED), basket("10:00", 1, TREATED), order("10:10", 2, TREATED)], False),  # did it unasked
        ([identify("08:00", "i", TREATED, traits={"consent": {"email": False}}), basket("10:00", 1, TREATED)], False),
        ([*known(TREATED), track("09:00", "l", "Unsubscribed", TREATED), basket("10:00", 1, TREATED)], True),
        ([*known(TREATED), basket("10:00", 1, TREATED)], True),
        ([*known(HELD), basket("10:00", 1, HELD)], True),
    ],
)
def test_what_messages_bring_about_keeps_nobody_out(events: list[dict[str, Any]], counts: bool) -> None:
    """Who could not be written to, or did it unasked, is not in yet; who has unsubscribed is."""
    [cohort] = story(events)
    assert bool(cohort.groups) == counts


def test_a_full_cap_keeps_nobody_out() -> None:
    """The group of somebody whose first trigger meets a full cap is known from the hash."""
    config = setup(HALF, caps=[{"name": "none", "channel": "any", "max": 0, "per": "24h"}])
    events = [*known(TREATED, HELD), basket("10:00", 1, TREATED), basket("10:01", 2, HELD)]
    [cohort] = story(events, config)
    assert cohort.groups == [True, False]


def test_a_variant_asleep_keeps_nobody_out() -> None:
    """It concerns the treated alone, so that they count although nothing could be sent."""
    changed = json.loads(document(HALF))["campaigns"][0]
    changed["variants"]["subject"][0]["when"] = "user.orders_total > 5"
    config = setup(HALF, campaigns=[changed])
    [cohort] = story([*known(TREATED, HELD), basket("10:00", 1, TREATED), basket("10:01", 2, HELD)], config)
    assert cohort.groups == [True, False]


@pytest.mark.parametrize("changes", [{"send_time": {"within": "24h"}}, {}])
def test_who_buys_while_a_message_waits_counts(changes: dict[str, Any]) -> None:
    """For an hour that suits them, as only the treated do, or for the end of quiet hours, as both do: from due on."""
    campaign = json.loads(document(HALF))["campaigns"][0] | changes
    quiet = {} if changes else {"quiet_hours": {"from": "09:00", "to": "20:00"}}
    people = [somebody(treated, n) for treated in (True, False) for n in range(8)]
    events = known(*people)
    for n, one in enumerate(people):
        events += [basket("10:00", n, one), order("10:45", 100 + n, one)]
    config = setup(HALF, campaigns=[campaign], **quiet)
    assert sorted(outcomes(story(events, config), "conversion")) == [(False, 1.0)] * 8 + [(True, 1.0)] * 8


def test_retention_and_unsubscriptions() -> None:
    """Retained: active of their own accord in the second week; unsubscribed: within the first."""
    people = sorted(somebody(True, n) for n in range(5))
    events = [*known(*people), *(basket("10:00", n, one) for n, one in enumerate(people))]
    events += [
        track("+8d 10:00", "p0", "Product Viewed", people[0]),
        track("+6d 10:00", "p1", "Product Viewed", people[1]),
        track("+8d 10:00", "p2", "Email Opened", people[2]),
        track("+1d 10:00", "l3", "Unsubscribed", people[3]),
        identify("+2d 10:00", "l4", people[4], traits={"unsubscribed": True}),
    ]
    found = story(events)
    assert [value for _, value in outcomes(found, "retention")] == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert [value for _, value in outcomes(found, "unsubscribed")] == [0.0, 0.0, 0.0, 1.0, 1.0]


def test_whose_window_has_not_passed_waits() -> None:
    """In neither group, and counted."""
    [cohort] = story([*known(TREATED), basket("10:00", 1, TREATED)], until="+4d 00:00")
    assert (len(cohort.outcomes["conversion"]), cohort.waiting["conversion"]) == (1, 0)
    assert (len(cohort.outcomes["retention"]), cohort.waiting["retention"]) == (0, 1)


def test_what_anonymous_ids_did_counts_for_their_person() -> None:
    """Before and after they were told whose they are; on a shared device for whom it was then."""
    other = somebody(True, 1)
    events = [
        *known(TREATED, other),
        basket("10:00", 1, TREATED),
        basket("10:01", 2, other),
        order("11:00", 3, None, 1.0, anonymousId="device"),
        identify("12:00", "j1", TREATED, anonymousId="device", traits={}),
        order("13:00", 4, None, 2.0, anonymousId="device"),
        identify("14:00", "j2", other, anonymousId="device", traits={}),
        order("15:00", 5, None, 4.0, anonymousId="device"),
    ]
    assert outcomes(story(events), "value") == [(True, 3.0), (True, 4.0)]


def test_on_a_merge_the_known_person_s_group_stands() -> None:
    """Somebody who came in anonymously, in another group by hash, counts as the known person, once."""
    config = setup(HALF, channels={"email": {"address": "email"}, "in_app": {"address": "id"}})
    campaign = json.loads(document(HALF))["campaigns"][0] | {"channels": ["in_app"]}
    config = setup(HALF, channels={"in_app": {"address": "id"}}, campaigns=[campaign])
    device = somebody(False, prefix="a")
    events = [
        basket("10:00", 1, None, anonymousId=device),
        identify("12:00", "j", TREATED, anonymousId=device, traits={}),
        basket("+1d 10:00", 2, TREATED),
        order("+1d 12:00", 3, None, anonymousId=device),
    ]
    found = story(events, config)
    assert outcomes(found, "conversion") == [(True, 1.0)]
    assert found[0].groups == [True]


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.text(max_size=5))
def test_a_growing_share_moves_people_into_the_holdout_only(a: float, b: float, salt: str) -> None:
    """Nobody comes back, whatever share and salt; who is who does not depend on when they are asked."""
    small, large = sorted((a, b))
    people = [f"u{n}" for n in range(50)]
    held = []
    for share in (small, large):
        config = setup({"share": share, "salt": salt})
        cohorts = Cohorts(config)
        for n, one in enumerate(people):
            cohorts.decide(decided(one, at=f"2026-03-02T10:{n:02d}:00.000Z"))
        cohorts.read([orjson.dumps(track("09:00", "m"))])
        [cohort] = cohorts.cohorts()
        held.append({one for one, treated in zip(people, cohort.groups, strict=True) if not treated})
    assert held[0] <= held[1]


def decided(person: str, action: str = "suppress", at: str = "2026-03-02T10:00:00.000Z", **more: Any) -> dict[str, Any]:
    """A record of the decision log, as far as it is read."""
    record = {"user_id": person, "campaign": "cart", "kind": "marketing", "action": action}
    record |= dict.fromkeys(("due_at", "fire_at", "decided_at"), at)
    return record | {"reasons": ["fatigue"] if action == "suppress" else []} | more


def test_a_log_of_another_holdout_is_noticed() -> None:
    """Those it held out are treated by this configuration: nothing is to be trusted then."""
    for salt, contradicted in (("s", False), ("other", True)):
        cohorts = Cohorts(setup({"share": 0.5, "salt": salt}))
        for number in range(50):
            person = f"u{number}"
            action = "holdout" if held_out(CONFIG.holdout, "", person) else "send"  # type: ignore[arg-type]
            cohorts.decide(decided(person, action))
        cohorts.read([orjson.dumps(track("09:00", "m"))])
        [comparison] = map(compare, cohorts.cohorts())
        assert comparison.contradicted == contradicted
        assert ("another holdout" in " ".join(comparison.warnings())) == contradicted


def test_groups_of_the_wrong_size_are_an_alarm() -> None:
    """If a tenth of the treated never got into the log, what is left is not compared."""
    cohorts = Cohorts(CONFIG)
    kept = [p for n, p in enumerate(f"u{n}" for n in range(3000)) if held_out(CONFIG.holdout, "", p) or n % 3]  # type: ignore[arg-type]
    for person in kept:
        cohorts.decide(decided(person))
    cohorts.read([orjson.dumps(track("09:00", "m"))])
    [comparison] = map(compare, cohorts.cohorts())
    assert comparison.mismatched
    assert not comparison.answers


def test_the_global_holdout_is_compared_over_all_campaigns_too() -> None:
    """From the first trigger of any of them; a campaign's own holdout multiplies for it alone."""
    one = json.loads(document(HALF))["campaigns"][0]
    two = one | {"id": "view", "trigger": {"event": "Product Viewed"}, "holdout": {"share": 0.2, "salt": "t"}}
    config = setup(HALF, campaigns=[one, two])
    events = [*known(TREATED), track("09:00", "v", "Product Viewed", TREATED), basket("10:00", 1, TREATED)]
    events += [order("11:00", 2, TREATED)]
    found = story(events, config)
    assert [(cohort.name, round(cohort.share, 6), len(cohort.groups)) for cohort in found] == [
        (EVERYTHING, 0.5, 1),
        ("cart", 0.5, 1),
        ("view", 0.4, 1),
    ]
    assert outcomes(found, "conversion", EVERYTHING) == [(True, 1.0)]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_without_two_groups_there_is_nothing_to_compare(share: float) -> None:
    """A share of 0 or 1 is no holdout to learn from; nor is that of a transactional campaign."""
    config = setup({"share": share, "salt": "s"})
    assert story([*known(TREATED), basket("10:00", 1, TREATED)], config) == []
    thanks = json.loads(document())["campaigns"][0] | {"kind": "transactional"}
    assert not has_holdout(setup(HALF, campaigns=[thanks]))


def test_an_erased_person_is_left_out() -> None:
    """Whatever the log still says of them."""
    gone = identify("12:00", "x", TREATED) | {"type": "delete"}
    [cohort] = story([*known(TREATED, HELD), basket("10:00", 1, TREATED), basket("10:00", 2, HELD), gone])
    assert cohort.groups == [False]


@dataclass(frozen=True)
class Played:
    """Files of a made-up world, and what came out of it."""

    folder: Path
    world: World
    log: list[dict[str, Any]]
    examples: list[dict[str, Any]]
    comparison: Comparison

    def measured(self, metric: Metric) -> Measured:
        return next(one for one in self.comparison.measured if one.metric == metric)


def decisioning(*arguments: object) -> None:
    """Run a command that is to succeed."""
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    signal.signal(signal.SIGINT, before)
    assert not caught.value.code


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """A world with a known lift, played once, with all that a backtest writes."""
    folder, world, config = tmp_path_factory.mktemp("lift"), World(people=2000, treated=0.25, held=0.1), setup()
    (folder / "shop.yaml").write_text(document())
    events = folder / "events.jsonl"
    events.write_bytes(b"".join(line + b"\n" for line in world.events()))
    names = {"log": "log.jsonl", "examples": "examples.jsonl", "report": "page.html"}
    written = [word for name, file in names.items() for word in (f"--{name}", folder / file)]
    decisioning("backtest", "--config", folder / "shop.yaml", "--events", events, *written)
    log, examples = (
        [orjson.loads(line) for line in (folder / f"{name}.jsonl").read_bytes().splitlines()]
        for name in ("log", "examples")
    )
    cohorts = Cohorts(config)
    for record in reversed(log):
        cohorts.decide(record)
    with events.open("rb") as lines:
        cohorts.read(lines)
    [cohort] = cohorts.cohorts()
    return Played(folder, world, log, examples, compare(cohort))


def test_the_intervals_cover_the_lift_of_a_known_world_at_all_times(played: Played) -> None:
    """In conversion and revenue, though a fifth cannot be written to and a third buys anonymously; and it is found."""
    world, comparison = played.world, played.comparison
    assert comparison.answers
    assert comparison.treated + comparison.held == 0.8 * world.people
    effects: dict[Metric, float] = {
        "conversion": world.treated - world.held,
        "value": (world.treated - world.held) * world.revenue,
        "retention": 0.0,
        "unsubscribed": world.leaves,
    }
    for metric, effect in effects.items():
        one = played.measured(metric)
        assert all(effect in interval for _, interval in one.path)
        assert effect in one.lift.difference
    assert 0.0 not in played.measured("conversion").lift.difference
    assert world.treated / world.held - 1.0 in played.measured("conversion").lift.relative
    assert 0.0 not in played.measured("value").lift.difference
    assert 0.0 in played.measured("retention").lift.difference


def test_the_live_lift_agrees(played: Played) -> None:
    """What the engine posts as examples gives the same counts here, where nobody comes in twice."""
    fold = LiftFold()
    assert {fold.take(record) for record in played.examples} == {None}
    trial = fold.trial("cart")
    assert trial is not None
    conversion = played.measured("conversion")
    for group, live in zip((conversion.treated, conversion.held), trial.groups, strict=True):
        assert (live.count.people, live.count.rate) == (group.people, group.mean)
    assert fold.bounds("cart").mid == conversion.lift.difference.mid


def test_standard_input_is_compared_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It cannot be read again, so that it is kept for the report."""
    events, shop = b"\n".join(World(people=40).events()), tmp_path / "shop.yaml"
    shop.write_text(document())
    pages = []
    for source in (tmp_path / "events.jsonl", "-"):
        (tmp_path / "events.jsonl").write_bytes(events)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(events)))
        decisioning("backtest", "--config", shop, "--events", source, "--report", tmp_path / "page.html")
        pages.append((tmp_path / "page.html").read_text().split("Treatment against holdout")[1])
    assert pages[0] == pages[1]


Run = Callable[..., tuple[int, str, str]]


def test_the_command_prints_a_table_json_and_a_picture(run: Run, played: Played) -> None:  # noqa: F811
    """Of the same numbers; exit 0."""
    files = [word for name in ("log", "events") for word in (f"--{name}", played.folder / f"{name}.jsonl")]
    command = ["lift", "--config", played.folder / "shop.yaml", *files]
    code, out, err = run(*command)
    assert (code, err) == (0, "")
    conversion = played.measured("conversion").lift.difference
    assert f"{100 * conversion.low:+.2f}\N{NO-BREAK SPACE}%" in out
    assert "held out (meant: 20 %)" in out
    picture = played.folder / "lift.png"
    code, out, err = run(*command, "--json", "--png", picture)
    assert (code, err) == (0, "")
    [one] = json.loads(out)["campaigns"]
    assert one["metrics"]["conversion"]["difference"]["low"] == conversion.low
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, out, _ = run("lift", "--examples", played.folder / "examples.jsonl", "--json")
    assert code == 0
    assert json.loads(out)["campaigns"][0]["people"] == one["people"]


def test_the_report_of_a_backtest_has_a_section(played: Played) -> None:
    """With the same numbers, and a drawing for each metric."""
    text = (played.folder / "page.html").read_text()
    assert "Treatment against holdout: cart" in text
    assert f"{100 * played.measured('conversion').lift.difference.low:+.2f}\N{NO-BREAK SPACE}%" in text
    assert text.count('class="middle"') == 4


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "give --config, --log and --events"),
        (["--examples", "x", "--png", "y"], 2, "--examples stands alone"),
        (["--examples", "missing.jsonl"], 2, "missing.jsonl: no such file"),
        (["--examples", "notes.txt"], 2, "line 1 is no JSON object"),
        (["--config", "shop.yaml", "--log", "events.jsonl", "--events", "events.jsonl"], 2, "line 1 lacks 'user_id'"),
        (["--config", "none.yaml", "--log", "log.jsonl", "--events", "events.jsonl"], 1, "no campaign has a holdout"),
        (
            ["--config", "shop.yaml", "--log", "log.jsonl", "--events", "events.jsonl", "--campaign", "x"],
            1,
            "campaign 'x' has no holdout here; there is one for cart",
        ),
        (["--config", "other.yaml", "--log", "log.jsonl", "--events", "events.jsonl"], 1, "made with another holdout"),
        (["--config", "shop.yaml", "--log", "log.jsonl", "--events", "few.jsonl"], 1, "nothing can be said yet"),
        (["--examples", "bad.jsonl"], 2, "line 1: propensity"),
    ],
)
def test_no_answer_is_said_in_words(
    run: Run,  # noqa: F811
    played: Played,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    """Exit 1 where there is none or it is not to be trusted, 2 where the use is wrong; one line on stderr."""
    monkeypatch.chdir(played.folder)
    Path("none.yaml").write_text(document({"share": 0.0}))
    Path("other.yaml").write_text(document({"share": 0.2, "salt": "summer"}))
    Path("few.jsonl").write_bytes(b"\n".join(Path("events.jsonl").read_bytes().split(b"\n")[:40]))
    Path("notes.txt").write_text("to do\n")
    held = next(record for record in played.examples if record["policy"] == "cart/holdout")
    Path("bad.jsonl").write_text(json.dumps(held | {"propensity": 2.0}))
    got, _, err = run("lift", *arguments)
    assert got == code
    assert said in err
    assert err.count("\n") == 1
