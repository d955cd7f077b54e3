"""Copies of the job store."""

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cutoff.coordinator.backup import back_up, restore
from cutoff.coordinator.store import Store
from cutoff.errors import AlreadyExists, CheckFailed, NotFound, Refused
from tests.unit.coordinator.conftest import of_sqlite

pytestmark = of_sqlite


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'jobs.db'}"


def test_a_copy_that_is_taken_while_jobs_come_in_is_whole(store, spec, tmp_path):
    stop = threading.Event()
    begun = threading.Event()

    def submit():
        number = 0
        while not stop.is_set():
            store.submit(spec, f"r{number}")
            number += 1
            if number == 5:
                begun.set()

    writer = threading.Thread(target=submit)
    writer.start()
    begun.wait(10)
    acknowledged = len(store.unfinished())
    jobs = back_up(url(tmp_path), tmp_path / "copy.db")
    stop.set()
    writer.join()
    assert acknowledged <= jobs <= len(store.unfinished())
    copied = Store(f"sqlite:///{tmp_path / 'copy.db'}")
    found = copied.unfinished()
    assert len(found) == jobs
    assert all(copied.events(job.name, 0) for job in found), "a job and its events are one transaction"
    copied.close()


def test_a_store_comes_back_as_it_was(store, spec, tmp_path):
    job, _ = store.submit(spec, "r1")
    back_up(url(tmp_path), tmp_path / "copy.db")
    later, _ = store.submit(spec, "r2")
    store.close()
    with pytest.raises(AlreadyExists, match="--replace"):
        restore(url(tmp_path), tmp_path / "copy.db")
    still = Store(url(tmp_path))
    assert still.get(later.name) == later
    with pytest.raises(Refused, match="in use"):
        restore(url(tmp_path), tmp_path / "copy.db", replace=True)
    still.close()
    assert restore(url(tmp_path), tmp_path / "copy.db", replace=True) == 1
    back = Store(url(tmp_path))
    assert back.unfinished() == [job]
    with pytest.raises(NotFound):
        back.get(later.name)
    back.close()


def test_a_copy_takes_the_place_of_a_store_whose_coordinator_was_killed(store, spec, tmp_path):
    """Its log is still beside it, and would be applied to the copy."""
    store.submit(spec, "r1")
    back_up(url(tmp_path), tmp_path / "copy.db")
    for number in range(20):
        store.submit(spec, f"later-{number}")
    assert (tmp_path / "jobs.db-wal").stat().st_size > 0
    killed = tmp_path / "killed"
    killed.mkdir()
    for name in ("jobs.db", "jobs.db-wal"):
        (killed / name).write_bytes((tmp_path / name).read_bytes())
    restore(url(killed), tmp_path / "copy.db", replace=True)
    back = Store(url(killed))
    assert len(back.unfinished()) == 1
    back.close()


def test_what_is_no_copy_is_refused(store, spec, tmp_path):
    store.submit(spec, "r1")
    (tmp_path / "text").write_text("not a database, but long enough to be looked at" * 100)
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE x (y)").connection.close()
    for name in ("text", "other.db"):
        with pytest.raises(CheckFailed, match=name):
            restore(url(tmp_path), tmp_path / name, replace=True)
    with pytest.raises(NotFound):
        restore(url(tmp_path), tmp_path / "none", replace=True)
    with pytest.raises(NotFound):
        back_up(url(tmp_path / "none"), tmp_path / "copy.db")
    with pytest.raises(Refused, match="SQLite"):
        back_up("postgresql://host/jobs", tmp_path / "copy.db")
    assert len(store.unfinished()) == 1


def test_a_copy_overwrites_no_file(store, tmp_path):
    (tmp_path / "copy.db").write_text("mine")
    with pytest.raises(AlreadyExists):
        back_up(url(tmp_path), tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "mine"


def test_the_commands_and_a_running_coordinator(store, spec, tmp_path):
    import fcntl

    store.submit(spec, "r1")

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "cutoff.coordinator.main", *arguments]
        environment = {**os.environ, "CUTOFF_STATE": str(tmp_path), "CUTOFF_DATABASE_URL": ""}
        return subprocess.run(program, env=environment, capture_output=True, text=True, check=False)

    with (tmp_path / "coordinator.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as a coordinator that runs does
        copied = command("backup", str(tmp_path / "copy.db"))
        assert (copied.returncode, "1 jobs" in copied.stdout) == (0, True), copied.stderr
        refused = command("restore", str(tmp_path / "copy.db"), "--replace")
        assert refused.returncode == 1
        assert "another coordinator runs" in refused.stderr
    store.close()
    assert command("restore", str(tmp_path / "copy.db")).returncode == 1
    restored = command("restore", str(tmp_path / "copy.db"), "--replace")
    assert restored.returncode == 0, restored.stderr
