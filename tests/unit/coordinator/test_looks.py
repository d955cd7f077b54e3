"""What many watchers look up is read once, and anew when the job has changed."""

import asyncio

from cutoff.coordinator.journal import Journal
from cutoff.coordinator.looks import Looks
from cutoff.v1 import job_pb2

WATCHERS = 20


def test_watchers_side_by_side_read_the_store_once_for_each_change(store, spec, monkeypatch):
    async def main():
        journal = Journal(store)
        job, _ = journal.store.submit(spec, "r")
        reads = []
        really = store.events
        monkeypatch.setattr(store, "events", lambda *arguments: reads.append(arguments) or really(*arguments))

        async def watch():
            return [event.sequence async for event in journal.watch(job.name, 0)]

        watchers = [asyncio.create_task(watch()) for _ in range(WATCHERS)]
        await asyncio.sleep(0.05)
        for state in (job_pb2.Job.STATE_RUNNING, job_pb2.Job.STATE_SUCCEEDED):
            journal.move(job.name, state)
            await asyncio.sleep(0.05)
        heard = await asyncio.wait_for(asyncio.gather(*watchers), 5)
        assert heard == [[1, 2, 3]] * WATCHERS
        assert len(reads) < WATCHERS

    asyncio.run(main())


def test_so_many_looks_are_kept_and_no_more(store, spec):
    job, _ = store.submit(spec, "r")
    looks = Looks(store)
    for after in range(100):
        looks.events(job.name, after)
    assert len(looks._kept) == 64
    assert looks.job(job.name) is looks.job(job.name)
    looks.forget(job.name)
    assert not looks._kept
