"""Who changed what: one JSON line per call that changes something, refused ones included.

Lines go to the log, and for a coordinator to audit.jsonl in its state folder, which is only ever appended to and
rotated at 10 MiB (ten old ones are kept). A line is written when the call has ended, and says how.
"""

from __future__ import annotations

import datetime
import json
import logging
import logging.handlers
import os
from pathlib import Path
from typing import Any

from cutoff.telemetry import logger

_LOG = logger(__name__)

AUDIT = "audit.jsonl"
"""In a coordinator's state folder."""

_BYTES, _KEPT = 10 << 20, 10
_LONGEST = 200
"""Characters of what a caller sent that are kept."""

_READING = ("Get", "List", "Watch", "Check", "Read")


def changes(method: str) -> bool:
    """Whether a method changes something: whatever does not say by its name that it only reads."""
    return not method.rpartition("/")[2].startswith(_READING)


class Audit:
    """Writes the lines.

    Args:
        path: The file; None for the log only.
        log: Whether the lines go to the log too; a command has none.
    """

    def __init__(self, path: Path | None = None, log: bool = True) -> None:
        self._log = log
        self._file: logging.Handler | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _Private(path, maxBytes=_BYTES, backupCount=_KEPT, encoding="utf-8", delay=True)

    def note(self, who: str, what: str, about: str, where: str, outcome: str) -> None:
        """Writes one line; a file that cannot be written is reported in the log and stops no call.

        Args:
            who: "token:alice", "certificate:coordinator", "local", or "unknown" for a caller that was refused.
            what: The method, "JobService/SubmitJob".
            about: The job or run, as far as it is known.
            where: The caller's address.
            outcome: OK, or the name of the status code.
        """
        fields = {"who": who, "what": what, "about": about[:_LONGEST], "from": where, "outcome": outcome}
        if self._log:
            _LOG.info("audit", **fields)
        if self._file is not None:
            time = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
            line = json.dumps({"time": time, **fields})
            self._file.handle(logging.LogRecord(AUDIT, logging.INFO, "", 0, line, None, None))

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()


class _Private(logging.handlers.RotatingFileHandler):
    """A rotated file that only this user can read."""

    def _open(self) -> Any:
        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=_opener)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        _LOG.exception("the audit cannot be written", line=record.getMessage())


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def about(request: Any, response: Any = None) -> str:
    """Which job or run a call is about, from its messages; "" where they do not say."""
    for message in (response, request):
        fields = message.DESCRIPTOR.fields_by_name if message is not None else {}
        if "job" in fields and message.HasField("job"):
            return str(message.job.name)
        if "name" in fields:
            return str(message.name)
    fields = request.DESCRIPTOR.fields_by_name
    key = request.run.key if "run" in fields else request.key if "key" in fields else None
    if key is not None:
        return f"{key.job}/{key.stage}/{key.attempt}"
    spec = request.spec if "spec" in fields else None
    named = spec is not None and "name" in spec.DESCRIPTOR.fields_by_name
    return str(spec.name) if spec is not None and named else ""
