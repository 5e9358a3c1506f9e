"""The commands `copy suggest` and `copy review`, from the file to the file, and the server they may ask."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from decisioning import config as configuration
from decisioning import drafts
from decisioning.findings import ConfigError
from streams import cli, copywriting, generators
from streams.failure import Failure

SHOP = (Path(__file__).parent / "configs" / "shop.yaml").read_text("utf-8")
SUBJECT = ("campaigns", 0, "variants", "subject")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DECISIONING_"):
            monkeypatch.delenv(name)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A configuration of one's own."""
    path = tmp_path / "shop.yaml"
    path.write_text(SHOP, "utf-8")
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command of `copy` here; gives exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main(["copy", *map(str, arguments)])
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return call


def suggested(run: Run, shop: Path, count: int = 2) -> list[str]:
    """Names of drafts that were just written."""
    code, out, err = run("suggest", "--config", shop, "--campaign", "cart-abandonment", "--count", count)
    assert code == 0, err
    return [line.split()[0] for line in out.splitlines()]


# The commands


def test_suggest_and_review_from_end_to_end(run: Run, shop: Path) -> None:
    """Drafts with provenance come into the file, comments and layout stay, and the verdicts are recorded."""
    shop.write_text(SHOP.replace("version: 1", "version: 1   # ours"))
    shop.chmod(0o640)
    before = shop.read_text().splitlines()
    first, second = suggested(run, shop)
    assert [line for line in shop.read_text().splitlines() if line in before] == before
    loaded = configuration.load(shop.read_text())
    made = [one for _, one in drafts.entries(loaded, None)][-2:]
    assert [one.variant.status for one in made] == ["draft", "draft"]
    assert made[0].variant.provenance is not None
    assert made[0].variant.provenance.generator == "grammar"
    code, out, _ = run("review", "--config", shop)
    assert (code, [line.split()[0] for line in out.splitlines()]) == (0, [first, second])

    code, out, err = run(
        "review",
        "--config",
        shop,
        "--approve",
        first,
        "--reject",
        second.rpartition("/")[2],
        "--by",
        "Ann B.",
        "--note",
        "too: dull",
    )
    assert (code, err) == (0, "")
    made = [one for _, one in drafts.entries(configuration.load(shop.read_text()), None)][-2:]
    assert [one.variant.status for one in made] == ["approved", "rejected"]
    for one in made:
        assert one.variant.provenance is not None
        assert (one.variant.provenance.reviewed_by, one.variant.provenance.note) == ("Ann B.", "too: dull")
        assert one.variant.provenance.reviewed_text == one.variant.text_hash
    assert shop.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in shop.parent.iterdir()] == ["shop.yaml"]

    code, _, err = run("suggest", "--config", shop, "--campaign", "cart-abandonment", "--count", "2")
    assert code == 0
    assert err.count("duplicate: the slot has it already") >= 2  # the rejected one too


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("suggest", "--campaign", "nope"), 2, "name one of them"),
        (("suggest", "--campaign", "cart-abandonment", "--slot", "nope"), 2, "campaign cart-abandonment has subject"),
        (("suggest", "--campaign", "cart-abandonment", "--generator", "magic"), 2, "expected grammar or http"),
        (("suggest", "--campaign", "cart-abandonment", "--generator", "http"), 2, "set DECISIONING_COPY_URL"),
        (("suggest", "--campaign", "cart-abandonment", "--grammar", "/nope"), 2, "check the path"),
        (("suggest",), 2, "--campaign"),
        (("review", "--approve", "plain", "--by", "ann"), 1, "plain is approved already"),
        (("review", "--approve", "nope", "--by", "ann"), 1, "there is no variant nope"),
        (("review", "--approve", "plain"), 2, "give --by NAME"),
        (("review", "--approve", "plain", "--by", "a\nb"), 2, "give --by NAME"),
        (("review", "--campaign", "nope"), 2, "name one of them"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_changes_nothing(
    run: Run, shop: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    """Exit 2 for wrong use, 1 for no, a remedy, and the file untouched."""
    got, out, err = run(*arguments, "--config", shop)
    assert (got, out, err.count("\n")) == (code, "", 1), err
    assert said in err
    assert shop.read_text("utf-8") == SHOP


def test_without_a_configuration_it_is_wrong_use(run: Run) -> None:
    """The variable and the flag are named."""
    code, _, err = run("review")
    assert (code, "DECISIONING_CONFIG" in err) == (2, True)


def test_a_draft_that_breaks_a_guardrail_is_not_approved(run: Run, shop: Path) -> None:
    """The file as it would be is checked before it is written; nothing of the review is."""
    draft = '        - {id: bad, status: draft, text: "GUARANTEED"}\n    goal:'
    shop.write_text(SHOP.replace("    goal:", draft))
    before = shop.read_text()
    good = suggested(run, shop, 1)[0]
    with_good = shop.read_text()
    assert with_good != before
    code, out, err = run("review", "--config", shop, "--approve", good, "--approve", "bad", "--by", "ann")
    assert (code, out) == (1, "")
    assert '"guaranteed" is banned' in err
    assert shop.read_text() == with_good


def test_a_hand_written_draft_gets_its_record_too(run: Run, shop: Path) -> None:
    """Who and when stands beside it; later changes of the words are noticed."""
    shop.write_text(SHOP.replace("{id: plain,", "{id: plain, status: draft,"))
    assert run("review", "--config", shop, "--approve", "plain", "--by", "ann")[0] == 0
    text = shop.read_text()
    configuration.load(text)
    with pytest.raises(ConfigError, match="changed since"):
        configuration.load(text.replace("Still thinking", "Already thinking"))


def test_a_file_that_changed_meanwhile_is_not_overwritten(shop: Path) -> None:
    """Another's edit between reading and writing wins."""
    file = copywriting.File(shop, b"older", configuration.load(SHOP))
    with pytest.raises(Failure, match="changed by somebody else"):
        copywriting._write(file, SHOP)
    assert shop.read_text("utf-8") == SHOP


def test_a_dry_run_writes_nothing(run: Run, shop: Path) -> None:
    """It shows what it would write."""
    code, out, err = run("suggest", "--config", shop, "--campaign", "cart-abandonment", "--dry-run")
    assert (code, out.count("\n"), "would be added" in err) == (0, 5, True)
    assert shop.read_text("utf-8") == SHOP


# A server


class Server(BaseHTTPRequestHandler):
    """Answers as it is told and keeps what it was asked."""

    answer: ClassVar[tuple[int, str]] = (200, "")
    asked: ClassVar[list[tuple[str, str | None, dict[str, Any]]]] = []
    wait: ClassVar[threading.Event] = threading.Event()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, self.headers["Authorization"], body))
        self.wait.wait(30)
        status, text = self.answer
        try:
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.end_headers()
            self.wfile.write(text.encode())
        except OSError:  # who asked has gone
            return

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    """Base URL of a server on the loopback."""
    Server.asked, Server.wait = [], threading.Event()
    Server.wait.set()
    with HTTPServer(("127.0.0.1", 0), Server) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/v1"
        Server.wait.set()
        http.shutdown()
        thread.join()


def completion(content: str) -> str:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]})


def ask(run: Run, shop: Path, url: str, *more: object) -> tuple[int, str, str]:
    return run(
        "suggest",
        "--config",
        shop,
        "--campaign",
        "cart-abandonment",
        "--generator",
        "http",
        "--copy-url",
        url,
        "--copy-model",
        "tiny",
        *more,
    )


def test_a_server_is_asked_and_its_answer_screened(
    run: Run, shop: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key travels in the header and is nowhere in the file; nothing personal is asked; refusals are told."""
    monkeypatch.setenv("DECISIONING_COPY_KEY", "s3cret-key")
    Server.answer = 200, completion('```json\n["Boots on your mind?", "FREE boots", "{{ user.email }}", 7]\n```')
    code, out, err = ask(run, shop, server, "--brief", "warm and short")
    assert code == 0, err
    assert "Boots on your mind?" in out
    assert "intent: a gift" in err
    assert "user.email has no default" in err
    ((path, authorization, body),) = Server.asked
    assert (path, authorization, body["model"]) == ("/v1/chat/completions", "Bearer s3cret-key", "tiny")
    assert "warm and short" in body["messages"][1]["content"]
    assert "s3cret-key" not in shop.read_text() + out + err + json.dumps(body)
    made = [one for _, one in drafts.entries(configuration.load(shop.read_text()), None)][-1].variant
    assert made.provenance is not None
    assert (made.status, made.provenance.generator, made.provenance.model) == ("draft", "http", "tiny")


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (401, "", "set DECISIONING_COPY_KEY"),
        (404, "", "does the URL end in /v1"),
        (429, "", "try again later"),
        (302, "", "redirects are not followed"),
        (500, "", "see the server's log"),
        (200, "<html>", "no chat completion"),
        (200, "[1]", "no chat completion"),
        (200, '{"choices": []}', "no chat completion"),
        (200, "[" * 100_000, "no chat completion"),
        (200, completion("x" * (1 << 20)), "more than 1 MB"),
        (200, completion("[]"), "none of 0 proposed texts"),
    ],
)  # fmt: skip
def test_a_server_that_does_not_help_is_one_line(
    run: Run, shop: Path, server: str, status: int, answer: str, said: str
) -> None:
    """Whatever it answers, the file stays as it is, and the line says what to do."""
    Server.answer = status, answer
    code, out, err = ask(run, shop, server)
    assert (code, out, err.count("\n")) == (1, "", 1), err
    assert said in err
    assert shop.read_text("utf-8") == SHOP


def test_a_server_that_does_not_answer_is_one_line(run: Run, shop: Path, server: str) -> None:
    """Neither a refused connection nor a silent server hangs the command."""
    code, _, err = ask(run, shop, "http://127.0.0.1:9/v1")
    assert (code, "does not answer" in err) == (1, True)
    Server.wait.clear()
    code, _, err = ask(run, shop, server, "--timeout", "0.2")
    assert (code, "did not answer within 0.2 s" in err) == (1, True)


def test_a_key_does_not_travel_unencrypted() -> None:
    """Not to another machine; and no representation shows it."""
    generator = generators.HttpGenerator("http://api.example.com/v1", "m", "s3cret-key")
    loaded = configuration.load(SHOP)
    with pytest.raises(Failure, match="unencrypted"):
        generator.propose(drafts.brief_of(loaded, loaded.campaigns[0], "subject", ""), 1)
    assert "s3cret" not in repr(generator)


@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        ('["a", "b"]', ("a", "b")),
        ('{"texts": ["a"]}', ("a",)),
        ('```\n["a"]\n```', ("a",)),
        ("1. a\n\n- b\n* c", ("a", "b", "c")),
        ("7", ()),
        ("{}", ()),
        ("", ()),
        ('["a", 1, null]', ("a",)),
    ],
)
def test_answers_are_read_as_models_write_them(answer: str, texts: tuple[str, ...]) -> None:
    """JSON as was asked for, fenced, in an object, or a plain list."""
    assert generators.texts_of(answer) == texts
