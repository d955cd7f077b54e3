"""The versions of the tables."""

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from cutoff.coordinator import store as store_module
from cutoff.coordinator.job import moved
from cutoff.coordinator.store import Store
from cutoff.errors import Refused
from cutoff.v1 import job_pb2

UNVERSIONED = Path(__file__).with_name("unversioned.sql")
"""Two jobs of the last version without versions (055fadf), as SQL."""


def opened(folder: Path) -> Store:
    return Store(f"sqlite:///{folder / 'jobs.db'}")


def version(folder: Path) -> list[tuple[str]]:
    with sqlite3.connect(folder / "jobs.db") as database:
        return database.execute("SELECT version_num FROM alembic_version").fetchall()


def test_a_database_without_a_version_is_adopted_with_everything_in_it(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "jobs.db") as database:
        database.executescript(UNVERSIONED.read_text())
    for _ in range(2):
        store = opened(tmp_path)
        [unfinished] = store.unfinished()
        [ended] = store.ended()
        assert unfinished.attempts[0].state == job_pb2.Attempt.STATE_RUNNING
        assert ended.failure.reason == "DISK_FULL"
        assert [event.sequence for event in store.events(unfinished.name, 0)] == [1, 2, 3, 4]
        assert store.submit(unfinished.spec, "r1") == (unfinished, False)
        store.close()
    assert version(tmp_path) == [("0003",)]
    store = opened(tmp_path)
    store.change(unfinished.name, lambda job: moved(job, job_pb2.Job.STATE_FAILED))
    assert store.unfinished() == []
    store.close()


def test_the_versions_lead_to_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, store_module._Base.metadata) == []
    store.close()


def test_a_database_of_a_newer_cutoff_is_refused_and_left_alone(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with sqlite3.connect(tmp_path / "jobs.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Refused, match="9999"):
        opened(tmp_path)
    assert version(tmp_path) == [("9999",)]


def test_a_start_that_is_broken_off_leaves_no_half_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alembic.runtime.migration import HeadMaintainer

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(HeadMaintainer, "update_to_step", crash)
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path)
    with sqlite3.connect(tmp_path / "jobs.db") as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == []
    opened(tmp_path).close()
