"""Logs on stderr: for people on a terminal, JSON elsewhere; job, stage and attempt in each line of a run.

CUTOFF_LOG_FORMAT is human or json (default: human on a terminal), CUTOFF_LOG_LEVEL a level of `logging`.
"""

from __future__ import annotations

import logging
import os
import sys

import structlog

_SHARED: list[structlog.types.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure_logs(service: str) -> None:
    """Sets up logging for this process; what libraries log goes the same way, from WARNING up.

    Args:
        service: The name each line carries.
    """
    human = os.environ.get("CUTOFF_LOG_FORMAT", "human" if sys.stderr.isatty() else "json") == "human"
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if human else structlog.processors.JSONRenderer()
    )
    last: list[structlog.types.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if not human:
        last.append(structlog.processors.format_exc_info)
    formatter = structlog.stdlib.ProcessorFormatter(processors=[*last, renderer], foreign_pre_chain=_SHARED)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("cutoff").setLevel(os.environ.get("CUTOFF_LOG_LEVEL", "INFO").upper())
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)


def bind_run(job: str, stage: str, attempt: int) -> None:
    """Puts job, stage and attempt into every line that this task or process logs from now on."""
    structlog.contextvars.bind_contextvars(job=job, stage=stage, attempt=attempt)


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one module (pass `__name__`)."""
    bound: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return bound
