"""Jobs that are handed in together."""

import asyncio

from cutoff.coordinator.journal import Journal
from cutoff.coordinator.store import StoreFailed
from cutoff.coordinator.submissions import Submissions
from cutoff.errors import AlreadyExists
from cutoff.v1 import job_pb2


def test_a_crowd_is_stored_in_few_transactions_and_each_job_is_begun(store, spec, monkeypatch):
    sizes, submit_all = [], store.submit_all
    monkeypatch.setattr(store, "submit_all", lambda asked: sizes.append(len(asked)) or submit_all(asked))
    begun = []

    async def main():
        submissions = Submissions(Journal(store), begun.append)
        return await asyncio.gather(*(submissions.hand_in(spec, f"r{number // 2}") for number in range(300)))

    jobs = asyncio.run(main())
    assert sizes == [200, 100]
    assert len({job.name for job in jobs}) == len(store.unfinished()) == 150
    assert set(begun) == {job.name for job in jobs}


def test_only_who_reused_a_request_is_refused(store, spec):
    other = job_pb2.JobSpec()
    other.CopyFrom(spec)
    other.train.epochs = 7

    async def main():
        submissions = Submissions(Journal(store), lambda _: None)
        asked = (submissions.hand_in(spec, "r1"), submissions.hand_in(other, "r1"), submissions.hand_in(other, "r2"))
        return await asyncio.gather(*asked, return_exceptions=True)

    first, refused, second = asyncio.run(main())
    assert isinstance(refused, AlreadyExists)
    assert [job.name for job in store.unfinished()] == [first.name, second.name]


def test_a_job_whose_caller_went_away_is_begun_all_the_same(store, spec):
    begun = []

    async def main():
        submissions = Submissions(Journal(store), begun.append)
        call = asyncio.create_task(submissions.hand_in(spec, "r1"))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.sleep(0.05)

    asyncio.run(main())
    assert begun == [store.unfinished()[0].name]


def test_a_request_that_the_store_cannot_take_fails_alone(store, spec, monkeypatch):
    submit_all = store.submit_all

    def picky(asked):
        if any(request_id == "bad" for _, request_id in asked):
            raise ValueError("what is this?")
        return submit_all(asked)

    monkeypatch.setattr(store, "submit_all", picky)

    async def main():
        submissions = Submissions(Journal(store), lambda _: None)
        asked = [submissions.hand_in(spec, request_id) for request_id in ("r1", "bad", "r2")]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, bad, second = asyncio.run(main())
    assert isinstance(bad, ValueError)
    assert [job.name for job in store.unfinished()] == [first.name, second.name]


def test_a_job_whose_call_was_lost_after_it_was_stored_is_begun_by_the_next_one(store, spec):
    """The connection to the database broke in the commit: the caller was told that nothing is known."""
    job, _ = store.submit(spec, "r1")
    begun = []

    async def main():
        return await Submissions(Journal(store), begun.append).hand_in(spec, "r1")

    assert asyncio.run(main()).name == job.name
    assert begun == [job.name]


def test_everybody_is_told_that_nothing_was_stored(store, spec, monkeypatch):
    def full(asked):
        raise StoreFailed("the disk is full")

    monkeypatch.setattr(store, "submit_all", full)
    begun = []

    async def main():
        submissions = Submissions(Journal(store), begun.append)
        asked = [submissions.hand_in(spec, f"r{number}") for number in range(2)]
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [type(told) for told in asyncio.run(main())] == [StoreFailed, StoreFailed]
    assert begun == []
