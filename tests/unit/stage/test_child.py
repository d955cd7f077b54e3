"""What a run's process tells when it cannot even begin, and what a command in a terminal makes of the same."""

import errno
import os
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest

from cutoff.artifacts import Roots
from cutoff.errors import NotFound
from cutoff.stage import child
from cutoff.stage.child import Assignment, run_child
from cutoff.stage.report import Reporter
from cutoff.stage.terminal import EXIT_FAILED, EXIT_USAGE, run_in_terminal
from cutoff.v1 import merger_pb2, types_pb2

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets run_child run here: without its process group, its signals and its hold on stdout."""
    for name in ("os.setpgrp", "signal.signal", "threading.Thread"):
        monkeypatch.setattr(
            f"cutoff.stage.child.{name}", lambda *_, **__: type("Idle", (), {"start": lambda _: None})()
        )
    monkeypatch.setattr(child, "die_with_parent", lambda _: None)
    for name in ("configure_logs", "bind_run", "show_only"):
        monkeypatch.setattr(child, name, lambda *_: ())


def ended(artifacts: Path) -> types_pb2.Failure:
    events, child_events = Pipe(duplex=False)
    lifeline, _ = Pipe(duplex=False)
    roots = Roots(artifacts, artifacts, artifacts, artifacts)
    request = merger_pb2.MergeRequest(run={"key": {"job": "j", "stage": "merge", "attempt": 1}})
    assignment = Assignment("merger", "tests.unit.stage.work_for_tests:crash", request, roots, artifacts)
    run_child(assignment, child_events, lifeline)
    heard = []
    while events.poll():
        try:
            heard.append(types_pb2.Event.FromString(events.recv_bytes()))
        except EOFError:
            break
    return heard[-1].failed


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, "DISK_FULL"), (errno.EROFS, "FAILED_PRECONDITION"), (errno.EACCES, "FAILED_PRECONDITION")],
)
def test_an_artifacts_root_that_takes_no_folder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    def refuse(folder: Path, **_: Any) -> None:
        raise OSError(number, os.strerror(number), str(folder))

    monkeypatch.setattr(Path, "mkdir", refuse)
    failed = ended(tmp_path)
    assert failed.reason == reason
    assert str(tmp_path / "jobs/j/merge/1") in failed.message
    assert failed.remedy


@pytest.mark.usefixtures("in_this_process")
def test_a_log_that_takes_no_line_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise FULL

    monkeypatch.setattr(child, "_log_to", full)
    assert ended(tmp_path).reason == "DISK_FULL"


@pytest.mark.usefixtures("in_this_process")
def test_a_bug_is_told_though_its_traceback_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise FULL

    monkeypatch.setattr(child, "_log_to", lambda _: None)
    monkeypatch.setattr("traceback.print_exception", full)
    failed = ended(tmp_path)
    assert (failed.reason, failed.message) == ("INTERNAL", "ZeroDivisionError: a bug")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (FULL, EXIT_FAILED, "the disk ran full while writing the output"),
        (PermissionError(errno.EACCES, "Permission denied", "/out"), EXIT_FAILED, "no access to /out"),
        (MemoryError(), EXIT_FAILED, "out of memory"),
        (NotFound("no such model"), EXIT_USAGE, "no such model"),
    ],
)
def test_a_command_prints_an_error_instead_of_a_traceback(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int, said: str
) -> None:
    def work(_: Any) -> None:
        raise error

    assert run_in_terminal(work) == code
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown


def test_a_command_words_what_it_shows_as_it_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    def work(report: Reporter) -> None:
        report.warn("raise train.epochs")
        raise NotFound("no train.epochs", "give train.epochs")

    assert run_in_terminal(work, wording=lambda text: text.replace("train.epochs", "--epochs")) == EXIT_USAGE
    shown = capsys.readouterr().err.splitlines()
    assert shown == ["raise --epochs", "error: no --epochs", "  what to do: give --epochs"]


def test_a_bug_keeps_its_traceback() -> None:
    def work(_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_in_terminal(work)
