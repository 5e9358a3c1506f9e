"""Log lines of a worker: JSON for machines, short lines on a terminal; stack traces never show variables.

Local variables hold events, and events hold addresses, which are not to be in any log.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

import orjson
import structlog
from structlog.typing import Processor

# What they report our code handles, and says itself where it matters.
QUIET: Final = {"aiokafka": logging.CRITICAL, "faust": logging.ERROR, "mode": logging.ERROR}


def configure(level: int = logging.INFO) -> None:
    """Send our lines, and the warnings of libraries, to stderr."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    ends = _for_people() if sys.stderr.isatty() else _for_machines()
    structlog.configure(
        processors=[*shared, *ends],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    strip = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[strip, *ends]))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name, least in QUIET.items():
        logging.getLogger(name).setLevel(least)


def _for_people() -> list[Processor]:
    return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]


def _for_machines() -> list[Processor]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]


def _json(event: dict[str, Any], **_options: Any) -> str:
    return orjson.dumps(event, default=repr).decode()
