"""What a stage service promises about its runs; the work itself is a test's."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from cutoff.artifacts import Roots
from cutoff.errors import InvalidInput, NotFound, Unavailable
from cutoff.stage.runs import Limits, Runs
from cutoff.stage.server import RunServicer
from cutoff.v1 import merger_pb2, merger_pb2_grpc, run_pb2, run_pb2_grpc, types_pb2

WORK = "tests.unit.stage.work_for_tests"


class Merger(merger_pb2_grpc.MergerServiceServicer):
    """The real servicer's shape; the adapter's name picks the work."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    async def Merge(self, request, context):
        async for event in self._runs.run(request, f"{WORK}:{request.adapter}"):
            yield merger_pb2.MergeResponse(event=event)


@pytest.fixture
def roots(tmp_path):
    return Roots(tmp_path / "datasets", tmp_path / "artifacts", tmp_path / "models", tmp_path / "cache")


@pytest.fixture
def runs(loop, roots, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    runs = Runs("merger", roots, tmp_path / "locks", ("cutoff.stage.child",), Limits(grace=0.5))
    yield runs
    asyncio.run_coroutine_threadsafe(runs.close(), loop).result(30)


@pytest.fixture
def port(reach, runs, roots):
    servicers = {"MergerService": Merger(runs), "RunService": RunServicer(runs, roots)}
    adders = {
        "MergerService": merger_pb2_grpc.add_MergerServiceServicer_to_server,
        "RunService": run_pb2_grpc.add_RunServiceServicer_to_server,
    }
    return reach(servicers, adders)


def merge(port, work, after=0, job="j1"):
    header = types_pb2.RunHeader(key={"job": job, "stage": "merge", "attempt": 1}, after_sequence=after)
    request = merger_pb2.MergeRequest(run=header, adapter=work)
    return (response.event for response in port.stream("MergerService/Merge", request, merger_pb2.MergeResponse))


def test_a_run_that_is_stopped_leaves_its_last_words(port):
    events = merge(port, "hang")
    first = next(events)
    request = run_pb2.CancelRunRequest(key={"job": "j1", "stage": "merge", "attempt": 1}, after_sequence=first.sequence)
    answer = port.unary("RunService/CancelRun", request, run_pb2.CancelRunResponse)
    assert answer.events[-1].failed.reason == "CANCELLED"
    assert all(event.sequence > first.sequence for event in answer.events)
    assert not any(event.HasField("progress") for event in answer.events)
    assert port.unary("RunService/CancelRun", request, run_pb2.CancelRunResponse) == answer


def test_a_host_without_gpus_lists_none(port, monkeypatch):
    monkeypatch.setattr("cutoff.stage.nvml.library", lambda: None)
    monkeypatch.setattr("cutoff.stage.amd_sysfs.read", lambda sysfs: [])
    answer = port.unary("RunService/ListDevices", run_pb2.ListDevicesRequest(), run_pb2.ListDevicesResponse)
    assert list(answer.devices) == []


def cancel(port, job="j1"):
    request = run_pb2.CancelRunRequest(key={"job": job, "stage": "merge", "attempt": 1})
    return port.unary("RunService/CancelRun", request, run_pb2.CancelRunResponse).run


def list_runs(port):
    return port.unary("RunService/ListRuns", run_pb2.ListRunsRequest(), run_pb2.ListRunsResponse).runs


def test_a_run_reports_from_started_to_finished(port):
    kinds = [event.WhichOneof("kind") for event in merge(port, "count")]
    assert kinds[0] == "started"
    assert kinds[-1] == "finished"
    [run] = list_runs(port)
    assert run.state == run_pb2.Run.STATE_SUCCEEDED
    assert run.last_sequence == len(kinds)


def test_a_second_call_with_the_key_replays_from_where_it_is_asked(port):
    first = list(merge(port, "count"))
    assert list(merge(port, "count")) == first
    assert list(merge(port, "count", after=2)) == first[2:]
    assert len(list_runs(port)) == 1


def test_the_reason_of_a_failure_arrives(port):
    failed = list(merge(port, "refuse"))[-1].failed
    assert (failed.reason, failed.message, failed.remedy) == ("DISK_FULL", "no room", "make some")


def test_a_cancel_returns_when_the_run_has_ended(port):
    seen = []

    def watch():
        seen.extend(merge(port, "hang"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    while not any(event.HasField("log_line") for event in list(seen)):
        watcher.join(0.02)
    assert cancel(port).state == run_pb2.Run.STATE_FAILED
    watcher.join(30)
    assert seen[-1].failed.reason == "CANCELLED"
    assert cancel(port).state == run_pb2.Run.STATE_FAILED, "a run that has ended is left as it is"


def test_an_unknown_run_is_not_found(port):
    with pytest.raises(NotFound):
        cancel(port, "none")


def test_hostile_keys_are_refused(port):
    for job in ("../x", "", "a/b", "."):
        with pytest.raises(InvalidInput):
            list(merge(port, "count", job=job))


def test_a_stopping_service_takes_no_run(port, runs, loop):
    asyncio.run_coroutine_threadsafe(runs.close(), loop).result(30)
    with pytest.raises(Unavailable, match="stopping"):
        list(merge(port, "count"))
