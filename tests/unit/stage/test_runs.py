"""Runs as real child processes, without a server."""

import asyncio
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from prometheus_client import REGISTRY

from cutoff.artifacts import Roots
from cutoff.errors import Cancelled, Lost, NotFound, Refused
from cutoff.stage.runs import Limits, Runs
from cutoff.v1 import merger_pb2, types_pb2

WORK = "tests.unit.stage.work_for_tests"


@pytest.fixture
def roots(tmp_path: Path, monkeypatch) -> Roots:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    return Roots(tmp_path / "datasets", tmp_path / "artifacts", tmp_path / "models", tmp_path / "cache")


@pytest.fixture(params=["forkserver", "spawn"])
def preload(request) -> tuple[str, ...]:
    return ("cutoff.stage.child",) if request.param == "forkserver" else ()


def make_request(devices=(), after=0, attempt=1, job="j1") -> merger_pb2.MergeRequest:
    header = types_pb2.RunHeader(
        key={"job": job, "stage": "merge", "attempt": attempt}, devices=devices, after_sequence=after
    )
    return merger_pb2.MergeRequest(run=header)


async def collect(runs: Runs, request, target: str) -> list[types_pb2.Event]:
    events = [event async for event in runs.run(request, f"{WORK}:{target}")]
    return [event for event in events if not event.HasField("heartbeat")]


async def first_log(runs: Runs, request, target: str) -> types_pb2.Event:
    async for event in runs.run(request, f"{WORK}:{target}"):
        if event.WhichOneof("kind") == "log_line":
            return event
    raise AssertionError("the run ended before it logged")


def children_of_run(pid: int) -> list[int]:
    return [p.pid for p in psutil.process_iter() if p.is_running() and p.status() != "zombie" and _group(p.pid) == pid]


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1


def test_events_in_order_and_result(roots, preload, tmp_path):
    async def main():
        runs = Runs("merger", roots, tmp_path / "locks", preload)
        events = await collect(runs, make_request(), "count")
        kinds = [event.WhichOneof("kind") for event in events]
        assert kinds[0] == "started"
        assert kinds[-1] == "finished"
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert dict(events[-1].finished.result) == {"answer": 42.0, "visible": ""}

    asyncio.run(main())


def test_same_key_attaches_and_replays(roots, preload, tmp_path):
    async def main():
        runs = Runs("merger", roots, tmp_path / "locks", preload)
        first, second = await asyncio.gather(
            collect(runs, make_request(), "count"), collect(runs, make_request(), "count")
        )
        assert first == second
        assert len(runs.all()) == 1
        later = await collect(runs, make_request(after=len(first) - 1), "count")
        assert later == first[-1:]

    asyncio.run(main())


@pytest.mark.parametrize(("target", "reason"), [("refuse", "DISK_FULL"), ("crash", "INTERNAL")])
def test_failures_are_named(roots, preload, tmp_path, target, reason):
    async def main():
        runs = Runs("merger", roots, tmp_path / "locks", preload)
        last = (await collect(runs, make_request(), target))[-1]
        assert last.failed.reason == reason

    asyncio.run(main())
    log = (roots.artifacts / "jobs/j1/merge/1/log.txt").read_text()
    assert ("ZeroDivisionError" in log) == (target == "crash")


@pytest.mark.parametrize("target", ["hang", "hang_deaf"])
def test_cancel_leaves_no_process_and_no_partial_file(roots, preload, tmp_path, target):
    async def main():
        runs = Runs("merger", roots, tmp_path / "locks", preload, Limits(grace=0.5))
        watcher = asyncio.create_task(collect(runs, make_request(), target))
        await first_log(runs, make_request(), target)
        [run] = runs.all()
        assert len(children_of_run(run.pid)) == 2
        assert list((roots.artifacts / "jobs/j1/merge/1").glob(".*.partial"))
        cancelled = await runs.cancel(run.key)
        assert cancelled.state == cancelled.STATE_FAILED
        assert (await watcher)[-1].failed.reason == "CANCELLED"
        assert children_of_run(run.pid) == []

    asyncio.run(main())
    assert [path.name for path in (roots.artifacts / "jobs/j1/merge/1").iterdir()] == ["log.txt"]


def test_sigkill_is_reported_as_likely_out_of_memory(roots, preload, tmp_path):
    async def main():
        runs = Runs("merger", roots, tmp_path / "locks", preload)
        watcher = asyncio.create_task(collect(runs, make_request(), "hang"))
        await first_log(runs, make_request(), "hang")
        [run] = runs.all()
        os.kill(run.pid, signal.SIGKILL)
        failed = (await watcher)[-1].failed
        assert failed.reason == "KILLED"
        assert "memory" in failed.message
        assert children_of_run(run.pid) == []

    asyncio.run(main())


def test_a_run_nobody_watches_stops_after_its_lease(roots, preload, tmp_path):
    async def main():
        runs = Runs("merger", roots, tmp_path / "locks", preload, Limits(grace=0.5, lease=0.3))
        await first_log(runs, make_request(), "hang")
        deadline = time.monotonic() + 20
        while runs.all()[0].state == runs.all()[0].STATE_RUNNING and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        assert runs.all()[0].state == runs.all()[0].STATE_FAILED

    asyncio.run(main())


def test_who_watches_hears_that_a_run_without_news_is_there(roots, tmp_path):
    async def main():
        limits = Limits(grace=0.5, heartbeat=0.1)
        runs = Runs("merger", roots, tmp_path / "locks", ("cutoff.stage.child",), limits)
        heard = []
        async for event in runs.run(make_request(), f"{WORK}:hang"):
            heard.append(event)
            if [each.HasField("heartbeat") for each in heard[-3:]] == [True] * 3 and len(heard) > 5:
                break
        assert {event.sequence for event in heard if event.HasField("heartbeat")} == {0}
        told = [event.sequence for event in heard if not event.HasField("heartbeat")]
        assert told == list(range(1, len(told) + 1))
        async for event in runs.run(make_request(after=len(told)), f"{WORK}:hang"):
            assert event.HasField("heartbeat"), "who comes back hears at once"
            break
        await runs.close()

    asyncio.run(main())


def test_a_run_whose_process_says_nothing_is_stopped(roots, tmp_path, monkeypatch):
    async def main():
        limits = Limits(grace=0.5, lease=1.0, sample=0.1)
        runs = Runs("merger", roots, tmp_path / "locks", ("cutoff.stage.child",), limits)
        watcher = asyncio.create_task(collect(runs, make_request(), "hang"))
        await first_log(runs, make_request(), "hang")
        [run] = runs.all()
        os.kill(run.pid, signal.SIGSTOP)
        last = (await asyncio.wait_for(watcher, 30))[-1]
        assert last.failed.reason == "LOST"
        assert children_of_run(run.pid) == []

    asyncio.run(main())


def test_a_newer_attempt_takes_the_place_of_one_that_still_runs(roots, tmp_path):
    async def main():
        runs = Runs("merger", roots, tmp_path / "locks", ("cutoff.stage.child",), Limits(grace=0.5))
        older = asyncio.create_task(collect(runs, make_request(devices=["cuda:3"]), "hang"))
        await first_log(runs, make_request(), "hang")
        newer = await collect(runs, make_request(devices=["cuda:3"], attempt=2), "count")
        assert newer[-1].HasField("finished"), "its device was free"
        assert (await older)[-1].failed.reason == "CANCELLED"
        late = await collect(runs, make_request(), "count")
        assert late[-1].failed.reason == "CANCELLED", "it is told how it ended, and not begun again"

    asyncio.run(main())


def test_an_attempt_that_was_replaced_before_it_began_is_refused(roots, tmp_path):
    async def main():
        runs = Runs("merger", roots, tmp_path / "locks", ("cutoff.stage.child",))
        await collect(runs, make_request(attempt=2), "count")
        with pytest.raises(Refused, match="newer attempt"):
            await collect(runs, make_request(), "count")

    asyncio.run(main())


def test_a_key_never_names_two_runs(roots, tmp_path):
    """A service that was restarted does not know the run; its folder does."""

    async def life():
        runs = Runs("merger", roots, tmp_path / "locks", ("cutoff.stage.child",))
        return await collect(runs, make_request(), "count")

    asyncio.run(life())
    with pytest.raises(Lost, match="earlier life"):
        asyncio.run(life())


def test_one_device_is_never_shared(roots, preload, tmp_path):
    async def main():
        runs = Runs("merger", roots, tmp_path / "locks", preload, Limits(grace=0.5))
        await first_log(runs, make_request(devices=["cuda:3"]), "hang")
        refused = await collect(runs, make_request(devices=["cuda:3"], job="j2"), "count")
        assert refused[-1].failed.reason == "DEVICE_BUSY"
        await runs.cancel(make_request().run.key)
        again = await collect(runs, make_request(devices=["cuda:3"], job="j3"), "count")
        assert dict(again[-1].finished.result)["visible"] == "3"

    asyncio.run(main())


def test_cancelling_an_unknown_run_is_not_found(roots, tmp_path):
    runs = Runs("merger", roots, tmp_path / "locks")
    with pytest.raises(NotFound):
        asyncio.run(runs.cancel(types_pb2.RunKey(job="no", stage="merge", attempt=1)))


def test_a_run_cancelled_before_it_began_never_begins(roots, tmp_path):
    async def main():
        runs = Runs("merger", roots, tmp_path / "locks")
        with pytest.raises(NotFound):
            await runs.cancel(make_request().run.key)
        with pytest.raises(Cancelled):
            await collect(runs, make_request(), "count")

    asyncio.run(main())


def test_a_child_that_dies_in_mid_message_ends_its_run(roots, preload, tmp_path):
    async def main():
        runs = Runs("merger", roots, tmp_path / "locks", preload, Limits(exit=1.0))
        last = (await asyncio.wait_for(collect(runs, make_request(), "die_in_mid_sentence"), 30))[-1]
        assert last.HasField("failed")

    asyncio.run(main())


def test_a_watcher_from_the_future_does_not_stop_the_service(roots, tmp_path):
    async def main():
        runs = Runs("merger", roots, tmp_path / "locks", ("cutoff.stage.child",), Limits(grace=0.5))
        await first_log(runs, make_request(), "hang")
        watcher = asyncio.create_task(collect(runs, make_request(after=10**9), "hang"))
        await asyncio.sleep(0.2)
        await asyncio.wait_for(runs.cancel(make_request().run.key), 20)
        assert await asyncio.wait_for(watcher, 20) == []

    asyncio.run(main())


def test_a_run_that_its_service_stops_may_be_tried_again(roots, tmp_path):
    async def main():
        runs = Runs("merger", roots, tmp_path / "locks", ("cutoff.stage.child",), Limits(grace=0.5))
        watcher = asyncio.create_task(collect(runs, make_request(), "hang"))
        await first_log(runs, make_request(), "hang")
        await runs.close()
        failed = (await watcher)[-1].failed
        assert (failed.reason, failed.retryable) == ("UNAVAILABLE", True)

    asyncio.run(main())


def progress(job: str) -> float | None:
    return REGISTRY.get_sample_value("cutoff_run_progress_ratio", {"cutoff_job": job, "stage": "merge"})


def test_the_series_of_a_run_outlive_it_for_a_while(roots, tmp_path):
    async def main():
        runs = Runs("merger", roots, tmp_path / "locks", limits=Limits(linger=0.3))
        await collect(runs, make_request(), "count")
        assert progress("j1") == 1
        await asyncio.sleep(0.6)
        assert progress("j1") is None

    asyncio.run(main())


def test_a_later_attempt_keeps_the_series(roots, tmp_path):
    async def main():
        runs = Runs("merger", roots, tmp_path / "locks", limits=Limits(linger=0.3, grace=1))
        await collect(runs, make_request(), "count")
        await first_log(runs, make_request(attempt=2), "hang")
        await asyncio.sleep(0.6)
        assert progress("j1") == 1
        await runs.close()

    asyncio.run(main())
