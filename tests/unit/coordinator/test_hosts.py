"""Where attempts go when there are several hosts, and what becomes of them when one is lost."""

import asyncio
import dataclasses

import pytest

from cutoff.coordinator.hosts import ANY_HOST, Hosts, Place, check_shared, cpu_slots, host_name
from cutoff.coordinator.job import OPEN
from cutoff.errors import Refused, Unavailable
from cutoff.v1 import job_pb2, run_pb2
from tests.unit.coordinator.test_pipeline import Script, run_job


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr("cutoff.coordinator.patience.RETRIES", (0.0, 0.0, 0.0))


class Cluster(Script):
    """Hosts "head" and "two": what is not told where to go goes to the first that is there of `order`."""

    def __init__(self, *order, **endings):
        super().__init__(**endings)
        self.order = list(order)
        self.there = {"head", "two"}
        self.serving = {"head", "two"}
        self.models_host = "head"
        self.asked = []
        self.waited = []

    async def drive(self, call):
        host = call.host or next(host for host in self.order if host in self.there)
        if host not in self.there:
            raise Unavailable(f"host {host} is not in the cluster")
        call.placed(Place(host, f"{host}-{call.service}:1"))
        async for event in super().drive(call):
            yield event

    async def list_runs(self, address, service):
        self.asked.append(address)
        if address.partition("-")[0] not in self.serving:
            raise Unavailable("nobody answers")
        return [run_pb2.Run(key=call.request.run.key) for call in self.calls]

    async def present(self, host):
        return host in self.there

    async def returns(self, host):
        self.waited.append(host)
        return host in self.there

    def services(self):
        hosts = Hosts("head", self.models_host, self.present, self.returns)
        return dataclasses.replace(super().services(), hosts=hosts)


def placed(job):
    return {(attempt.key.stage, attempt.key.attempt): attempt.host for attempt in job.attempts}


def test_the_place_is_kept_before_the_run_begins(store, spec):
    seen = []

    class Looking(Cluster):
        async def drive(self, call):
            first = True
            async for event in super().drive(call):
                if first:
                    [job] = store.unfinished()
                    seen.extend((a.host, a.address, a.state) for a in job.attempts if a.key == call.request.run.key)
                first = False
                yield event

    assert run_job(store, spec, Looking("two")).state == job_pb2.Job.STATE_SUCCEEDED
    assert seen[0] == ("two", "two-trainer:1", job_pb2.Attempt.STATE_WAITING)
    assert len(seen) == 11


def test_installing_goes_to_the_host_with_the_models_folder_and_all_else_anywhere(store, spec):
    job = run_job(store, spec, Cluster("two"))
    hosts = placed(job)
    assert hosts.pop(("install", 1)) == "head"
    assert set(hosts.values()) == {"two"}


def test_a_models_folder_that_all_hosts_share_is_installed_to_from_any(store, spec):
    script = Cluster("two")
    script.models_host = ANY_HOST
    assert set(placed(run_job(store, spec, script)).values()) == {"two"}


def test_a_lost_stream_is_taken_up_on_the_host_where_the_run_is(store, spec):
    script = Cluster("two", train=["lost"])
    job = run_job(store, spec, script)
    assert script.asked == ["two-trainer:1"]
    trains = [call for call in script.calls if call.request.run.key.stage == "train"]
    assert [(call.host, call.request.run.key.attempt) for call in trains] == [("", 1), ("two", 1)]
    assert job.state == job_pb2.Job.STATE_SUCCEEDED


def test_an_attempt_is_lost_with_its_host_and_the_next_goes_elsewhere(store, spec):
    script = Cluster("two", "head")
    lose(script, "train", there=False, serving=False)
    job = run_job(store, spec, script)
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    hosts = placed(job)
    assert (hosts["train", 1], hosts["train", 2], hosts["merge", 1]) == ("two", "head", "head")
    [lost] = [a for a in job.attempts if a.key.stage == "train" and a.key.attempt == 1]
    assert "host two" in lost.failure.message
    assert not [a for a in job.attempts if a.state in OPEN]


def test_a_host_that_left_the_cluster_is_waited_for_and_then_its_run_is_stopped(store, spec):
    script = Cluster("two", "head")
    script.running = [1]  # the cancel finds the run
    lose(script, "train", there=False, serving=True)
    job = run_job(store, spec, script)
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    assert script.waited == ["two"]
    assert script.cancelled == [("two-trainer:1", "train")], "two runs of one job side by side"
    assert placed(job)["train", 2] == "head"


def test_a_host_whose_services_are_restarted_is_asked_again(store, spec):
    script = Cluster("two", train=["lost"])
    script.serving = {"head"}
    calls = []
    list_runs = script.list_runs

    async def back_at_the_third_time(address, service):
        calls.append(address)
        if len(calls) == 3:
            script.serving = {"head", "two"}
        return await list_runs(address, service)

    script.list_runs = back_at_the_third_time
    job = run_job(store, spec, script)
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    assert placed(job)["train", 1] == "two"
    assert ("train", 2) not in placed(job)


def test_a_job_on_a_lost_host_can_be_cancelled(store, spec):
    script = Cluster("two", train=["hang"])

    async def cancel_it(jobs, name):
        while "train" not in script.stages:
            await asyncio.sleep(0.01)
        script.there, script.serving = {"head"}, {"head"}
        jobs.cancel(name)

    async def nobody(address, service, key):
        raise Unavailable("nobody answers")

    script.cancel = nobody
    job = run_job(store, spec, script, cancel_it)
    assert job.state == job_pb2.Job.STATE_CANCELLED
    assert job.attempts[-1].state == job_pb2.Attempt.STATE_CANCELLED


def lose(script, stage, there, serving):
    """When the first attempt at a stage runs, host two goes."""
    drive = script.drive

    async def losing(call):
        async for event in drive(call):
            if call.request.run.key.stage == stage and call.request.run.key.attempt == 1:
                script.there = {"head", "two"} if there else {"head"}
                script.serving = {"head", "two"} if serving else {"head"}
                raise Unavailable("the attempt's host was lost")
            yield event

    script.drive = losing


@pytest.mark.parametrize("name", ["two words", "-two", "two,ray=1", "x" * 64, "zwei\n"])
def test_a_name_that_ray_would_not_take_is_refused(monkeypatch, name):
    monkeypatch.setenv("CUTOFF_HOST", name)
    with pytest.raises(Refused, match="CUTOFF_HOST"):
        host_name()


def test_slots_are_counted_and_a_wrong_number_is_refused(monkeypatch):
    monkeypatch.setenv("CUTOFF_CPUS", "0")
    assert cpu_slots() == 0
    monkeypatch.setenv("CUTOFF_CPUS", "two")
    with pytest.raises(Refused, match="CUTOFF_CPUS=two"):
        cpu_slots()
    monkeypatch.delenv("CUTOFF_CPUS")
    assert 2 <= cpu_slots() <= 8


@pytest.mark.parametrize("seen", ["", "b" * 32])
def test_a_host_with_another_artifacts_folder_is_refused(monkeypatch, seen):
    monkeypatch.setattr(
        "cutoff.coordinator.hosts.ask", lambda address, service: run_pb2.ListRunsResponse(artifacts_id=seen)
    )
    with pytest.raises(Refused, match="the merger at two-merger:1 sees another artifacts folder"):
        check_shared("two-merger:1", "merger", "a" * 32)
    if seen:
        check_shared("two-merger:1", "merger", seen)
