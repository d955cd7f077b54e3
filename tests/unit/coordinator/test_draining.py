"""Draining: what runs is finished, nothing begins, and all goes on afterwards."""

import asyncio

import pytest

from cutoff.coordinator.attempts import Addresses, Services
from cutoff.coordinator.draining import Draining
from cutoff.coordinator.jobs import Jobs
from cutoff.coordinator.journal import Journal
from cutoff.coordinator.service import JobServicer
from cutoff.errors import NotFound, Unavailable
from cutoff.rpc import Door
from cutoff.v1 import job_pb2, types_pb2

State, Attempt = job_pb2.Job, job_pb2.Attempt


class Stages:
    """Two stages a job: prepare, which begins when a device is free and ends when told to, and train."""

    def __init__(self):
        self.devices = asyncio.Semaphore(1)
        self.finish = asyncio.Event()
        self.begun = []

    async def drive(self, call):
        key = call.request.run.key
        async with self.devices:
            self.begun.append((key.job, key.stage))
            yield types_pb2.Event(sequence=1, started=types_pb2.Started(pid=1))
            if key.stage == "prepare":
                await self.finish.wait()
            finished = types_pb2.Event(sequence=2, finished=types_pb2.Finished())
            finished.finished.result.update({"model_path": "/m", "adapter": "a"})
            if key.stage == "train":
                await asyncio.sleep(3600)
            yield finished


async def nothing(*_):
    return []


async def unknown(*_):
    raise NotFound("never began")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr("cutoff.coordinator.jobs._APART_SECONDS", 0.0)


@pytest.fixture
def system(store, spec, tmp_path):
    """Runs a test with everything made on its loop: system(test)."""

    def run(test):
        async def main():
            door, stages, journal = Door("the coordinator"), Stages(), Journal(store)
            addresses = Addresses("a", "b", "c", "d")
            services = Services(
                addresses, stages.drive, unknown, nothing, nothing, nothing, nothing, tmp_path, may_begin=door.wait_open
            )
            jobs = Jobs(journal, services)
            spec.install.enabled = False
            names = [journal.store.submit(spec, f"r{number}")[0].name for number in (1, 2)]
            for name in names:
                jobs.start(name)
                await asyncio.sleep(0.02)
            await test(names, stages, Draining(door, jobs, store), jobs, JobServicer(journal, jobs, None, None, door))
            await jobs.suspend()

        asyncio.run(main())

    return run


def states(store, name):
    return [attempt.state for attempt in store.get(name).attempts]


def test_what_runs_is_finished_and_nothing_begins(system, store):
    async def test(names, stages, draining, jobs, servicer):
        runs, waits = names
        assert (states(store, runs), states(store, waits)) == ([Attempt.STATE_RUNNING], [Attempt.STATE_WAITING])
        await draining.begin()
        assert draining.attempts(Attempt.STATE_RUNNING) == 1
        with pytest.raises(Unavailable, match="draining"):
            await servicer.SubmitJob(job_pb2.SubmitJobRequest(request_id="r3"), None)
        with pytest.raises(Unavailable, match="draining"):
            await servicer.InstallJob(job_pb2.InstallJobRequest(name=runs), None)
        stages.finish.set()
        await asyncio.sleep(0.1)
        assert states(store, runs) == [Attempt.STATE_SUCCEEDED]
        assert draining.attempts(Attempt.STATE_RUNNING) == 0
        assert len(stages.begun) == 1
        assert {store.get(name).state for name in names} == {State.STATE_RUNNING}
        await draining.end()
        await asyncio.sleep(0.1)
        assert (runs.removeprefix("jobs/"), "train") in stages.begun
        assert states(store, runs) == [Attempt.STATE_SUCCEEDED, Attempt.STATE_RUNNING]

    system(test)


def test_a_held_job_goes_on_where_it_was(system, store):
    async def test(names, stages, draining, jobs, servicer):
        await draining.begin()
        await asyncio.sleep(0.05)
        assert not jobs.touched(names[1])
        await draining.end()
        stages.finish.set()
        await asyncio.sleep(0.1)
        assert len(states(store, names[1])) >= 1
        assert jobs.touched(names[1])
        assert store.get(names[1]).attempts[0].key.attempt == 1

    system(test)


def test_a_held_job_can_be_cancelled(system, store):
    async def test(names, stages, draining, jobs, servicer):
        await draining.begin()
        await asyncio.sleep(0.05)
        jobs.cancel(names[1])
        await asyncio.sleep(0.05)
        assert store.get(names[1]).state == State.STATE_CANCELLED
        await draining.end()
        await asyncio.sleep(0.05)
        assert not jobs.touched(names[1])

    system(test)


def test_a_job_waiting_between_two_stages_can_be_cancelled(system, store):
    async def test(names, stages, draining, jobs, servicer):
        await draining.begin()
        stages.finish.set()
        await asyncio.sleep(0.05)
        jobs.cancel(names[0])
        await asyncio.sleep(0.05)
        assert store.get(names[0]).state == State.STATE_CANCELLED

    system(test)
