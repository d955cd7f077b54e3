"""How a run tells what it does: typed events, whoever listens.

Work functions get a `Reporter` and know nothing of processes or gRPC. In a service the events travel to the
parent through a pipe (`stage/child.py`); in the document's four commands they go to the terminal
(`stage/terminal.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from google.protobuf import json_format, struct_pb2

from cutoff.artifacts import Published
from cutoff.v1 import types_pb2

Sink = Callable[[types_pb2.Event], None]
"""Takes one event; the reporter has stamped its time, the receiver numbers it."""


class Counter:
    """One phase of work that is counted: steps, questions, tensors, bytes.

    `at` may be called as often as the work likes; at most one event per `interval` seconds goes out,
    apart from the first and the last.
    """

    def __init__(self, reporter: Reporter, phase: str, unit: str, total: int, interval: float) -> None:
        self._reporter = reporter
        self._phase = phase
        self._unit = unit
        self._total = total
        self._interval = interval
        self._started = time.monotonic()
        self._first = 0
        self._sent = float("-inf")

    def start_at(self, step: int) -> None:
        """Says that `step` units were done earlier (a resumed run), so that the rate counts only new ones."""
        self._first = step

    def at(self, step: int, loss: float | None = None) -> None:
        """Says that `step` units are done; `loss` is the newest training loss, if there is one."""
        now = time.monotonic()
        if step < self._total and now - self._sent < self._interval:
            return
        self._sent = now
        elapsed = now - self._started
        rate = (step - self._first) / elapsed if elapsed > 0 else 0.0
        eta = (self._total - step) / rate if rate > 0 and self._total else None
        progress = types_pb2.Progress(
            unit=self._unit, step=step, total=self._total, loss=loss, rate=rate, eta_seconds=eta, phase=self._phase
        )
        self._reporter.send(progress=progress)


class Reporter:
    """What a work function tells the world through.

    Args:
        sink: Where events go.
        interval: Seconds between two progress events of one phase.
    """

    def __init__(self, sink: Sink, interval: float = 1.0) -> None:
        self._sink = sink
        self._interval = interval

    def send(self, **kind: Any) -> None:
        """Sends one event; the keyword is the name of the oneof field of `Event`."""
        event = types_pb2.Event(**kind)
        event.time.GetCurrentTime()
        self._sink(event)

    def forward(self, event: types_pb2.Event) -> None:
        """Passes on an event that another process's reporter made."""
        self._sink(event)

    def counter(self, phase: str, unit: str, total: int = 0) -> Counter:
        """Counts one phase of work; says its beginning at once. `total` 0 means that the end is not known."""
        counter = Counter(self, phase, unit, total, self._interval)
        counter.at(0)
        return counter

    @contextmanager
    def phase(self, phase: str, unit: str, total: int = 0) -> Iterator[Counter]:
        """`counter` for the length of a block."""
        yield self.counter(phase, unit, total)

    def log(self, text: str, level: str = "INFO") -> None:
        """Says one line: level is DEBUG, INFO, WARNING or ERROR."""
        self.send(log_line=types_pb2.LogLine(level=level, text=text))

    def warn(self, text: str) -> None:
        """Says one line that the user should read."""
        self.log(text, "WARNING")

    def metric(self, name: str, value: float, **labels: str) -> None:
        """Reports one measured value under its Prometheus name (base units)."""
        self.send(metric=types_pb2.Metric(name=name, value=value, labels=labels))

    def artifact(self, kind: str, published: Published, **labels: str) -> None:
        """Reports a file or folder that is complete under its final name."""
        self.send(
            artifact=types_pb2.Artifact(
                kind=kind,
                path=str(published.path),
                size_bytes=published.size_bytes,
                sha256=published.sha256,
                labels=labels,
            )
        )

    def finished(self, result: Mapping[str, Any]) -> None:
        """Says that the work is done; `result` is the stage's summary (JSON values only)."""
        struct = json_format.ParseDict(dict(result), struct_pb2.Struct())
        self.send(finished=types_pb2.Finished(result=struct))


def silent() -> Reporter:
    """A reporter nobody listens to."""
    return Reporter(lambda _: None)
