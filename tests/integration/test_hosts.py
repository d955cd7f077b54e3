"""Several hosts, real but for the work: Ray's test cluster, services that sleep, the coordinator's own code."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest

from cutoff.coordinator.jobs import Jobs
from cutoff.coordinator.journal import Journal
from cutoff.coordinator.store import Store
from cutoff.v1 import job_pb2
from tests.fixtures.simulated_cluster import FIRST, SimulatedCluster, job

pytestmark = pytest.mark.integration


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "")
    for name in ("TRAINER", "MERGER", "GGUF_CONVERTER", "EVALUATOR"):
        monkeypatch.setenv(f"CUTOFF_{name}_ADDRESS", "")
    with SimulatedCluster(tmp_path, (FIRST, "two"), cpus=2) as made:
        yield made


@pytest.fixture
def store(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'jobs.db'}")
    yield store
    store.close()


async def ended(journal, name):
    async for _ in journal.watch(name, 0):
        pass
    return journal.current(name)


def train(job):
    return [attempt for attempt in job.attempts if attempt.key.stage == "train"]


def test_jobs_go_where_gpus_are_and_a_lost_hosts_go_on_elsewhere(cluster, store):
    async def main():
        journal = Journal(store)
        jobs = Jobs(journal, cluster.services(journal))
        names = [journal.store.submit(job(f"j{number}", 8, 0.5), f"r{number}")[0].name for number in range(2)]
        for name in names:
            jobs.start(name)
        while [store.get(name).attempts[-1].state if train(store.get(name)) else 0 for name in names] != [
            job_pb2.Attempt.STATE_RUNNING
        ] * 2:
            await asyncio.sleep(0.1)
        assert {train(store.get(name))[0].host for name in names} == {FIRST, "two"}, "a GPU each"
        await asyncio.to_thread(cluster.lose, "two")
        return await asyncio.gather(*(ended(journal, name) for name in names))

    done = asyncio.run(asyncio.wait_for(main(), 240))
    assert [one.state for one in done] == [job_pb2.Job.STATE_SUCCEEDED] * 2
    hosts = defaultdict(list)
    for one in done:
        for attempt in train(one):
            hosts[one.name].append((attempt.host, attempt.state))
    kept, lost = sorted(hosts.values(), key=len)
    assert kept == [(FIRST, job_pb2.Attempt.STATE_SUCCEEDED)]
    assert lost == [("two", job_pb2.Attempt.STATE_FAILED), (FIRST, job_pb2.Attempt.STATE_SUCCEEDED)]


def test_a_run_goes_on_when_its_hosts_ray_worker_is_restarted(cluster, store):
    async def main():
        journal = Journal(store)
        jobs = Jobs(journal, cluster.services(journal))
        for number in range(2):
            jobs.start(journal.store.submit(job(f"j{number}", 12, 0.5), f"r{number}")[0].name)
        names = [one.name for one in store.unfinished()]
        while {a.host for name in names for a in train(store.get(name)) if a.start_time.seconds} != {FIRST, "two"}:
            await asyncio.sleep(0.1)
        cluster.leave("two")
        cluster.join("two")  # Ray starts nodes on the main thread only
        return await asyncio.gather(*(ended(journal, name) for name in names))

    done = asyncio.run(asyncio.wait_for(main(), 240))
    assert [len(train(one)) for one in done] == [1, 1], "the runs were never begun again"
    assert [one.state for one in done] == [job_pb2.Job.STATE_SUCCEEDED] * 2
