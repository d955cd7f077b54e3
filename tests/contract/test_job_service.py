"""What JobService promises."""

from __future__ import annotations

import asyncio

import pytest

from cutoff.artifacts import Roots
from cutoff.coordinator import admission
from cutoff.coordinator.attempts import Services
from cutoff.coordinator.hosts import Addresses
from cutoff.coordinator.jobs import Jobs
from cutoff.coordinator.journal import Journal
from cutoff.coordinator.service import JobServicer
from cutoff.coordinator.store import Store
from cutoff.errors import AlreadyExists, InvalidInput, NotFound, Refused
from cutoff.v1 import job_pb2, job_pb2_grpc, types_pb2

SHA256 = "1" * 64


async def _waits_for_hardware(call):
    """A scheduler whose cluster is full, but for installations: those are done at once."""
    yield types_pb2.Event(sequence=1, started=types_pb2.Started(pid=1))
    if call.request.run.key.stage == "install":
        finished = types_pb2.Event(sequence=2, finished=types_pb2.Finished())
        finished.finished.result.update({"path": "/models/m.gguf", "sha256": call.request.sha256})
        yield finished
        return
    await asyncio.sleep(3600)


async def _nothing(*_):
    return []


async def _taken(_, request):
    """A converter in whose models folder every name is taken, but for one job's own content."""
    if not request.spec.replace and request.sha256 != SHA256:
        raise AlreadyExists("a model is there already", "--replace")


async def _not_here(*_):
    raise NotFound("never started")


@pytest.fixture
def store(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'jobs.db'}")
    yield store
    store.close()


@pytest.fixture
def journal(store):
    return Journal(store)


@pytest.fixture
def port(reach, loop, tmp_path, store, journal):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "dev.jsonl").write_text("{}\n")
    (tmp_path / "datasets" / "empty.jsonl").touch()
    roots = Roots(tmp_path / "datasets", tmp_path / "out", tmp_path / "models", tmp_path / "cache")
    checks = _taken, _nothing
    services = Services(
        Addresses("a", "b", "c", "d"), _waits_for_hardware, _not_here, _nothing, *checks, _nothing, roots.artifacts
    )
    jobs = Jobs(journal, services)
    servicer = JobServicer(journal, jobs, lambda spec: admission.check(spec, roots), roots.artifacts)
    loop.call_soon_threadsafe(_put_in_ended_job, store)
    yield reach({"JobService": servicer}, {"JobService": job_pb2_grpc.add_JobServiceServicer_to_server})
    asyncio.run_coroutine_threadsafe(jobs.suspend(), loop).result(10)


def _put_in_ended_job(store):
    """A job whose gate said no, under the request id "ended"."""
    job, _ = store.submit(spec(), "ended")

    def end(job):
        files = [{"quant_type": "q4_k_m", "path": "a.gguf", "sha256": SHA256, "size_bytes": 1}]
        converted = job.attempts.add(key={"job": "x", "stage": "convert", "attempt": 1})
        converted.state = job_pb2.Attempt.STATE_SUCCEEDED
        converted.result.update({"files": files})
        job.spec.convert.quant_types.append("q4_k_m")
        job.state = job_pb2.Job.STATE_SUCCEEDED
        job.result.missed.append("retain accuracy 0.5 is below 0.7")
        return job

    store.change(job.name, end)


def spec(**changes) -> job_pb2.JobSpec:
    made = job_pb2.JobSpec(
        name="demo",
        base_model="owner/model",
        dataset=job_pb2.DatasetSpec(dev="dev.jsonl"),
        install=job_pb2.InstallSpec(replace=True),
    )
    made.MergeFrom(job_pb2.JobSpec(**changes))
    return made


def submit(port, request_id="r1", **changes) -> job_pb2.Job:
    request = job_pb2.SubmitJobRequest(spec=spec(**changes), request_id=request_id)
    return port.unary("JobService/SubmitJob", request, job_pb2.SubmitJobResponse).job


def get(port, name) -> job_pb2.Job:
    return port.unary("JobService/GetJob", job_pb2.GetJobRequest(name=name), job_pb2.GetJobResponse).job


def watch(port, name, after=0):
    request = job_pb2.WatchJobRequest(name=name, after_sequence=after)
    return (r.event for r in port.stream("JobService/WatchJob", request, job_pb2.WatchJobResponse))


def cancel(port, name) -> job_pb2.Job:
    return port.unary("JobService/CancelJob", job_pb2.CancelJobRequest(name=name), job_pb2.CancelJobResponse).job


def report(port, name, form=job_pb2.GetReportRequest.FORMAT_JSON) -> bytes:
    request = job_pb2.GetReportRequest(name=name, format=form)
    return b"".join(r.content for r in port.stream("JobService/GetReport", request, job_pb2.GetReportResponse))


def test_a_submitted_job_is_there_with_every_default(port):
    job = submit(port)
    assert get(port, job.name).spec == job.spec
    assert job.spec.train.lora_r == 16
    assert job.spec.evaluate.targets == ["base", "merged", "gguf"]


def test_a_repeated_submission_is_one_job(port):
    assert submit(port).name == submit(port).name


def test_a_request_id_belongs_to_one_spec(port):
    submit(port)
    with pytest.raises(AlreadyExists):
        submit(port, train=job_pb2.TrainSpec(epochs=9))


def test_a_request_without_id_is_refused(port):
    for wrong in ("", "x" * 201, "r\0", "é"):
        with pytest.raises(InvalidInput, match="request_id"):
            submit(port, request_id=wrong)
    assert submit(port, request_id="Monday's run, again").name


def test_all_faults_come_in_one_answer(port):
    with pytest.raises(InvalidInput) as caught:
        submit(port, train=job_pb2.TrainSpec(lora_r=0, epochs=-1), convert=job_pb2.ConvertSpec(quant_types=["q9"]))
    assert [fault.where for fault in caught.value.faults] == [
        "job: train.epochs",
        "job: train.lora_r",
        "job: convert.quant_types.0",
    ]


def test_files_that_are_not_there_are_refused(port):
    dataset = job_pb2.DatasetSpec(dev="../../etc/passwd", answers="none.jsonl")
    with pytest.raises(InvalidInput) as caught:
        submit(
            port, dataset=dataset, base_model="/no/such/folder", evaluate=job_pb2.EvaluateSpec(test_file="empty.jsonl")
        )
    assert {fault.where for fault in caught.value.faults} == {
        "dataset.dev",
        "dataset.answers",
        "evaluate.test_file",
        "base_model",
    }


def test_unknown_jobs_are_not_found(port):
    for call in (get, cancel, lambda port, name: list(watch(port, name)), report):
        with pytest.raises(NotFound, match="jobs/none"):
            call(port, "jobs/none")


def test_jobs_are_listed_by_pages(port):
    names = [ended(port).name] + [submit(port, f"r{number}").name for number in range(3)]
    first = port.unary("JobService/ListJobs", job_pb2.ListJobsRequest(page_size=3), job_pb2.ListJobsResponse)
    request = job_pb2.ListJobsRequest(page_size=2, page_token=first.next_page_token)
    second = port.unary("JobService/ListJobs", request, job_pb2.ListJobsResponse)
    assert [job.name for job in [*first.jobs, *second.jobs]] == names[::-1]
    assert second.next_page_token == ""
    with pytest.raises(InvalidInput, match="page_token"):
        port.unary("JobService/ListJobs", job_pb2.ListJobsRequest(page_token="x"), job_pb2.ListJobsResponse)


def test_a_watch_sees_every_kept_event_once_and_ends_with_the_job(port):
    job = submit(port)
    events = []
    for event in watch(port, job.name):
        events.append(event)
        if event.run.event.HasField("started"):
            cancel(port, job.name)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    states = [event.job.state for event in events if event.HasField("job")]
    assert states[0] == job_pb2.Job.STATE_QUEUED
    assert states[-1] == job_pb2.Job.STATE_CANCELLED
    assert list(watch(port, job.name, after=2)) == events[2:]


def test_cancelling_twice_is_fine(port):
    job = submit(port)
    cancel(port, job.name)
    list(watch(port, job.name))
    assert cancel(port, job.name).state == job_pb2.Job.STATE_CANCELLED


def pause(port, name) -> job_pb2.Job:
    return port.unary("JobService/PauseJob", job_pb2.PauseJobRequest(name=name), job_pb2.PauseJobResponse).job


def resume(port, name) -> job_pb2.Job:
    return port.unary("JobService/ResumeJob", job_pb2.ResumeJobRequest(name=name), job_pb2.ResumeJobResponse).job


def wait_for(port, name, *states) -> job_pb2.Job:
    for event in watch(port, name):
        if event.HasField("job") and event.job.state in states:
            return event.job
    raise AssertionError("the job ended before")


def wait_for_start(port, name, attempt=1) -> None:
    for event in watch(port, name):
        if event.run.key.attempt == attempt and event.run.event.HasField("started"):
            return


def test_a_job_is_paused_and_goes_on_with_a_new_attempt(port):
    name = submit(port).name
    wait_for_start(port, name)
    asked = pause(port, name)
    assert (asked.state, asked.pause.by) == (job_pb2.Job.STATE_PAUSING, "user")
    paused = wait_for(port, name, job_pb2.Job.STATE_PAUSED)
    [attempt] = paused.attempts
    assert (attempt.state, attempt.failure.reason) == (job_pb2.Attempt.STATE_CANCELLED, "PAUSED")
    assert not paused.HasField("failure")
    resumed = resume(port, name)
    assert resumed.state == job_pb2.Job.STATE_RUNNING
    assert not resumed.HasField("pause")
    assert resumed.start_time == paused.start_time
    wait_for_start(port, name, attempt=2)
    cancel(port, name)
    list(watch(port, name))
    assert get(port, name).state == job_pb2.Job.STATE_CANCELLED


def test_pausing_and_resuming_twice_is_fine(port):
    name = submit(port).name
    pause(port, name)
    pause(port, name)
    wait_for(port, name, job_pb2.Job.STATE_PAUSED)
    assert pause(port, name) == get(port, name)
    resume(port, name)
    assert resume(port, name).state == job_pb2.Job.STATE_RUNNING


def test_a_paused_job_is_cancelled(port):
    name = submit(port).name
    pause(port, name)
    wait_for(port, name, job_pb2.Job.STATE_PAUSED)
    cancel(port, name)
    list(watch(port, name))
    job = get(port, name)
    assert (job.state, job.failure.reason) == (job_pb2.Job.STATE_CANCELLED, "CANCELLED")
    assert not job.HasField("pause")


def test_only_a_job_that_goes_on_is_paused_and_only_a_paused_one_resumed(port):
    for call in (pause, resume):
        with pytest.raises(Refused, match="is succeeded"):
            call(port, ended(port).name)
        with pytest.raises(NotFound, match="jobs/none"):
            call(port, "jobs/none")


def test_why_a_job_waits_is_told_to_whoever_asks_lists_or_watches(port, journal, loop):
    name = submit(port).name
    wait_for_start(port, name)
    waits = job_pb2.Waiting(stage="train", reason=job_pb2.Waiting.REASON_GPUS_HELD, message="held by x", position=2)
    loop.call_soon_threadsafe(journal.waits, name, waits)
    events = watch(port, name, get(port, name).last_sequence)
    assert next(events).waiting == waits
    assert get(port, name).waiting == waits
    listed = port.unary("JobService/ListJobs", job_pb2.ListJobsRequest(), job_pb2.ListJobsResponse).jobs
    assert next(job for job in listed if job.name == name).waiting == waits
    loop.call_soon_threadsafe(journal.waits, name, None)
    assert next(events).waiting.reason == job_pb2.Waiting.REASON_UNSPECIFIED
    assert not get(port, name).HasField("waiting")


def ended(port) -> job_pb2.Job:
    jobs = port.unary("JobService/ListJobs", job_pb2.ListJobsRequest(), job_pb2.ListJobsResponse).jobs
    return next(job for job in jobs if job.state == job_pb2.Job.STATE_SUCCEEDED)


def install(port, name, **options) -> job_pb2.Job:
    request = job_pb2.InstallJobRequest(name=name, **options)
    return port.unary("JobService/InstallJob", request, job_pb2.InstallJobResponse).job


def uninstall(port, name) -> job_pb2.Job:
    return port.unary(
        "JobService/UninstallJob", job_pb2.UninstallJobRequest(name=name), job_pb2.UninstallJobResponse
    ).job


def test_a_job_whose_gate_said_no_is_installed_and_watched(port):
    begun = install(port, ended(port).name)
    events = list(watch(port, begun.name, begun.last_sequence))
    assert [event.run.event.WhichOneof("kind") for event in events if event.HasField("run")][-1] == "finished"
    done = get(port, begun.name)
    assert (done.result.installed_path, done.result.installed_sha256) == ("/models/m.gguf", SHA256)
    assert done.state == job_pb2.Job.STATE_SUCCEEDED


def test_installing_twice_is_fine(port):
    name = ended(port).name
    for _ in range(2):
        begun = install(port, name)
        list(watch(port, name, begun.last_sequence))
    assert get(port, name).result.installed_path == "/models/m.gguf"


def test_uninstalling_twice_is_fine(port):
    name = ended(port).name
    list(watch(port, name, install(port, name).last_sequence))
    assert uninstall(port, name).result.installed_path == ""
    assert uninstall(port, name) == get(port, name)


def test_only_what_a_job_has_made_can_be_installed(port):
    name = ended(port).name
    with pytest.raises(InvalidInput, match="quant_type"):
        install(port, name, quant_type="q8_0")
    running = submit(port)
    for call in (install, uninstall):
        with pytest.raises(Refused, match="has not ended"):
            call(port, running.name)
        with pytest.raises(NotFound, match="jobs/none"):
            call(port, "jobs/none")


def test_a_name_that_is_taken_is_said_before_a_job_does_anything(port):
    job = submit(port, install=job_pb2.InstallSpec(replace=False))
    list(watch(port, job.name))
    failed = get(port, job.name)
    assert failed.failure.reason == "ALREADY_EXISTS"
    assert list(failed.attempts) == []


def test_a_job_that_goes_on_has_no_report_and_says_so(port):
    job = submit(port)
    with pytest.raises(NotFound, match="made when everything has been evaluated"):
        report(port, job.name)


def test_a_report_comes_whole_however_long_it_is(port, store, tmp_path):
    job = submit(port)
    page = "<p>é</p>".encode() * 700_000  # more than one message may hold
    (tmp_path / "out").mkdir()
    (tmp_path / "out/report.json").write_text("{}")
    (tmp_path / "out/report.html").write_bytes(page)
    key = types_pb2.RunKey(job=job.name.removeprefix("jobs/"), stage="report", attempt=1)
    files = {"report": "report.json", "report-page": "report.html"}
    artifacts = [types_pb2.Artifact(kind=kind, path=path) for kind, path in files.items()]
    attempt = job_pb2.Attempt(key=key, state=job_pb2.Attempt.STATE_SUCCEEDED, artifacts=artifacts)

    def with_report(job):
        job.attempts.append(attempt)
        return job

    store.change(job.name, with_report)
    assert report(port, job.name) == b"{}"
    assert report(port, job.name, job_pb2.GetReportRequest.FORMAT_UNSPECIFIED) == b"{}"
    assert report(port, job.name, job_pb2.GetReportRequest.FORMAT_HTML) == page
    (tmp_path / "out/report.html").unlink()
    with pytest.raises(NotFound, match="not there any more"):
        report(port, job.name, job_pb2.GetReportRequest.FORMAT_HTML)


def retry(port, name) -> job_pb2.Job:
    return port.unary("JobService/RetryJob", job_pb2.RetryJobRequest(name=name), job_pb2.RetryJobResponse).job


def test_a_cancelled_job_is_tried_again(port):
    name = submit(port).name
    cancel(port, name)
    for _ in watch(port, name):
        pass
    assert get(port, name).state == job_pb2.Job.STATE_CANCELLED
    assert retry(port, name).state == job_pb2.Job.STATE_QUEUED
    assert retry(port, name).name == name, "a call may be repeated"
    cancel(port, name)


def test_a_job_that_succeeded_or_is_not_there_is_not_tried_again(port):
    with pytest.raises(Refused, match="succeeded"):
        retry(port, ended(port).name)
    with pytest.raises(NotFound):
        retry(port, "jobs/none")
