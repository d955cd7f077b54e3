"""Pausing in every stage, with a scripted scheduler and scripted services."""

import asyncio

import pytest

from cutoff.coordinator.job import BY_USER, OPEN, IllegalTransition, new_job, pausing
from cutoff.coordinator.jobs import Jobs
from cutoff.coordinator.journal import Journal
from cutoff.coordinator.lmstudio_watch import BY_WATCHER
from cutoff.errors import NotFound, Refused, Unavailable
from cutoff.v1 import job_pb2, types_pb2
from tests.unit.coordinator.test_pipeline import Script

STAGES = ["prepare", "train", "merge", "convert", "evaluate-base", "evaluate-q4_k_m", "card", "install", "report"]
PAUSED = job_pb2.Job.STATE_PAUSED


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr("cutoff.coordinator.patience.RETRIES", (0.0, 0.0, 0.0))
    monkeypatch.setattr("cutoff.coordinator.pipeline.RETRIES", (0.0,))


class Stopping(Script):
    """A run that is stopped says some last words, as training does."""

    def __init__(self, *last_words, **endings):
        super().__init__(**endings)
        self.last_words = list(last_words)
        self.cancel_errors = []

    async def cancel(self, address, service, key, after_sequence=0):
        self.cancelled.append((address, key.stage))
        if self.cancel_errors:
            raise self.cancel_errors.pop()
        return [event for event in self.last_words if event.sequence > after_sequence]


def checkpoint(sequence):
    artifact = types_pb2.Artifact(kind="checkpoint", path="jobs/x/train/1/checkpoint-9")
    return types_pb2.Event(sequence=sequence, artifact=artifact)


def failed(sequence, reason="CANCELLED"):
    return types_pb2.Event(sequence=sequence, failed=types_pb2.Failure(reason=reason, message="stopped"))


async def until(journal, name, state):
    async for event in journal.watch(name, 0):
        if event.job.state == state:
            return journal.current(name)
    raise AssertionError(f"ended as {journal.current(name)}")


async def started(journal, name, stage):
    async for event in journal.watch(name, 0):
        if event.run.key.stage == stage and event.run.event.HasField("started"):
            return
    raise AssertionError("never started")


def on_the_road(store, spec, script, test):
    async def main():
        journal = Journal(store)
        jobs = Jobs(journal, script.services())
        job, _ = journal.store.submit(spec, "r1")
        jobs.start(job.name)
        try:
            await test(jobs, journal, job.name)
        finally:
            await jobs.suspend()
        return journal.current(job.name)

    return asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize("stage", STAGES)
def test_what_runs_is_stopped_and_later_tried_anew(store, spec, stage):
    script = Stopping(failed(2))
    script.endings[stage] = ["hang"]

    async def test(jobs, journal, name):
        await started(journal, name, stage)
        jobs.pause(name)
        job = await until(journal, name, PAUSED)
        assert not [attempt for attempt in job.attempts if attempt.state in OPEN]
        jobs.resume(name)
        await until(journal, name, job_pb2.Job.STATE_SUCCEEDED)

    job = on_the_road(store, spec, script, test)
    assert script.stages.count(stage) == 2
    for other in {"prepare", "train", "merge"} - {stage}:
        assert script.stages.count(other) == 1, "what was done is not done again"
    numbers = [attempt.key.attempt for attempt in job.attempts if attempt.key.stage == stage]
    assert numbers == [1, 2]


def test_training_goes_on_from_the_checkpoint_it_wrote_on_its_way_down(store, spec):
    script = Stopping(checkpoint(2), failed(3), train=["hang"])

    async def test(jobs, journal, name):
        await started(journal, name, "train")
        jobs.pause(name)
        await until(journal, name, PAUSED)
        jobs.resume(name)
        await until(journal, name, job_pb2.Job.STATE_SUCCEEDED)

    job = on_the_road(store, spec, script, test)
    trains = [call.request for call in script.calls if call.request.run.key.stage == "train"]
    assert [request.resume_from for request in trains] == ["", "jobs/x/train/1/checkpoint-9"]
    first = next(attempt for attempt in job.attempts if attempt.key.stage == "train")
    assert (first.failure.reason, first.state) == ("PAUSED", job_pb2.Attempt.STATE_CANCELLED)


def test_a_run_that_was_finishing_when_the_pause_came_has_finished(store, spec):
    done = types_pb2.Event(sequence=2, finished=types_pb2.Finished())
    done.finished.result.update({"adapter": "jobs/x/train/1/final"})
    script = Stopping(done, train=["hang"])

    async def test(jobs, journal, name):
        await started(journal, name, "train")
        jobs.pause(name)
        await until(journal, name, PAUSED)
        jobs.resume(name)
        await until(journal, name, job_pb2.Job.STATE_SUCCEEDED)

    on_the_road(store, spec, script, test)
    assert script.stages.count("train") == 1


def test_a_run_that_failed_by_itself_is_told_and_tried_once_more(store, spec):
    script = Stopping(failed(2, "OUT_OF_MEMORY"), train=["hang"])

    async def test(jobs, journal, name):
        await started(journal, name, "train")
        jobs.pause(name)
        job = await until(journal, name, PAUSED)
        assert job.attempts[-1].failure.reason == "OUT_OF_MEMORY"

    on_the_road(store, spec, script, test)


def test_a_stage_that_waited_for_its_gpu_leaves_the_queue(store, spec):
    script = Stopping()
    script.drive = waits_for_ever
    script.cancel_errors = [NotFound("never began")]

    async def test(jobs, journal, name):
        while not journal.current(name).attempts:
            await asyncio.sleep(0.01)
        jobs.pause(name)
        job = await until(journal, name, PAUSED)
        assert job.attempts[0].failure.reason == "PAUSED"

    on_the_road(store, spec, script, test)


async def waits_for_ever(call):
    await asyncio.sleep(3600)
    yield


def test_a_pause_before_the_first_step_is_kept(store, spec):
    async def test(jobs, journal, name):
        jobs.pause(name)
        job = await until(journal, name, PAUSED)
        assert not job.attempts
        jobs.resume(name)
        await until(journal, name, job_pb2.Job.STATE_SUCCEEDED)

    on_the_road(store, spec, Stopping(), test)


def test_a_service_that_is_away_is_waited_for(store, spec):
    script = Stopping(failed(2), train=["hang"])
    script.cancel_errors = [Unavailable("away")] * 6

    async def test(jobs, journal, name):
        await started(journal, name, "train")
        jobs.pause(name)
        with pytest.raises(Refused, match="still being paused"):
            jobs.resume(name)
        await until(journal, name, PAUSED)

    on_the_road(store, spec, script, test)
    assert len(script.cancelled) == 7


def test_a_job_can_be_cancelled_while_it_is_being_paused(store, spec, monkeypatch):
    script = Stopping(train=["hang"])
    script.cancel_errors = [Unavailable("away")] * 4
    monkeypatch.setattr("cutoff.coordinator.pipeline.RETRIES", (3600.0,))

    async def test(jobs, journal, name):
        await started(journal, name, "train")
        jobs.pause(name)
        while script.cancel_errors:
            await asyncio.sleep(0.01)
        jobs.cancel(name)
        await until(journal, name, job_pb2.Job.STATE_CANCELLED)

    job = on_the_road(store, spec, script, test)
    assert job.failure.reason == "CANCELLED"
    assert len(script.cancelled) == 5, "its run was stopped"


def test_a_restarted_coordinator_leaves_a_paused_job_paused_until_it_is_resumed(store, spec):
    script = Stopping(checkpoint(2), failed(3), train=["hang"])

    async def pause(jobs, journal, name):
        await started(journal, name, "train")
        jobs.pause(name)
        await until(journal, name, PAUSED)

    name = on_the_road(store, spec, script, pause).name
    calls = len(script.calls)

    async def after():
        journal = Journal(store)
        jobs = Jobs(journal, script.services())
        jobs.take_up()
        await asyncio.sleep(0.1)
        assert (journal.current(name).state, len(script.calls)) == (PAUSED, calls)
        jobs.resume(name)
        await until(journal, name, job_pb2.Job.STATE_SUCCEEDED)

    asyncio.run(asyncio.wait_for(after(), 30))
    trains = [call.request.resume_from for call in script.calls if call.request.run.key.stage == "train"]
    assert trains == ["", "jobs/x/train/1/checkpoint-9"]


@pytest.mark.parametrize("wanted", [PAUSED, job_pb2.Job.STATE_CANCELLED])
def test_a_coordinator_that_went_down_in_the_middle_of_a_pause_finishes_it(store, spec, wanted):
    script = Stopping(failed(2), train=["hang"])
    script.cancel_errors = [Unavailable("away")] * 999

    async def pause(jobs, journal, name):
        await started(journal, name, "train")
        jobs.pause(name)
        while not script.cancelled:
            await asyncio.sleep(0.01)

    job = on_the_road(store, spec, script, pause)
    assert job.state == job_pb2.Job.STATE_PAUSING
    script.cancel_errors = []
    stopped = len(script.cancelled)

    async def after():
        journal = Journal(store)
        jobs = Jobs(journal, script.services())
        jobs.take_up()
        if wanted == job_pb2.Job.STATE_CANCELLED:
            jobs.cancel(job.name)  # before the pipeline took its first step
        return await until(journal, job.name, wanted)

    asyncio.run(asyncio.wait_for(after(), 30))
    assert len(script.cancelled) == stopped + 1, "the run was stopped once"


def test_who_paused_is_kept_and_a_user_takes_over_from_a_watcher(spec):
    job = new_job(spec)
    by_watcher = pausing(job, BY_WATCHER, "LM Studio has x loaded")
    assert (by_watcher.state, by_watcher.pause.by) == (job_pb2.Job.STATE_PAUSING, BY_WATCHER)
    assert pausing(by_watcher, BY_WATCHER, "again") is by_watcher
    by_user = pausing(by_watcher, BY_USER, "")
    assert by_user.pause.by == BY_USER
    assert pausing(by_user, BY_WATCHER, "LM Studio") is by_user
    ended = job_pb2.Job(name="jobs/x", state=job_pb2.Job.STATE_FAILED)
    with pytest.raises(IllegalTransition):
        pausing(ended, BY_USER, "")


def test_a_pause_is_counted_like_any_other_change_of_state(store, spec):
    """It is no move of the journal's, and its count must not drift from what the store holds."""

    async def main():
        journal = Journal(store)
        ((job, _),) = journal.submit_all([(spec, "r1")])
        name = job.name
        journal.change(name, lambda job: pausing(job, BY_USER, ""))
        journal.move(name, job_pb2.Job.STATE_PAUSED)
        return journal

    journal = asyncio.run(main())
    assert {state: count for state, count in journal._jobs.items() if count} == store.count_by_state()
