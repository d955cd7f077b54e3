"""Jobs on disk."""

import threading

import pytest

from cutoff.coordinator.job import moved
from cutoff.coordinator.store import Store, StoreFailed
from cutoff.errors import AlreadyExists, NotFound
from cutoff.v1 import job_pb2
from tests.unit.coordinator.conftest import of_sqlite


def test_the_same_request_is_the_same_job(store, spec):
    first, new = store.submit(spec, "r1")
    again, new_again = store.submit(spec, "r1")
    assert (new, new_again) == (True, False)
    assert first == again


def test_the_same_request_with_another_spec_is_refused(store, spec):
    store.submit(spec, "r1")
    spec.train.epochs = 7
    with pytest.raises(AlreadyExists, match="another spec"):
        store.submit(spec, "r1")


def test_a_job_survives_the_process(store, spec):
    job, _ = store.submit(spec, "r1")
    store.close()
    reopened = Store(store.engine.url.render_as_string(hide_password=False))
    assert reopened.get(job.name) == job
    assert [event.job.state for event in reopened.events(job.name, 0)] == [job_pb2.Job.STATE_QUEUED]
    reopened.close()


def test_pages_go_from_the_newest_to_the_oldest(store, spec):
    names = [store.submit(spec, f"r{number}")[0].name for number in range(5)]
    first, token = store.page(2)
    second, token = store.page(2, token)
    last, end = store.page(2, token)
    assert [job.name for job in first + second + last] == names[::-1]
    assert end == ""


def test_a_refused_change_leaves_no_trace(store, spec):
    job, _ = store.submit(spec, "r1")
    with pytest.raises(ZeroDivisionError):
        store.change(job.name, lambda job: 1 // 0)
    assert store.get(job.name) == job
    assert len(store.events(job.name, 0)) == 1


def test_a_change_that_changes_nothing_leaves_no_trace(store, spec):
    """A coordinator that is killed after each transaction gets no further where it only repeats what is recorded."""
    job, _ = store.submit(spec, "r1")
    assert store.change(job.name, lambda job: job) == job
    assert store.get(job.name) == job
    assert len(store.events(job.name, 0)) == 1


def test_concurrent_changes_are_all_kept(store, spec):
    job, _ = store.submit(spec, "r1")

    def one_more(job):
        job.spec.train.epochs += 1
        return job

    def change() -> None:
        for _ in range(10):
            store.change(job.name, one_more)

    threads = [threading.Thread(target=change) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    changed = store.get(job.name)
    assert (changed.last_sequence, changed.spec.train.epochs) == (41, job.spec.train.epochs + 40)
    assert [event.sequence for event in store.events(job.name, 0)] == list(range(1, 42))


def test_unfinished_jobs_are_found(store, spec):
    done, _ = store.submit(spec, "r1")
    left, _ = store.submit(spec, "r2")
    store.change(done.name, lambda job: moved(job, job_pb2.Job.STATE_FAILED))
    assert [job.name for job in store.unfinished()] == [left.name]


def test_an_unknown_job_is_not_found(store):
    with pytest.raises(NotFound, match="jobs/no"):
        store.get("jobs/no")


@of_sqlite
def test_a_full_disk_takes_nothing_in_and_says_so(store, spec):
    job, _ = store.submit(spec, "r1")
    store.close()  # the limit below is a connection's
    engine_limit = "PRAGMA max_page_count=1"
    with store.engine.connect() as connection:
        connection.exec_driver_sql(engine_limit)
    spec.name = "x" * 100
    with pytest.raises(StoreFailed, match="full"):
        for number in range(100):
            store.submit(spec, f"full-{number}")
    assert store.get(job.name) == job
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"


@of_sqlite
def test_a_database_that_is_away_is_said_to_be(store, spec):
    job, _ = store.submit(spec, "r1")
    with store.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs RENAME TO elsewhere")
    for asking in (lambda: store.get(job.name), store.unfinished, lambda: store.page(1)):
        with pytest.raises(StoreFailed, match="cannot be read"):
            asking()
    with store.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO jobs")
    assert store.get(job.name) == job


def test_two_jobs_never_get_one_name(store, spec, monkeypatch):
    given = iter(["aaaaaa", "aaaaaa", "aaaaaa", "bbbbbb"])
    monkeypatch.setattr("cutoff.coordinator.job.secrets.token_hex", lambda size: next(given))
    names = [store.submit(spec, request_id)[0].name for request_id in ("r1", "r2")]
    assert names == ["jobs/demo-aaaaaa", "jobs/demo-bbbbbb"]


def test_jobs_are_stored_together_each_as_by_itself(store, spec, monkeypatch):
    first, _ = store.submit(spec, "r1")
    other = job_pb2.JobSpec()
    other.CopyFrom(spec)
    other.train.epochs = 7
    numbers = iter(["000001", "000001", first.name[-6:], "000002", "000003", "000004"])
    monkeypatch.setattr("cutoff.coordinator.job.secrets.token_hex", lambda _: next(numbers))
    told = store.submit_all([(spec, "r1"), (spec, "r2"), (spec, "r3"), (other, "r2"), (spec, "r2"), (other, "r4")])
    assert [isinstance(each, AlreadyExists) for each in told] == [False, False, False, True, False, False]
    (known, old), (second, new), (third, _), _, (again, repeated), (fourth, _) = told
    assert (known, old) == (first, False)
    assert (again, new, repeated) == (second, True, False)
    assert len({job.name for job in (first, second, third, fourth)}) == 4
    for job, asked in ((second, spec), (third, spec), (fourth, other)):
        assert store.get(job.name) == job
        assert job.spec == asked
        assert [event.job for event in store.events(job.name, 0)] == [job]
