"""Reads what a job's runs printed and said, from their log.txt below the artifacts root, while it is being written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from cutoff.artifacts import attempt_folder
from cutoff.coordinator.job import OPEN, TERMINAL
from cutoff.stage.child import LOG
from cutoff.telemetry.rotation import rotated
from cutoff.v1 import job_pb2, types_pb2

_PIECE = 256 << 10
"""Bytes read at a time; a message may have sixteen times as many."""
_PAUSE = 0.5
"""Seconds between two looks at a file that grows."""

Lines = tuple[types_pb2.RunKey, Sequence[str]]


class Tail:
    """A file that grows, read in whole lines. It may be cut off at the front: then it is read from its beginning."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._rest = b""

    def news(self, at_end: bool = False) -> list[str]:
        """The lines since the last call, at most a piece of them; none when there is nothing new.

        Args:
            at_end: Nobody writes any more: a last line without an end is one too.
        """
        content = self._next()
        if not content and not at_end:
            return []
        *lines, self._rest = (self._rest + content).split(b"\n")
        if (at_end and not content and self._rest) or len(self._rest) > _PIECE:
            lines, self._rest = [*lines, self._rest], b""
        if at_end and content and not lines:
            return self.news(at_end)
        return [line.decode("utf-8", "replace") for line in lines]

    def _next(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._read:
                    self._read, self._rest = 0, b""
                file.seek(self._read)
                content = file.read(_PIECE)
        except FileNotFoundError:
            return b""
        self._read += len(content)
        return content


async def read_logs(
    job: Callable[[], job_pb2.Job], artifacts: Path, stage: str = "", follow: bool = False
) -> AsyncIterator[Lines]:
    """The lines of a job's runs, by attempt in the order of their start; runs side by side take turns.

    Args:
        job: Gives the job's record as it is now.
        artifacts: The root.
        stage: Of this stage only; "" for all.
        follow: Go on until the job has ended.
    """
    tails: dict[tuple[str, int], Tail] = {}
    over: set[tuple[str, int]] = set()
    while True:
        record = job()
        ended = record.state in TERMINAL and not any(attempt.state in OPEN for attempt in record.attempts)
        for attempt in record.attempts:
            key, mark = attempt.key, (attempt.key.stage, attempt.key.attempt)
            if (stage and key.stage != stage) or mark in over:
                continue
            at_end = attempt.state not in OPEN
            if mark not in tails:
                log = attempt_folder(artifacts, key.job, key.stage, key.attempt) / LOG
                tails[mark] = Tail(log)
                earlier = Tail(rotated(log))
                while lines := await asyncio.to_thread(earlier.news, True):
                    yield key, lines
            tail = tails[mark]
            while lines := await asyncio.to_thread(tail.news, at_end):
                yield key, lines
            if at_end:
                over.add(mark)
        if ended or not follow:
            return
        await asyncio.sleep(_PAUSE)
