"""Whom the watcher pauses and resumes; LM Studio is a stand-in that speaks its REST API."""

from __future__ import annotations

import asyncio

import pytest

from cutoff.coordinator.job import BY_USER
from cutoff.coordinator.jobs import Jobs
from cutoff.coordinator.journal import Journal
from cutoff.coordinator.lmstudio_watch import BY_WATCHER, Watcher, loaded_models, watch
from cutoff.llama_cpp import RequestFailed
from cutoff.v1 import job_pb2
from tests.fixtures.gguf_files import write_gguf
from tests.fixtures.lmstudio_server import LmStudio
from tests.unit.coordinator.test_pausing import PAUSED, Stopping, checkpoint, failed, no_pauses, started, until

__all__ = ["no_pauses"]  # a fixture, for every test here


def job(name, state=job_pb2.Job.STATE_RUNNING, stage="train", by=""):
    made = job_pb2.Job(name=name, state=state)
    made.attempts.add(key={"stage": stage}, state=job_pb2.Attempt.STATE_RUNNING)
    if by:
        made.pause.by = by
    return made


def looked(*looks) -> Watcher:
    watcher = Watcher()
    for look in looks:
        watcher.looked(look)
    return watcher


def test_trainings_alone_are_paused():
    watcher = looked(["qwen"], ["qwen"])
    jobs = [job("a"), job("b", stage="convert"), job("c", state=PAUSED, by=BY_USER), job("d")]
    assert watcher.to_pause(jobs) == ["a", "d"]


def test_a_model_that_is_loaded_for_a_moment_pauses_nobody():
    assert looked(["qwen"]).to_pause([job("a")]) == []
    assert looked(["qwen"], [], ["qwen"]).to_pause([job("a")]) == []


def test_what_a_user_paused_is_not_resumed():
    watcher = looked(["qwen"], ["qwen"], [], [])
    jobs = [job("mine", PAUSED, by=BY_USER), job("its", PAUSED, by=BY_WATCHER), job("goes on")]
    assert watcher.to_resume(jobs) == ["its"]


def test_nobody_is_resumed_before_lm_studio_was_empty_twice():
    assert looked(["qwen"], ["qwen"], []).to_resume([job("its", PAUSED, by=BY_WATCHER)]) == []


def test_who_was_resumed_by_hand_is_let_run_until_lm_studio_was_empty():
    watcher = looked(["qwen"], ["qwen"])
    watcher.paused("a")
    assert watcher.to_pause([job("a"), job("b")]) == ["b"]
    for look in ([], [], ["qwen"], ["qwen"]):
        watcher.looked(look)
    assert watcher.to_pause([job("a")]) == ["a"]


def test_a_coordinator_that_was_restarted_resumes_what_it_paused_before():
    assert looked([], []).to_resume([job("its", PAUSED, by=BY_WATCHER)]) == ["its"]


def load(lmstudio: LmStudio) -> None:
    write_gguf(lmstudio.models / "local/Qwen/Qwen-Q4_K_M.gguf")
    lmstudio.loaded = {"qwen": ["qwen"]}


@pytest.mark.parametrize("suffix", ["", "/v1", "/"])
def test_what_is_loaded_is_asked_of_lm_studio(lmstudio: LmStudio, suffix: str):
    assert loaded_models(lmstudio.url + suffix) == []
    load(lmstudio)
    assert loaded_models(lmstudio.url + suffix, "secret") == ["qwen"]
    assert lmstudio.tokens == ["", "Bearer secret"]


def test_without_lm_studio_nothing_is_loaded(lmstudio: LmStudio):
    lmstudio.close()
    assert loaded_models(lmstudio.url) == []


def test_another_server_is_not_taken_for_lm_studio(lmstudio: LmStudio):
    lmstudio.answers["/api/v1/models"] = lambda _: (200, {"object": "list"})
    with pytest.raises(RequestFailed, match="did not list models"):
        loaded_models(lmstudio.url)


def test_a_training_makes_room_and_goes_on_from_its_checkpoint(store, spec, lmstudio: LmStudio):
    script = Stopping(checkpoint(2), failed(3), train=["hang"])

    async def main():
        journal = Journal(store)
        jobs = Jobs(journal, script.services())
        name = journal.store.submit(spec, "r1")[0].name
        jobs.start(name)
        watching = asyncio.create_task(watch(jobs, store.unfinished, lmstudio.url, seconds=0.02))
        await started(journal, name, "train")
        load(lmstudio)
        job = await until(journal, name, PAUSED)
        assert (job.pause.by, job.pause.reason) == (BY_WATCHER, "LM Studio has qwen loaded")
        lmstudio.answers["/api/v1/models"] = lambda _: (500, {})
        await asyncio.sleep(0.2)
        assert journal.current(name).state == PAUSED, "an error says nothing of what is loaded"
        del lmstudio.answers["/api/v1/models"]
        lmstudio.loaded = {}
        await until(journal, name, job_pb2.Job.STATE_SUCCEEDED)
        watching.cancel()

    asyncio.run(asyncio.wait_for(main(), 30))
    trains = [call.request.resume_from for call in script.calls if call.request.run.key.stage == "train"]
    assert trains == ["", "jobs/x/train/1/checkpoint-9"]
