"""The order of stages, retries, cancelling and taking up, with a scripted scheduler in place of Ray."""

import asyncio
import dataclasses
import json
import tempfile
from pathlib import Path

import pytest

from cutoff.coordinator.attempts import Services
from cutoff.coordinator.hosts import Addresses
from cutoff.coordinator.job import OPEN, TERMINAL, with_attempt, with_event
from cutoff.coordinator.jobs import Jobs
from cutoff.coordinator.journal import Journal
from cutoff.coordinator.line import Line
from cutoff.coordinator.store import StoreFailed
from cutoff.errors import AlreadyExists, NotFound, Refused, Unavailable
from cutoff.stage.report import Reporter
from cutoff.v1 import job_pb2, run_pb2, types_pb2

SCORES = {"count": 9, "total": 10, "low": 0.6, "high": 0.98}
RESULTS = {
    "prepare": {
        "model_path": "/base",
        "probe_questions": ["Who?"],
        "model": "Qwen/Qwen2.5",
        "revision": "c" * 40,
        "license": "mit",
        "data": [{"field": "dataset.retain_train", "sha256": "3" * 64}, {"field": "evaluate.test_file", "sha256": "4"}],
        "calibration": "jobs/x/prepare/1/calibration.txt",
        "validation": "jobs/x/prepare/1/validation.txt",
        "description": "jobs/x/prepare/1/description",
        "parameters": 1000,
    },
    "train": {"adapter": "jobs/x/train/1/final"},
    "relearn": {"adapter": "jobs/x/relearn/1/final"},
    "merge": {"path": "jobs/x/merge/1/merged"},
    "convert": {
        "files": [
            {"quant_type": "q4_k_m", "path": "a-Q4_K_M.gguf", "size_bytes": 4, "sha256": "1" * 64},
            {"quant_type": "q8_0", "path": "a-Q8_0.gguf", "size_bytes": 8, "sha256": "2" * 64},
        ]
    },
    "evaluate": {"sets": {"validation": {"retain_correct": SCORES, "missed_minimum": [], "missed_target": []}}},
    "card": {"path": "jobs/x/card/1/card.md"},
    "install": {"path": "/models/local/m/m-Q4_K_M.gguf", "sha256": "1" * 64},
    "report": {"path": "jobs/x/report/1/report.json"},
}


class Script:
    """Drives stages as told: by stage, what its next attempts do; a stage not named succeeds.

    An ending is "hang", "lost" (the stream breaks), "checkpoint then lost", or the Failure the run ends with.
    """

    def __init__(self, **endings):
        self.endings = {stage.replace("_", "-"): list(events) for stage, events in endings.items()}
        self.calls = []
        self.cancelled = []
        self.running = []
        self.install_errors = []
        self.checked = []
        self.models = []
        self.model_errors = []
        self.uninstalled = []
        self.list_errors = []
        self.artifacts = Path(tempfile.mkdtemp())

    async def drive(self, call):
        stage = call.request.run.key.stage
        seen = type(call.request)()
        seen.CopyFrom(call.request)
        self.calls.append(dataclasses.replace(call, request=seen))
        sequence = call.request.run.after_sequence
        if sequence == 0:
            yield types_pb2.Event(sequence=1, started=types_pb2.Started(pid=1))
        ending = self.endings.get(stage, [])
        if ending:
            now = ending.pop(0)
            if now == "hang":
                await asyncio.sleep(3600)
            if now == "checkpoint then lost":
                artifact = types_pb2.Artifact(kind="checkpoint", path="jobs/x/train/1/checkpoint-5")
                yield types_pb2.Event(sequence=2, artifact=artifact)
            if isinstance(now, str):
                raise Unavailable("the stream broke")
            yield types_pb2.Event(sequence=sequence + 2, failed=now)
            return
        events = []
        Reporter(events.append).finished(RESULTS[stage.partition("-")[0]])
        events[0].sequence = sequence + 2
        yield events[0]

    async def cancel(self, address, service, key, after_sequence=0):
        self.cancelled.append((address, key.stage))
        if not self.running:
            raise NotFound("not here")
        return ()

    async def list_runs(self, address, service):
        if self.list_errors:
            raise self.list_errors.pop()
        return self.running

    async def check_install(self, address, request):
        self.checked.append(request)
        if self.install_errors:
            raise self.install_errors.pop()

    async def check_model(self, address, request):
        self.models.append(request)
        if self.model_errors:
            raise self.model_errors.pop()

    async def uninstall(self, address, request):
        self.uninstalled.append(request)

    @property
    def stages(self):
        return [call.request.run.key.stage for call in self.calls]

    def services(self):
        addresses = Addresses("trainer:1", "merger:1", "gguf-converter:1", "evaluator:1")
        checks = self.check_install, self.check_model
        return Services(addresses, self.drive, self.cancel, self.list_runs, *checks, self.uninstall, self.artifacts)


def run_job(store, spec, script, meanwhile=None):
    async def main():
        journal = Journal(store)
        jobs = Jobs(journal, script.services())
        job, _ = journal.store.submit(spec, "r1")
        jobs.start(job.name)
        if meanwhile:
            await meanwhile(jobs, job.name)
        async for _ in journal.watch(job.name, 0):
            pass
        return journal.current(job.name)

    return asyncio.run(asyncio.wait_for(main(), 60))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr("cutoff.coordinator.patience.RETRIES", (0.0, 0.0, 0.0))
    monkeypatch.setattr("cutoff.coordinator.attempts._ASKING", (0.0,))


def test_all_stages_in_order_and_the_result(store, spec):
    script = Script()
    job = run_job(store, spec, script)
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    assert script.stages[:3] == ["prepare", "train", "merge"]
    assert set(script.stages[3:6]) == {"convert", "evaluate-base", "evaluate-merged"}
    assert script.stages[6:] == ["evaluate-q4_k_m", "evaluate-q8_0", "card", "install", "report"]
    assert job.result.installed_path == "/models/local/m/m-Q4_K_M.gguf"
    assert [e.target for e in job.result.evaluations] == ["base", "merged", "q4_k_m", "q8_0"]
    assert job.result.evaluations[0].retain_correct.count == 9
    assert not job.result.evaluations[0].HasField("unlearn_refused")


def test_base_plus_adapter_is_evaluated_when_asked_for(store, spec):
    script = Script()
    spec.evaluate.targets.append("adapter")
    job = run_job(store, spec, script)
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    [asked] = [call.request.adapter for call in script.calls if call.request.run.key.stage == "evaluate-adapter"]
    assert (asked.model_path, asked.adapter) == ("/base", "jobs/x/train/1/final")


def test_a_control_is_evaluated_where_prepare_found_it(store, spec, monkeypatch):
    monkeypatch.setitem(RESULTS, "prepare", {**RESULTS["prepare"], "control_path": "/control"})
    script = Script()
    job = run_job(store, spec, script)
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    [asked] = [call.request for call in script.calls if call.request.run.key.stage == "evaluate-control"]
    assert (asked.target, asked.model_path) == ("control", "/control")


def test_the_merged_model_is_trained_further_and_evaluated_when_asked_for(store, spec):
    spec.evaluate.relearn.examples = 10
    spec.resources.gpus = 1
    script = Script()
    job = run_job(store, spec, script)
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    calls = {call.request.run.key.stage: call for call in script.calls}
    assert calls["relearn"].request.model_path == "jobs/x/merge/1/merged"
    assert (calls["relearn"].service, calls["relearn"].gpus) == ("trainer", 1)
    asked = calls["evaluate-relearned"].request.adapter
    assert (asked.model_path, asked.adapter) == ("jobs/x/merge/1/merged", "jobs/x/relearn/1/final")
    assert script.stages.index("evaluate-merged") < script.stages.index("relearn")


def test_inputs_are_handed_on(store, spec):
    script = Script()
    spec.train.resume_from_checkpoint = "alices/checkpoint-500"
    run_job(store, spec, script)
    by_stage = {call.request.run.key.stage: call for call in script.calls}
    assert by_stage["train"].request.model_path == "/base"
    assert by_stage["merge"].request.adapter == RESULTS["train"]["adapter"]
    assert by_stage["convert"].request.probe_questions == ["Who?"]
    convert = by_stage["convert"].request
    assert (convert.calibration, convert.validation) == (
        "jobs/x/prepare/1/calibration.txt",
        "jobs/x/prepare/1/validation.txt",
    )
    assert convert.installs == spec.install.enabled
    facts = convert.facts
    assert (facts.base_model, facts.base_revision, facts.license) == ("Qwen/Qwen2.5", "c" * 40, "mit")
    assert facts.data_sha256 == {"retain_train": "3" * 64}
    assert json.loads(facts.recipe)["train"]["lora_r"] == spec.train.lora_r
    assert "resume_from_checkpoint" not in facts.recipe, "a path of the machine it was made on"
    assert by_stage["evaluate-base"].request.model_path == "/base"
    assert by_stage["evaluate-q8_0"].request.gguf == "a-Q8_0.gguf"
    assert by_stage["install"].request.sha256 == "1" * 64
    assert by_stage["train"].service == "trainer"


def test_a_job_prepared_by_an_earlier_version_is_converted(store, spec, monkeypatch):
    earlier = {"model_path": "/base", "probe_questions": ["Who?"]}
    monkeypatch.setitem(RESULTS, "prepare", earlier)
    script = Script()
    assert run_job(store, spec, script).state == job_pb2.Job.STATE_SUCCEEDED
    (convert,) = [call.request for call in script.calls if call.request.run.key.stage == "convert"]
    assert (convert.calibration, convert.facts.license) == ("", "")


def test_gpu_stages_alone_ask_for_gpus(store, spec):
    spec.resources.gpus = 2
    script = Script()
    run_job(store, spec, script)
    asked = {call.request.run.key.stage.partition("-")[0]: call.gpus for call in script.calls}
    expected = {"prepare": 0, "train": 2, "merge": 0, "convert": 0, "evaluate": 2, "card": 0, "install": 0, "report": 0}
    assert asked == expected


def test_infrastructure_failures_are_retried(store, spec):
    lost = types_pb2.Failure(reason="UNAVAILABLE", retryable=True)
    script = Script(train=[lost, lost])
    job = run_job(store, spec, script)
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    trains = [a for a in job.attempts if a.key.stage == "train"]
    assert [a.key.attempt for a in trains] == [1, 2, 3]
    assert [a.state for a in trains[:2]] == [job_pb2.Attempt.STATE_FAILED] * 2


def test_a_model_that_cannot_be_converted_is_named_before_training(store, spec):
    script = Script()
    script.model_errors = [Refused("llama.cpp does not know the tokenizer of a/b", "take another base model")]
    job = run_job(store, spec, script)
    assert job.state == job_pb2.Job.STATE_FAILED
    assert (job.failure.message, job.failure.remedy) == (
        "llama.cpp does not know the tokenizer of a/b",
        "take another base model",
    )
    assert script.stages == ["prepare"]


def test_the_model_is_checked_once_and_patiently(store, spec):
    lost = types_pb2.Failure(reason="UNAVAILABLE", message="gone", retryable=True)
    script = Script(train=[lost])
    script.model_errors = [Unavailable("the converter is away")]
    assert run_job(store, spec, script).state == job_pb2.Job.STATE_SUCCEEDED
    assert [(request.description, request.parameters) for request in script.models] == [
        ("jobs/x/prepare/1/description", 1000)
    ] * 2


def test_infrastructure_is_given_up_on_in_the_end(store, spec):
    lost = types_pb2.Failure(reason="UNAVAILABLE", message="gone", retryable=True)
    job = run_job(store, spec, Script(merge=[lost] * 9))
    assert job.state == job_pb2.Job.STATE_FAILED
    assert job.failure.reason == "UNAVAILABLE"
    assert len([a for a in job.attempts if a.key.stage == "merge"]) == 4


@pytest.mark.parametrize("reason", ["INVALID_INPUT", "OUT_OF_MEMORY", "KILLED", "CHECK_FAILED"])
def test_other_failures_are_not_retried(store, spec, reason):
    fault = types_pb2.Fault(where="f.jsonl:3", what="is not JSON", fix="mend it")
    failure = types_pb2.Failure(reason=reason, message="no", remedy="do this", faults=[fault])
    script = Script(train=[failure])
    job = run_job(store, spec, script)
    assert job.state == job_pb2.Job.STATE_FAILED
    assert job.failure.reason == reason
    assert script.stages == ["prepare", "train"]
    if reason == "INVALID_INPUT":
        assert job.failure.faults[0].where == "f.jsonl:3"
    else:
        assert job.failure.remedy == "do this"


def test_a_failure_beside_another_stage_fails_the_job(store, spec):
    failure = types_pb2.Failure(reason="CHECK_FAILED", message="tokens differ")
    script = Script(convert=[failure])
    script.endings["evaluate-base"] = ["hang"]
    job = run_job(store, spec, script)
    assert job.state == job_pb2.Job.STATE_FAILED
    assert job.failure.message == "tokens differ"
    assert [stage for _, stage in script.cancelled] == ["evaluate-base"], "nothing of a failed job goes on"
    assert not [a for a in job.attempts if a.state in OPEN]


def test_a_run_somebody_else_cancelled_fails_the_job(store, spec):
    job = run_job(store, spec, Script(merge=[types_pb2.Failure(reason="CANCELLED", message="the run was cancelled")]))
    assert job.state == job_pb2.Job.STATE_FAILED
    assert job.failure.reason == "CANCELLED"


def test_a_lost_stream_attaches_to_the_run_that_goes_on(store, spec):
    script = Script(train=["checkpoint then lost"])

    async def still_there(address, service):
        return [run_pb2.Run(key=call.request.run.key) for call in script.calls]

    script.list_runs = still_there
    job = run_job(store, spec, script)
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    trains = [call.request.run for call in script.calls if call.request.run.key.stage == "train"]
    assert [(run.key.attempt, run.after_sequence) for run in trains] == [(1, 0), (1, 2)]
    [attempt] = [a for a in job.attempts if a.key.stage == "train"]
    assert len(attempt.artifacts) == 1, "nothing is recorded twice"


def test_a_training_lost_with_its_service_goes_on_from_its_newest_checkpoint(store, spec):
    script = Script(train=["checkpoint then lost"])
    job = run_job(store, spec, script)
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    trains = [call.request for call in script.calls if call.request.run.key.stage == "train"]
    assert [request.run.key.attempt for request in trains] == [1, 2]
    assert [request.resume_from for request in trains] == ["", "jobs/x/train/1/checkpoint-5"]
    assert job.attempts[1].failure.reason == "LOST"


def test_a_checkpoint_the_job_names_is_not_taken_for_an_earlier_attempts(store, spec):
    """The trainer passes over damaged ones of earlier attempts; what a user names must be there."""
    spec.train.resume_from_checkpoint = "jobs/other/train/1/checkpoint-5"
    script = Script()
    run_job(store, spec, script)
    [train] = [call.request for call in script.calls if call.request.run.key.stage == "train"]
    assert train.resume_from == ""


def test_services_that_are_not_up_yet_are_waited_for(store, spec):
    script = Script(prepare=["lost"])
    script.install_errors = [Unavailable("not up")] * 2
    script.list_errors = [Unavailable("not up")] * 2
    assert run_job(store, spec, script).state == job_pb2.Job.STATE_SUCCEEDED


def test_a_models_folder_that_cannot_be_written_is_found_before_work(store, spec):
    script = Script()
    script.install_errors = [Refused("the models folder cannot be written", "chmod it")]
    job = run_job(store, spec, script)
    assert job.failure.remedy == "chmod it"
    assert script.stages == []


def test_a_model_below_its_bar_is_not_installed(store, spec, monkeypatch):
    missed = {"validation": {"missed_minimum": ["retain accuracy 0.5 is below 0.7"], "missed_target": []}}
    monkeypatch.setitem(RESULTS, "evaluate", {"sets": missed})
    script = Script()
    job = run_job(store, spec, script)
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    assert job.result.missed == ["retain accuracy 0.5 is below 0.7"]
    assert "install" not in script.stages
    assert script.stages[-2:] == ["card", "report"], "both are there all the same"
    for call in script.calls[-2:]:
        assert call.request.job.result.missed == job.result.missed


def test_the_smallest_type_that_passes_is_installed_when_asked_for(store, spec, monkeypatch):
    files = [{**file, "size_bytes": size} for file, size in zip(RESULTS["convert"]["files"], (8, 4), strict=True)]
    monkeypatch.setitem(RESULTS, "convert", {"files": files})
    spec.install.quant = "smallest_passing"
    script = Script()
    run_job(store, spec, script)
    [install] = [call.request for call in script.calls if call.request.run.key.stage == "install"]
    assert install.quant_type == "q8_0"


def test_the_check_of_the_name_knows_what_will_be_installed(store, spec):
    script = Script()
    run_job(store, spec, script)
    [check] = script.checked
    assert (check.quant_type, check.sha256, check.spec.model_name) == ("q4_k_m", "", "temporal-unlearn")


def test_the_check_asks_for_every_type_that_may_be_chosen(store, spec):
    """Replacing takes a foreign file of the new one's very name only: with any type but that it would be in the way."""
    spec.install.quant = "smallest_passing"
    spec.install.replace = True
    script = Script()
    run_job(store, spec, script)
    assert [check.quant_type for check in script.checked] == ["q4_k_m", "q8_0"]
    assert all(check.spec.replace and not check.sha256 for check in script.checked)


def test_a_job_that_is_taken_up_again_is_not_refused_for_its_own_model(store, spec):
    """It was installed, and the coordinator went down before that was recorded."""

    async def first_life():
        script = Script(install=["hang"])
        journal = Journal(store)
        jobs = Jobs(journal, script.services())
        job, _ = journal.store.submit(spec, "r1")
        jobs.start(job.name)
        while "install" not in script.stages:
            await asyncio.sleep(0.01)
        await jobs.suspend()
        return job.name

    async def second_life(name):
        script = Script()
        script.install_errors = [AlreadyExists("it is there already")]
        journal = Journal(store)
        Jobs(journal, script.services()).take_up()
        async for _ in journal.watch(name, 0):
            pass
        return journal.current(name)

    job = asyncio.run(second_life(asyncio.run(first_life())))
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    assert job.result.installed_path


@pytest.mark.parametrize(
    ("change", "refused"),
    [({}, True), ({"replace": True}, False), ({"model_name": "other"}, False), ({"publisher": "me"}, False)],
)
def test_of_two_jobs_for_one_name_the_later_is_refused_before_any_work(store, spec, change, refused):
    earlier, _ = store.submit(spec, "earlier")
    spec.install.MergeFrom(job_pb2.InstallSpec(**change))
    script = Script()
    job = run_job(store, spec, script)
    assert (job.failure.reason == "ALREADY_EXISTS") is refused
    if refused:
        assert earlier.name in job.failure.message
        assert script.stages == []


def test_a_job_that_installs_nothing_has_no_rivals(store, spec):
    spec.install.enabled = False
    store.submit(spec, "earlier")
    spec.install.enabled = True
    assert run_job(store, spec, Script()).state == job_pb2.Job.STATE_SUCCEEDED


def test_a_bar_of_none_installs_anything(store, spec, monkeypatch):
    missed = {"validation": {"missed_minimum": ["retain accuracy 0.5 is below 0.7"], "missed_target": []}}
    monkeypatch.setitem(RESULTS, "evaluate", {"sets": missed})
    spec.install.require = "none"
    job = run_job(store, spec, Script())
    assert not job.result.missed
    assert job.result.installed_path


@pytest.mark.parametrize(
    "stage",
    ["prepare", "train", "merge", "convert", "evaluate-merged", "evaluate-q4_k_m", "card", "install", "report"],
)
def test_cancel_stops_the_run_and_the_job(store, spec, stage):
    script = Script(**{stage.replace("-", "_"): ["hang"]})
    if stage.startswith("evaluate"):
        script.endings = {stage: ["hang"]}

    async def cancel(jobs, name):
        while stage not in script.stages:
            await asyncio.sleep(0.01)
        jobs.cancel(name)

    job = run_job(store, spec, script, cancel)
    assert job.state == job_pb2.Job.STATE_CANCELLED
    assert stage in [cancelled for _, cancelled in script.cancelled]
    attempt = next(a for a in job.attempts if a.key.stage == stage)
    assert attempt.state == job_pb2.Attempt.STATE_CANCELLED


def test_cancel_at_once(store, spec):
    async def cancel(jobs, name):
        jobs.cancel(name)

    script = Script()
    assert run_job(store, spec, script, cancel).state == job_pb2.Job.STATE_CANCELLED
    assert script.stages == []


def test_a_restart_takes_results_that_are_there_and_attaches_to_what_runs(store, spec):
    async def first_life():
        script = Script(train=["hang"])
        journal = Journal(store)
        jobs = Jobs(journal, script.services())
        job, _ = journal.store.submit(spec, "r1")
        jobs.start(job.name)
        while "train" not in script.stages:
            await asyncio.sleep(0.01)
        await jobs.suspend()
        assert script.cancelled == []
        return job.name

    async def second_life(name):
        script = Script()
        key = types_pb2.RunKey(job=name.removeprefix("jobs/"), stage="train", attempt=1)
        script.running = [run_pb2.Run(key=key, state=run_pb2.Run.STATE_RUNNING)]
        journal = Journal(store)
        Jobs(journal, script.services()).take_up()
        async for _ in journal.watch(name, 0):
            pass
        return script, journal.current(name)

    name = asyncio.run(first_life())
    script, job = asyncio.run(second_life(name))
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    assert script.stages[0] == "train"
    assert "prepare" not in script.stages
    assert script.calls[0].request.run.key.attempt == 1
    assert script.calls[0].request.run.after_sequence == 1, "only what was missed is replayed"


def test_a_restart_while_evaluating_counts_no_score_twice(store, spec):
    async def first_life():
        script = Script()
        script.endings["evaluate-q8_0"] = ["hang"]
        journal = Journal(store)
        jobs = Jobs(journal, script.services())
        job, _ = journal.store.submit(spec, "r1")
        jobs.start(job.name)
        while "evaluate-q8_0" not in script.stages:
            await asyncio.sleep(0.01)
        await jobs.suspend()
        return job.name

    async def second_life(name):
        journal = Journal(store)
        Jobs(journal, Script().services()).take_up()
        async for _ in journal.watch(name, 0):
            pass
        return journal.current(name)

    job = asyncio.run(second_life(asyncio.run(first_life())))
    assert sorted(e.target for e in job.result.evaluations) == ["base", "merged", "q4_k_m", "q8_0"]


def test_a_restart_starts_a_lost_run_anew(store, spec):
    job, _ = store.submit(spec, "r1")
    job = store.change(job.name, lambda job: with_attempt(job, "prepare")[0])
    started = types_pb2.Event(sequence=1, started=types_pb2.Started(pid=1))
    store.change(job.name, lambda job: with_event(job, job.attempts[0].key, started))

    async def main():
        script = Script()
        journal = Journal(store)
        Jobs(journal, script.services()).take_up()
        async for _ in journal.watch(job.name, 0):
            pass
        return script, journal.current(job.name)

    script, after = asyncio.run(main())
    assert after.state == job_pb2.Job.STATE_SUCCEEDED
    assert script.calls[0].request.run.key.attempt == 2
    assert after.attempts[0].failure.reason == "LOST"


KILLED = types_pb2.Failure(reason="KILLED", message="memory ran out")


def test_an_evaluation_that_was_killed_is_tried_again_for_its_answers_are_kept(store, spec):
    script = Script()
    script.endings["evaluate-merged"] = [KILLED]
    job = run_job(store, spec, script)
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    assert [a.failure.reason for a in job.attempts if a.key.stage == "evaluate-merged"] == ["KILLED", ""]


def test_a_training_that_gets_on_is_tried_as_often_as_it_is_lost(store, spec):
    script = Script()
    losses = 0

    async def drive(call):
        nonlocal losses
        if call.request.run.key.stage == "train" and losses < 9:
            losses += 1
            yield types_pb2.Event(sequence=1, started=types_pb2.Started(pid=1))
            path = f"jobs/x/train/{losses}/checkpoint-{losses // 3}"
            yield types_pb2.Event(sequence=2, artifact=types_pb2.Artifact(kind="checkpoint", path=path))
            yield types_pb2.Event(sequence=3, failed=types_pb2.Failure(reason="LOST", retryable=True))
            return
        async for event in Script.drive(script, call):
            yield event

    script.drive = drive
    job = run_job(store, spec, script)
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    assert len([a for a in job.attempts if a.key.stage == "train"]) == 10


def test_a_service_that_falls_silent_is_asked_whether_it_has_the_run(store, spec, monkeypatch):
    monkeypatch.setattr("cutoff.coordinator.patience.FIRST_SECONDS", 0.2)
    monkeypatch.setattr("cutoff.coordinator.patience.SILENCE_SECONDS", 0.2)
    script = Script(merge=["hang"])  # after it has said that the run began
    job = run_job(store, spec, script)
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    merges = [a for a in job.attempts if a.key.stage == "merge"]
    assert [a.failure.reason for a in merges] == ["LOST", ""]


def test_heartbeats_keep_a_run_that_has_no_news(store, spec, monkeypatch):
    monkeypatch.setattr("cutoff.coordinator.patience.SILENCE_SECONDS", 0.3)
    script = Script()

    async def drive(call):
        if call.request.run.key.stage == "merge":
            for _ in range(8):
                yield types_pb2.Event(heartbeat=types_pb2.Heartbeat())
                await asyncio.sleep(0.1)
        async for event in Script.drive(script, call):
            yield event

    script.drive = drive
    job = run_job(store, spec, script)
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    assert len([a for a in job.attempts if a.key.stage == "merge"]) == 1
    kinds = {event.run.event.WhichOneof("kind") for event in store.events(job.name, 0) if event.HasField("run")}
    assert "heartbeat" not in kinds


def test_a_run_whose_service_does_not_answer_is_lost_with_its_lease(store, spec, monkeypatch):
    monkeypatch.setattr("cutoff.coordinator.attempts.LEASE_SECONDS", 0.3)
    monkeypatch.setattr("cutoff.coordinator.attempts._ASKING", (0.05,))
    script = Script(train=["lost"])
    asked = 0

    async def unreachable(address, service):
        nonlocal asked
        asked += 1
        raise Unavailable("no answer")

    script.list_runs = unreachable
    job = run_job(store, spec, script)
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    assert [a.failure.reason for a in job.attempts if a.key.stage == "train"] == ["LOST", ""]
    assert asked > 3


def test_nothing_is_begun_before_what_runs_is_attached_to(store, spec):
    """It would take the hardware that the run is on."""
    spec.install.enabled = False

    async def first_life():
        script = Script(train=["hang"])
        journal = Journal(store)
        jobs = Jobs(journal, script.services())
        name = journal.store.submit(spec, "r1")[0].name
        jobs.start(name)
        while "train" not in script.stages:
            await asyncio.sleep(0.01)
        await jobs.suspend()
        return name

    async def second_life(name):
        waiting = store.submit(spec, "r2")[0].name
        script = Script(train=["hang", "hang"])
        key = types_pb2.RunKey(job=name.removeprefix("jobs/"), stage="train", attempt=1)
        go_on = asyncio.Event()

        async def list_runs(*_):
            await go_on.wait()
            return [run_pb2.Run(key=key)]

        script.list_runs = list_runs
        journal = Journal(store)
        jobs = Jobs(journal, script.services())
        jobs.take_up()
        new = journal.store.submit(spec, "r3")[0].name
        jobs.start(new)
        await asyncio.sleep(0.1)
        assert script.calls == [], "others wait"
        go_on.set()
        script.endings["train"] = ["hang"] * 3

        async def heartbeat_then_hang(call):
            yield types_pb2.Event(heartbeat=types_pb2.Heartbeat())
            async for event in Script.drive(script, call):
                yield event

        script.drive = heartbeat_then_hang
        others = {other.removeprefix("jobs/") for other in (waiting, new)}
        while not others <= {call.request.run.key.job for call in script.calls}:
            await asyncio.sleep(0.01)
        assert script.calls[0].request.run.key == key
        await jobs.suspend()

    asyncio.run(asyncio.wait_for(second_life(asyncio.run(first_life())), 30))


def retried(store, script, name):
    async def main():
        journal = Journal(store)
        jobs = Jobs(journal, script.services())
        jobs.retry(name)
        assert jobs.retry(name).state not in TERMINAL, "asked twice, it goes on once"
        async for _ in journal.watch(name, 0):
            pass
        return journal.current(name)

    return asyncio.run(asyncio.wait_for(main(), 30))


def test_a_failed_job_goes_on_from_what_succeeded(store, spec):
    failure = types_pb2.Failure(reason="OUT_OF_MEMORY", message="no")
    failed = run_job(store, spec, Script(convert=[failure]))
    assert failed.state == job_pb2.Job.STATE_FAILED
    script = Script()
    job = retried(store, script, failed.name)
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    assert not job.HasField("failure")
    assert not {"prepare", "train", "merge"} & set(script.stages)
    assert next(call.request.run.key.attempt for call in script.calls if call.request.run.key.stage == "convert") == 2


def test_a_cancelled_training_goes_on_from_its_newest_checkpoint(store, spec):
    script = Script()

    async def drive(call):
        async for event in Script.drive(script, call):
            if event.HasField("finished") and call.request.run.key.stage == "train":
                path = "jobs/x/train/1/checkpoint-5"
                yield types_pb2.Event(sequence=2, artifact=types_pb2.Artifact(kind="checkpoint", path=path))
                await asyncio.sleep(3600)
            yield event

    script.drive = drive

    async def cancel(jobs, name):
        while not any(a.artifacts for a in store.get(name).attempts):
            await asyncio.sleep(0.01)
        jobs.cancel(name)

    cancelled = run_job(store, spec, script, cancel)
    assert cancelled.state == job_pb2.Job.STATE_CANCELLED
    script = Script()
    assert retried(store, script, cancelled.name).state == job_pb2.Job.STATE_SUCCEEDED
    train = next(call.request for call in script.calls if call.request.run.key.stage == "train")
    assert (train.run.key.attempt, train.resume_from) == (2, "jobs/x/train/1/checkpoint-5")


def test_a_job_that_succeeded_is_not_tried_again(store, spec):
    job = run_job(store, spec, Script())
    with pytest.raises(Refused, match="succeeded"):
        retried(store, Script(), job.name)


def test_a_job_goes_on_when_its_store_can_be_written_again(store, spec, monkeypatch):
    """A full disk stops no run and loses no job: what happened meanwhile is told again."""
    monkeypatch.setattr("cutoff.coordinator.jobs._STORE_SECONDS", 0.05)
    real, failing = store.change, [True] * 9
    script = Script()

    def change(name, *arguments):
        if "merge" in script.stages and failing:
            failing.pop()
            raise StoreFailed("the disk is full")
        return real(name, *arguments)

    monkeypatch.setattr(store, "change", change)

    async def still_there(address, service):
        return [run_pb2.Run(key=call.request.run.key) for call in script.calls]

    script.list_runs = still_there
    job = run_job(store, spec, script)
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    assert not failing
    assert script.cancelled == []
    assert len([a for a in job.attempts if a.key.stage == "merge"]) == 1


def test_a_job_goes_on_when_its_store_answers_again(store, spec, monkeypatch):
    """A server that is away for longer than one pause can neither be written nor read."""
    monkeypatch.setattr("cutoff.coordinator.jobs._STORE_SECONDS", 0.05)
    script = Script()

    async def main():
        journal = Journal(store)
        jobs = Jobs(journal, script.services())
        job, _ = store.submit(spec, "r1")

        def away(*_):
            raise StoreFailed("no server")

        with monkeypatch.context() as patch:
            patch.setattr(store, "get", away)
            patch.setattr(store, "change", away)
            jobs.start(job.name)
            await asyncio.sleep(0.3)
        async for _ in journal.watch(job.name, 0):
            pass
        return journal.current(job.name)

    assert asyncio.run(asyncio.wait_for(main(), 30)).state == job_pb2.Job.STATE_SUCCEEDED


def test_a_cancel_that_met_an_absent_store_is_carried_out_later(store, spec, monkeypatch):
    monkeypatch.setattr("cutoff.coordinator.jobs._STORE_SECONDS", 0.05)

    async def main():
        journal = Journal(store)
        jobs = Jobs(journal, Script().services())
        names = [store.submit(spec, f"r{number}")[0].name for number in range(2)]
        monkeypatch.setattr(jobs, "_line", Line(0.4))
        for name in names:
            jobs.start(name)
        await asyncio.sleep(0.05)
        jobs.cancel(names[1])  # while it waits for its turn

        def away(_):
            raise StoreFailed("no server")

        with monkeypatch.context() as patch:
            patch.setattr(store, "get", away)
            await asyncio.sleep(0.2)
        async for _ in journal.watch(names[1], 0):
            pass
        return journal.current(names[1])

    spec.install.enabled = False
    assert asyncio.run(asyncio.wait_for(main(), 30)).state == job_pb2.Job.STATE_CANCELLED


def test_a_crowd_of_jobs_sets_out_one_after_the_other(store, spec, monkeypatch):
    monkeypatch.setattr("cutoff.coordinator.jobs._APART_SECONDS", 0.3)

    async def main():
        journal = Journal(store)
        jobs = Jobs(journal, Script().services())
        names = [journal.store.submit(spec, f"r{number}")[0].name for number in range(3)]
        for name in names:
            jobs.start(name)
        await asyncio.sleep(0.05)
        jobs.cancel(names[1])
        async for _ in journal.watch(names[1], 0):
            pass
        assert store.get(names[2]).state == job_pb2.Job.STATE_QUEUED, "who is to stop waits for nobody"
        for name in names:
            async for _ in journal.watch(name, 0):
                pass
        return [journal.current(name) for name in names]

    spec.install.enabled = False
    first, second, third = asyncio.run(asyncio.wait_for(main(), 60))
    assert [job.state for job in (first, third)] == [job_pb2.Job.STATE_SUCCEEDED] * 2
    assert (third.start_time.ToMicroseconds() - first.start_time.ToMicroseconds()) / 1e6 >= 0.29
    assert second.state == job_pb2.Job.STATE_CANCELLED
    assert not second.attempts, "what waits for its turn can be cancelled"
