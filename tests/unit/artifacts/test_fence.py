"""Which attempt may change what lies outside of its folder."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from cutoff.artifacts import NOBODY, counting, fence, let_count
from cutoff.errors import Refused, Unavailable


def test_the_attempt_that_was_let_counts_and_no_other(tmp_path: Path) -> None:
    for newest in (1, 2, 10):
        let_count(tmp_path, newest)
        with counting(tmp_path, newest):
            pass
        for other in (newest - 1, newest + 1, newest * 10):
            with pytest.raises(Refused, match=f"attempt {other} "), counting(tmp_path, other):
                pytest.fail("it does not count")


def test_none_counts_before_one_was_let_or_after_it_was_given_up(tmp_path: Path) -> None:
    with pytest.raises(Refused), counting(tmp_path, 1):
        pytest.fail("it was never let")
    let_count(tmp_path / "new", 1)
    let_count(tmp_path / "new", NOBODY)
    with pytest.raises(Refused), counting(tmp_path / "new", 1):
        pytest.fail("it was given up")


def _change(folder: Path, target: Path) -> None:
    """Takes its time between looking and changing."""
    with counting(folder, 1):
        (folder / "looked").touch()
        time.sleep(1.0)
        target.touch()


def test_the_number_does_not_change_under_one_that_is_changing(tmp_path: Path) -> None:
    let_count(tmp_path, 1)
    target = tmp_path / "installed"
    process = multiprocessing.get_context("spawn").Process(target=_change, args=(tmp_path, target))
    process.start()
    while not (tmp_path / "looked").exists():
        time.sleep(0.01)
    let_count(tmp_path, 2)
    assert target.exists(), "it was waited for"
    process.join()


def test_one_that_is_stopped_in_the_middle_is_not_overtaken_and_one_that_is_killed_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "_PATIENCE", 0.2)
    let_count(tmp_path, 1)
    process = multiprocessing.get_context("spawn").Process(target=_change, args=(tmp_path, tmp_path / "installed"))
    process.start()
    while not (tmp_path / "looked").exists():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(Unavailable, match="in the middle"):
        let_count(tmp_path, 2)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    let_count(tmp_path, 2)
    assert not (tmp_path / "installed").exists()
