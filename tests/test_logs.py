"""Log lines: one JSON object each, and nothing personal in a stack trace."""

from __future__ import annotations

import json
import subprocess
import sys

CODE = """
import logging, structlog
from streams import logs
logs.configure()
log = structlog.get_logger("worker")
log.info("worker started", partitions=4, web="http://127.0.0.1:6066")
log.debug("not shown")
logging.getLogger("asyncio").warning("slow %s", "callback")
logging.getLogger("aiokafka.client").error("handled by us")
def decide(address):
    return 1 / 0
try:
    decide("ann@example.com")
except ZeroDivisionError as error:
    log.critical("unexpected", exc_info=error)
"""


def test_lines_are_json_and_hold_no_variables() -> None:
    """Away from a terminal each line is an object; a trace names the place and never what was there."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    started, slow, unexpected = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.stdout == ""
    assert (started["event"], started["level"], started["partitions"]) == ("worker started", "info", 4)
    assert started["timestamp"].endswith("Z")
    assert (slow["event"], slow["level"]) == ("slow callback", "warning")
    assert "ZeroDivisionError" in unexpected["exception"]
    assert "in decide" in unexpected["exception"]
    assert "ann@example.com" not in unexpected["exception"]
