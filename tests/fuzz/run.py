"""Coverage-guided fuzzing of all targets at once: `python -m tests.fuzz.run 60 [target …]`.

What libFuzzer learns stays in `.cache/fuzz/<target>/corpus`, so the next run goes on from there.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
CACHE = ROOT / ".cache" / "fuzz"
WATCHED = ["bandits", "decisioning", "features", "streams.changelog", "streams.dead_letters", "json", "yaml"]
MAX_INPUT_BYTES = 16_384
SLOWEST_S = 30


def inside(name: str, options: list[str]) -> None:
    """Fuzz one target in this process, until libFuzzer ends it."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=WATCHED):
        from tests.fuzz.targets import TARGETS
    warnings.simplefilter("error")  # a number that overflows is a finding, as in the tests
    atheris.Setup([name, *options], TARGETS[name])
    atheris.Fuzz()


def prepare(name: str) -> list[str]:
    """Write seeds and dictionary; gives libFuzzer's options for them."""
    from tests.fuzz.seeds import TOKENS, seeds

    corpus = CACHE / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = ["".join(f"\\x{byte:02x}" for byte in token) for token in TOKENS]
    dictionary = CACHE / name / "words"
    dictionary.write_text("".join(f'"{word}"\n' for word in words))
    return [f"-dict={dictionary}", f"-artifact_prefix={CACHE / name}/", str(corpus)]


def main(seconds: int, names: list[str]) -> int:
    """Fuzz targets side by side; returns the exit code."""
    from tests.fuzz.targets import TARGETS

    if unknown := set(names) - TARGETS.keys():
        sys.stderr.write(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}\n")
        return 2
    running = {}
    for name in names or list(TARGETS):
        options = [*prepare(name), f"-max_total_time={seconds}", f"-max_len={MAX_INPUT_BYTES}"]
        options += [f"-timeout={SLOWEST_S}", "-print_final_stats=1", "-rss_limit_mb=4096"]
        for found in [*(CACHE / name).glob("crash-*"), *(CACHE / name).glob("timeout-*")]:
            found.unlink()
        command = [sys.executable, "-m", "tests.fuzz.run", "inside", name, *options]
        with (CACHE / name / "log").open("wb") as log:
            running[name] = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    failed = {name for name, process in running.items() if process.wait() != 0}
    for name in running:
        sys.stdout.write(_said(name, failed=name in failed))
    return 1 if failed else 0


def _said(name: str, *, failed: bool) -> str:
    log = (CACHE / name / "log").read_text(errors="replace")
    runs = re.findall(r"number_of_executed_units: (\d+)", log)
    said = f"{name}: {int(runs[-1]) if runs else 0:,} executions, {'FAILED' if failed else 'nothing found'}\n"
    if not failed:
        return said
    raised = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception|Warning|Corrupt\w+).*$", log, re.MULTILINE)
    said += f"  {raised[0][:300] if raised else 'no exception'}; all of it in {CACHE / name / 'log'}\n"
    for found in [*(CACHE / name).glob("crash-*"), *(CACHE / name).glob("timeout-*")]:
        said += f"  once mended, keep the input in tests/fuzz/corpus/{name}.txt:\n{found.read_bytes()!r}\n"
    return said


if __name__ == "__main__":
    if sys.argv[1] == "inside":
        inside(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
