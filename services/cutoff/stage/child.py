"""The inside of a run's process: set-up, the work, and how each way of ending becomes an event."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

from cutoff.artifacts import Roots, attempt_folder
from cutoff.errors import Cancelled, CutoffError, as_cutoff_error
from cutoff.process import die_with_parent
from cutoff.rpc import failure_of
from cutoff.stage.context import RunContext
from cutoff.stage.devices import holding, show_only
from cutoff.stage.lease import HEARTBEAT_SECONDS
from cutoff.stage.report import Reporter
from cutoff.telemetry import bind_run, configure_logs
from cutoff.v1 import types_pb2

LOG = "log.txt"
"""In the attempt's folder: what its processes print, and what the run says."""

Work = Callable[[Any, RunContext], Mapping[str, Any]]
"""A stage's work: (request, context) -> result, called in the child's main thread."""


LOG = "log.txt"
"""What a run prints, in its attempt's folder; the first thing it makes there."""


class Stopped(BaseException):
    """SIGTERM arrived. Not an Exception, so that nothing on the way out takes it for a failure of its own."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Everything a child is given; it is pickled."""

    service: str
    target: str
    """module:function of the work."""
    request: Any
    """The proto request; its header is in `run`."""
    roots: Roots
    locks: Path


def run_child(assignment: Assignment, events: Connection, lifeline: Connection) -> None:
    """The child's main function. Its last event is finished or failed, unless it is killed."""
    os.setpgrp()
    die_with_parent(os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_end_with_service, args=(lifeline,), daemon=True).start()
    key = assignment.request.run.key
    folder = attempt_folder(assignment.roots.artifacts, key.job, key.stage, key.attempt)
    send = _pipe(events, assignment.roots.artifacts)
    report = Reporter(send)
    threading.Thread(target=_live, args=(send,), daemon=True).start()
    try:
        report.finished(_work(assignment, _set_up(assignment, folder, report)))
    except BaseException as error:  # noqa: BLE001 - the process ends here; whatever it was must be told
        report.send(failed=failure_of(_told(error, folder)))
    events.close()


def _set_up(assignment: Assignment, folder: Path, report: Reporter) -> RunContext:
    """Makes the attempt's folder, and sends there what this process prints."""
    header = assignment.request.run
    key = header.key
    folder.mkdir(parents=True, exist_ok=True)
    _log_to(folder / LOG)
    configure_logs(assignment.service)
    bind_run(key.job, key.stage, key.attempt)
    return RunContext(key, folder, assignment.roots, tuple(header.devices), report)


def _work(assignment: Assignment, context: RunContext) -> Mapping[str, Any]:
    """Holds the devices, then does the work."""
    with holding(context.devices, assignment.locks, share=assignment.request.run.device_share or 1.0):
        visible = show_only(context.devices)
        started = types_pb2.Started(pid=os.getpid(), host=os.uname().nodename, devices=context.devices)
        context.report.send(started=started)
        module, _, name = assignment.target.partition(":")
        work: Work = getattr(importlib.import_module(module), name)
        return work(assignment.request, replace(context, devices=visible))


def _pipe(events: Connection, artifacts: Path) -> Callable[[types_pb2.Event], None]:
    """A sink that sends events to the service; artifact paths become relative to the artifacts root."""
    lock = threading.Lock()

    def send(event: types_pb2.Event) -> None:
        if event.WhichOneof("kind") == "artifact" and Path(event.artifact.path).is_relative_to(artifacts):
            event.artifact.path = str(Path(event.artifact.path).relative_to(artifacts))
        said = _line_of(event)
        with lock:
            events.send_bytes(event.SerializeToString())
            if said:
                _write_down(said)

    return send


def _live(send: Callable[[types_pb2.Event], None]) -> None:
    """Tells the service again and again that this process is there, whatever its work is busy with."""
    while True:
        try:
            send(types_pb2.Event(heartbeat=types_pb2.Heartbeat()))
        except OSError:  # the pipe is closed: the last event was sent
            return
        time.sleep(HEARTBEAT_SECONDS)


def _line_of(event: types_pb2.Event) -> str:
    """What an event adds to the log; "" for those that are for programs."""
    stamp = event.time.ToDatetime().isoformat(timespec="seconds")
    match event.WhichOneof("kind"):
        case "log_line":
            return f"{stamp} {event.log_line.level} {event.log_line.text}"
        case "artifact":
            return f"{stamp} INFO {event.artifact.kind}: {event.artifact.path}"
        case "failed":
            return f"{stamp} ERROR {event.failed.message}"
    return ""


def _write_down(line: str) -> None:
    """Adds a line to what this process prints. A full disk does not end the run for the sake of its log."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())


def _told(error: BaseException, folder: Path) -> CutoffError:
    """The error the run ends with. What cutoff did not raise itself leaves its traceback in the log, if it can."""
    if isinstance(error, Stopped):
        return Cancelled("the run was asked to stop")
    if not isinstance(error, CutoffError):
        with contextlib.suppress(OSError):
            traceback.print_exception(error)
    return as_cutoff_error(error, str(folder)) or CutoffError(
        f"{type(error).__name__}: {error}", f"this is a bug in cutoff; the traceback is in {folder}/{LOG}"
    )


def _stop(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the clean-up is not interrupted a second time
    raise Stopped


def _end_with_service(lifeline: Connection) -> None:
    """Waits until the service that holds the other end is gone, then ends this whole process group."""
    try:
        lifeline.recv_bytes()
    except (EOFError, OSError):
        os.killpg(0, signal.SIGKILL)


def _log_to(path: Path) -> None:
    """Sends everything this process prints, programs it starts included, to a file beside the artifacts."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
