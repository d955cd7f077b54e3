"""The command line: its exit codes and its output, against a server that answers from a script."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest
import yaml
from structlog.testing import capture_logs
from typer.testing import CliRunner

from cutoff.client.cli import app
from cutoff.errors import AlreadyExists, CutoffError, NotFound, Refused
from cutoff.rpc import ServerSecurity
from cutoff.rpc.server import started
from cutoff.v1 import job_pb2, job_pb2_grpc, operator_pb2, operator_pb2_grpc, types_pb2

Job = job_pb2.Job


def job(state=Job.STATE_SUCCEEDED, **fields) -> Job:
    made = Job(name="jobs/demo-1", state=state, last_sequence=3, spec=job_pb2.JobSpec(base_model="a/b"), **fields)
    made.create_time.FromJsonString("2026-01-02T03:04:05Z")
    return made


SCORE = job_pb2.Score(count=9, total=10, low=0.6, high=0.98)
DONE = job(
    result=job_pb2.Result(
        evaluations=[job_pb2.Evaluation(target="q4_k_m", question_set="validation", retain_correct=SCORE)],
        installed_path="/models/local/m/m-Q4_K_M.gguf",
    )
)
BELOW = job(result=job_pb2.Result(missed=["retain accuracy 0.50 is below 0.70"]))
FAILED = job(Job.STATE_FAILED, failure=types_pb2.Failure(reason="KILLED", message="was killed", remedy="buy memory"))
CANCELLED = job(Job.STATE_CANCELLED, failure=types_pb2.Failure(reason="CANCELLED", message="the job was cancelled"))


@pytest.fixture(autouse=True)
def server_logs_elsewhere():
    """The server shares this process, and its log is not the command's output."""
    with capture_logs():
        yield


BY_USER = job_pb2.Pause(by="user")
WAITS = job_pb2.Waiting(
    stage="train",
    reason=job_pb2.Waiting.REASON_MEMORY_HELD,
    message="cuda:0 has 3.0 of 24.0 GiB free and the job's plan needs 8.0: held by lm-studio (pid 4242, 20.0 GiB)",
    position=2,
    length=3,
)


class Scripted(job_pb2_grpc.JobServiceServicer):
    """Answers every call about one job."""

    def __init__(self) -> None:
        self.job = DONE
        self.submitted: list[job_pb2.SubmitJobRequest] = []
        self.installs: list[job_pb2.InstallJobRequest] = []
        self.refusal: CutoffError | None = None
        self.reports: dict[int, bytes] = {}
        self.events: list[job_pb2.JobEvent] = []
        """What a watch tells before the job as it is."""
        self.operator = ScriptedOperator()

    async def SubmitJob(self, request, context):
        self.submitted.append(request)
        return job_pb2.SubmitJobResponse(job=self.job)

    async def GetJob(self, request, context):
        if request.name != self.job.name:
            raise NotFound(f"there is no job {request.name!r}", "`cutoff list` shows the jobs")
        return job_pb2.GetJobResponse(job=self.job)

    async def ListJobs(self, request, context):
        return job_pb2.ListJobsResponse(jobs=[self.job])

    async def WatchJob(self, request, context):
        key = types_pb2.RunKey(job="demo-1", stage="train", attempt=1)
        line = types_pb2.Event(log_line=types_pb2.LogLine(level="INFO", text="step 5: validation loss 0.1"))
        yield job_pb2.WatchJobResponse(event=job_pb2.JobEvent(sequence=2, run=job_pb2.RunEvent(key=key, event=line)))
        for event in self.events:
            yield job_pb2.WatchJobResponse(event=event)
        yield job_pb2.WatchJobResponse(event=job_pb2.JobEvent(sequence=3, job=self.job))

    async def PauseJob(self, request, context):
        if self.refusal is not None:
            raise self.refusal
        return job_pb2.PauseJobResponse(job=job(Job.STATE_PAUSING, pause=BY_USER))

    async def ResumeJob(self, request, context):
        return job_pb2.ResumeJobResponse(job=job(Job.STATE_RUNNING))

    async def InstallJob(self, request, context):
        self.installs.append(request)
        if self.refusal is not None:
            raise self.refusal
        return job_pb2.InstallJobResponse(job=self.job)

    async def UninstallJob(self, request, context):
        return job_pb2.UninstallJobResponse(job=self.job)

    async def GetReport(self, request, context):
        if request.format not in self.reports:
            raise NotFound(f"{request.name} has no report: the job ended before that")
        yield job_pb2.GetReportResponse(content=self.reports[request.format])

    async def CancelJob(self, request, context):
        return job_pb2.CancelJobResponse(job=self.job)


class ScriptedOperator(operator_pb2_grpc.OperatorServiceServicer):
    """Answers what an operator asks."""

    def __init__(self) -> None:
        self.asked = []
        self.running = [0]

    async def ReadLogs(self, request, context):
        self.asked.append(request)
        for stage, attempt, lines in (("train", 1, ["loading", "step 5"]), ("merge", 2, ["merging"])):
            if request.stage in ("", stage):
                key = types_pb2.RunKey(job="demo-1", stage=stage, attempt=attempt)
                yield operator_pb2.ReadLogsResponse(key=key, lines=lines)

    async def Drain(self, request, context):
        return operator_pb2.DrainResponse(draining=not request.end, running_attempts=self.running.pop(0))

    async def CollectGarbage(self, request, context):
        self.asked.append(request)
        merged = types_pb2.Artifact(kind="merged", path="jobs/old-1/merge/1/merged", size_bytes=2 << 30)
        yield operator_pb2.CollectGarbageResponse(name="jobs/old-1", artifacts=[merged], freed_bytes=3 << 29)


@pytest.fixture
def server(tmp_path, monkeypatch):
    scripted = Scripted()
    loop, ready, leave = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    address = f"unix:{tmp_path}/s.sock"

    def register(grpc_server):
        job_pb2_grpc.add_JobServiceServicer_to_server(scripted, grpc_server)
        operator_pb2_grpc.add_OperatorServiceServicer_to_server(scripted.operator, grpc_server)
        return ["cutoff.v1.JobService"]

    async def hold():
        async with started(address, register, ServerSecurity(None, None), drain=0.5):
            ready.set()
            await leave.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(hold(),))
    thread.start()
    assert ready.wait(20)
    monkeypatch.setenv("CUTOFF_ADDRESS", address)
    yield scripted
    loop.call_soon_threadsafe(leave.set)
    thread.join(20)
    loop.close()


@pytest.fixture
def job_file(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({"name": "demo", "base_model": "a/b", "dataset": {"dev": "d.jsonl"}}))
    return str(path)


def cutoff(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(("ended", "code"), [(DONE, 0), (FAILED, 1), (CANCELLED, 1), (BELOW, 4)])
def test_the_exit_code_tells_how_a_job_ended(server, job_file, ended, code):
    server.job = ended
    assert cutoff("watch", "demo-1").exit_code == code
    assert cutoff("watch", "demo-1", "--json").exit_code == code
    assert cutoff("submit", job_file, "--watch").exit_code == code


def test_scores_and_the_installed_path_are_printed(server):
    shown = cutoff("watch", "demo-1").stdout
    assert "90 60-98" in shown
    assert "installed: /models/local/m/m-Q4_K_M.gguf" in shown


def test_where_the_card_is_is_printed(server):
    path = "jobs/demo-1/card/1/card.md"
    artifact = types_pb2.Artifact(kind="card", path=path)
    server.job = job(attempts=[job_pb2.Attempt(artifacts=[artifact])])
    assert f"card: {path}" in cutoff("get", "demo-1").stdout


def test_a_missed_bar_is_said_in_words(server):
    server.job = BELOW
    assert "not installed: retain accuracy 0.50 is below 0.70" in cutoff("get", "demo-1").stdout


def test_a_failure_says_what_to_do(server):
    server.job = FAILED
    shown = cutoff("get", "demo-1").stdout
    assert "was killed" in shown
    assert "what to do: buy memory" in shown


@pytest.mark.parametrize("command", [("get", "demo-1"), ("cancel", "demo-1"), ("submit", "JOB")])
def test_json_is_data_alone_on_stdout(server, job_file, command):
    ran = cutoff(*[job_file if word == "JOB" else word for word in command], "--json")
    assert json.loads(ran.stdout)["name"] == "jobs/demo-1"


def test_list_and_watch_in_json(server):
    assert [found["name"] for found in json.loads(cutoff("list", "--json").stdout)] == ["jobs/demo-1"]
    lines = [json.loads(line) for line in cutoff("watch", "demo-1", "--json").stdout.splitlines()]
    assert [line["sequence"] for line in lines] == ["2", "3"]


def test_logs_come_through_the_coordinator(server):
    assert cutoff("logs", "demo-1").stdout == "train/1 loading\ntrain/1 step 5\nmerge/2 merging\n"
    assert cutoff("logs", "demo-1", "--stage", "merge", "-f").stdout == "merge/2 merging\n"
    assert server.operator.asked[-1].follow
    first = json.loads(cutoff("logs", "demo-1", "--json").stdout.splitlines()[0])
    assert first == {"stage": "train", "attempt": 1, "line": "loading"}


def test_drain_waits_until_nothing_runs_and_ends_again(server, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server.operator.running = [2, 1, 0]
    ran = cutoff("drain")
    assert (ran.exit_code, ran.stdout) == (0, "drained: 0 running\n")
    assert "2 still running" in ran.stderr
    server.operator.running = [2, 0]
    assert cutoff("drain", "--no-wait").stdout == "drained: 2 running\n"
    assert cutoff("drain", "--end").stdout == "takes new work\n"


def test_gc_shows_sizes_and_totals(server):
    ran = cutoff("gc", "--dry-run", "--keep-days", "2.5", "--keep", "3")
    assert "2.000 GiB  jobs/old-1/merge/1/merged" in ran.stdout
    assert "1.500 GiB  would be freed of 1 jobs" in ran.stdout
    asked = server.operator.asked[-1]
    assert (asked.dry_run, asked.min_age.ToSeconds(), asked.keep_jobs, asked.ggufs) == (True, 216000, 3, False)
    found = json.loads(cutoff("gc", "--json").stdout)
    assert found["jobs"][0]["freed_bytes"] == str(3 << 29)


def test_a_request_id_is_handed_on(server, job_file):
    assert cutoff("submit", job_file, "--request-id", "mine").exit_code == 0
    assert server.submitted[-1].request_id == "mine"
    assert server.submitted[-1].spec.train.lora_r == 16


def test_an_unknown_job_is_wrong_usage(server):
    ran = cutoff("get", "none", "--json")
    assert ran.exit_code == 2
    assert json.loads(ran.stdout)["error"]["reason"] == "NOT_FOUND"


def test_an_invalid_job_is_wrong_usage_and_names_every_fault(server, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("name: x\nbase_model: a/b\ndataset: {dev: d.jsonl}\ntrain: {lora_rank: 3, epochs: 0}\n")
    ran = cutoff("submit", str(path), "--json")
    assert ran.exit_code == 2
    assert len(json.loads(ran.stdout)["error"]["faults"]) == 2
    assert "did you mean lora_r?" in ran.stderr


def test_a_server_that_is_not_there_is_its_own_code(monkeypatch, job_file):
    monkeypatch.setenv("CUTOFF_ADDRESS", "127.0.0.1:1")
    for command in (("list",), ("get", "x"), ("submit", job_file)):
        assert cutoff(*command).exit_code == 3


def test_wrong_flags_are_wrong_usage():
    assert cutoff("run").exit_code == 2
    assert cutoff("submit", "x.yaml", "--no-such-flag").exit_code == 2


def attempted(state, **fields) -> Job:
    key = types_pb2.RunKey(job="demo-1", stage="install", attempt=1)
    below = job_pb2.Result(missed=["retain accuracy 0.50 is below 0.70"], installed_path=fields.pop("path", ""))
    return job(result=below, attempts=[job_pb2.Attempt(key=key, state=state, **fields)])


def test_a_job_below_its_bar_says_how_to_install_it_all_the_same(server):
    server.job = BELOW
    assert "cutoff install demo-1" in cutoff("get", "demo-1").stdout


def test_installing_says_where_and_with_what_it_was_asked(server):
    server.job = attempted(job_pb2.Attempt.STATE_SUCCEEDED, path="/models/local/m/m-Q8_0.gguf")
    ran = cutoff("install", "demo-1", "--quant", "q8_0", "--replace")
    assert ran.exit_code == 0
    assert "installed: /models/local/m/m-Q8_0.gguf" in ran.stdout
    [request] = server.installs
    assert (request.name, request.quant_type, request.replace) == ("jobs/demo-1", "q8_0", True)
    assert json.loads(cutoff("install", "demo-1", "--json").stdout)["result"]["installed_path"]


def test_a_job_that_was_installed_by_hand_is_not_below_its_bar_any_more(server):
    server.job = attempted(job_pb2.Attempt.STATE_SUCCEEDED, path="/models/local/m/m-Q8_0.gguf")
    ran = cutoff("watch", "demo-1")
    assert ran.exit_code == 0
    assert "installed although: retain accuracy" in ran.stdout


@pytest.mark.parametrize(
    ("reason", "code"), [("DISK_FULL", 1), ("ALREADY_EXISTS", 1), ("FAILED_PRECONDITION", 2), ("UNAVAILABLE", 3)]
)
def test_an_installation_that_fails_says_why(server, reason, code):
    failure = types_pb2.Failure(reason=reason, message="it went wrong", remedy="do this")
    server.job = attempted(job_pb2.Attempt.STATE_FAILED, failure=failure)
    ran = cutoff("install", "demo-1")
    assert ran.exit_code == code
    assert "it went wrong" in ran.stderr


def test_a_name_that_is_taken_is_told_with_both_ways_out(server):
    server.refusal = AlreadyExists("m.gguf is there already", "--replace, or another install.model_name")
    ran = cutoff("install", "demo-1")
    assert ran.exit_code == 1
    assert "--replace" in ran.stderr


def test_an_interrupted_installation_is_not_taken_for_a_good_one(server):
    server.job = attempted(job_pb2.Attempt.STATE_RUNNING)
    assert cutoff("install", "demo-1").exit_code == 3


def test_uninstalling(server):
    ran = cutoff("uninstall", "demo-1")
    assert ran.exit_code == 0
    assert "nothing of jobs/demo-1 is installed" in ran.stdout


def test_pausing_waits_until_nothing_runs(server):
    server.job = job(Job.STATE_PAUSED, pause=BY_USER)
    server.events = [job_pb2.JobEvent(sequence=4, job=job(Job.STATE_PAUSING, pause=BY_USER))]
    result = cutoff("pause", "demo-1")
    assert (result.exit_code, result.stdout) == (0, "paused\n")
    assert cutoff("pause", "demo-1", "--no-wait").stdout == "pausing\n"
    assert json.loads(cutoff("pause", "demo-1", "--json").stdout)["state"] == "STATE_PAUSED"


def test_a_job_that_ended_cannot_be_paused(server):
    server.refusal = Refused("jobs/demo-1 is succeeded", "only a job that goes on can be paused")
    result = cutoff("pause", "demo-1")
    assert result.exit_code == 2
    assert "is succeeded" in result.stderr


def test_resuming(server):
    assert cutoff("resume", "demo-1").stdout == "running\n"


def test_get_says_who_paused_a_job_and_why(server):
    server.job = job(Job.STATE_PAUSED, pause=job_pb2.Pause(by="lmstudio", reason="LM Studio has qwen loaded"))
    assert "paused by lmstudio: LM Studio has qwen loaded" in cutoff("get", "demo-1").stdout


def test_why_a_job_waits_is_told_everywhere(server):
    server.job = job(Job.STATE_RUNNING, waiting=WAITS)
    assert "train waits (place 2 of 3): cuda:0 has 3.0 of 24.0 GiB free" in cutoff("get", "demo-1").stdout
    assert "running, waits: 2 of 3" in cutoff("list").stdout
    assert json.loads(cutoff("get", "demo-1", "--json").stdout)["waiting"]["reason"] == "REASON_MEMORY_HELD"
    server.events = [job_pb2.JobEvent(waiting=WAITS), job_pb2.JobEvent(waiting=job_pb2.Waiting())]
    server.job = DONE
    watched = cutoff("watch", "demo-1").stderr
    assert "held by lm-studio (pid 4242, 20.0 GiB)" in " ".join(watched.split())
