"""Installing and uninstalling what a job that has ended left, with a scripted scheduler in place of Ray."""

import asyncio

import pytest
from prometheus_client import REGISTRY

from cutoff.artifacts import counting
from cutoff.coordinator.job import OPEN
from cutoff.coordinator.jobs import Jobs
from cutoff.coordinator.journal import Journal
from cutoff.errors import AlreadyExists, InvalidInput, NotFound, Refused
from cutoff.v1 import job_pb2, run_pb2, types_pb2
from tests.unit.coordinator.test_pipeline import RESULTS, Script, run_job

MISSED = {"sets": {"validation": {"missed_minimum": ["retain accuracy 0.5 is below 0.7"], "missed_target": []}}}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr("cutoff.coordinator.patience.RETRIES", (0.0, 0.0))


@pytest.fixture
def below(store, spec, monkeypatch):
    """The name of a job whose gate said no."""
    with monkeypatch.context() as patch:
        patch.setitem(RESULTS, "evaluate", MISSED)
        return run_job(store, spec, Script()).name


def installing(store, script, *calls):
    """Makes calls of Jobs.install one after the other, and waits until nothing is done any more."""

    async def main():
        journal = Journal(store)
        jobs = Jobs(journal, script.services())
        begun = [await jobs.install(*call) for call in calls]
        events = [event async for event in journal.watch(begun[-1].name, begun[0].last_sequence)]
        return events, journal.current(begun[-1].name)

    return asyncio.run(asyncio.wait_for(main(), 30))


def test_what_the_gate_refused_is_installed_when_somebody_says_so(store, below):
    script = Script()
    events, job = installing(store, script, (below, "", False))
    [call, reporting] = script.calls
    assert (call.request.gguf, call.request.sha256, call.request.quant_type) == ("a-Q4_K_M.gguf", "1" * 64, "q4_k_m")
    assert call.request.question == "Who?"
    assert not call.request.spec.replace
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    assert job.result.missed, "what was measured stays as it is"
    assert job.result.installed_path == RESULTS["install"]["path"]
    kinds = [event.run.event.WhichOneof("kind") for event in events if event.HasField("run")]
    assert kinds == ["started", "finished"] * 2, "a watch sees all of it"
    assert reporting.request.job.result.installed_path == RESULTS["install"]["path"], "the report is made again"
    assert [each.key.attempt for each in job.attempts if each.key.stage == "report"] == [1, 2]
    assert any(event.job.result.installed_path for event in events)
    assert events[0].sequence == job.last_sequence - len(events) + 1


def test_the_name_is_checked_at_once_with_the_content_that_would_be_installed(store, below):
    script = Script()
    script.install_errors = [AlreadyExists("another model is there already", "--replace")]
    with pytest.raises(AlreadyExists):
        installing(store, script, (below, "q8_0", False))
    assert (script.checked[0].quant_type, script.checked[0].sha256) == ("q8_0", "2" * 64)
    assert script.calls == []


def test_replace_is_handed_on(store, below):
    script = Script()
    installing(store, script, (below, "q8_0", True))
    assert script.checked[0].spec.replace
    assert script.calls[0].request.spec.replace


def test_a_repeated_call_joins_the_installation_under_way(store, below):
    script = Script()
    _, job = installing(store, script, (below, "", False), (below, "", False))
    assert script.stages == ["install", "report"]
    assert [attempt.key.stage for attempt in job.attempts].count("install") == 1


def test_another_installation_meanwhile_is_refused(store, below):
    with pytest.raises(Refused, match="under way"):
        installing(store, Script(install=["hang"]), (below, "", False), (below, "q8_0", False))


def test_it_can_be_asked_for_again_later(store, below):
    installing(store, Script(), (below, "", False))
    script = Script()
    _, job = installing(store, script, (below, "q8_0", True))
    assert script.calls[0].request.run.key.attempt == 2
    assert job.attempts[-1].state == job_pb2.Attempt.STATE_SUCCEEDED


def test_without_a_type_the_installed_one_is_meant(store, spec, monkeypatch):
    """A job may have chosen another than its first: asked again, it changes nothing."""
    monkeypatch.setitem(RESULTS, "install", {"path": "/models/local/m/m-Q8_0.gguf", "sha256": "2" * 64})
    spec.install.quant = "smallest_passing"
    job = run_job(store, spec, Script())
    script = Script()
    installing(store, script, (job.name, "", False))
    assert (script.checked[0].quant_type, script.checked[0].sha256) == ("q8_0", "2" * 64)
    assert script.calls[0].request.gguf == "a-Q8_0.gguf"


def test_why_it_failed_is_in_the_record_and_the_job_stays_as_it_was(store, below):
    full = types_pb2.Failure(reason="DISK_FULL", message="the disk is full")
    _, job = installing(store, Script(install=[full]), (below, "", False))
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    assert job.attempts[-1].failure.reason == "DISK_FULL"
    assert not job.result.installed_path


def test_an_installation_can_be_cancelled_and_the_job_stays_as_it_was(store, below):
    async def main():
        script = Script(install=["hang"])
        journal = Journal(store)
        jobs = Jobs(journal, script.services())
        await jobs.install(below, "", False)
        while not script.stages:
            await asyncio.sleep(0.01)
        jobs.cancel(below)
        async for _ in journal.watch(below, 0):
            pass
        return script.cancelled

    assert asyncio.run(asyncio.wait_for(main(), 30)) == [("gguf-converter:1", "install")]
    job = store.get(below)
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    assert job.attempts[-1].state == job_pb2.Attempt.STATE_CANCELLED
    assert not job.result.installed_path


def test_a_service_that_is_gone_leaves_no_open_attempt(store, below):
    _, job = installing(store, Script(install=["lost"] * 9), (below, "", False))
    assert job.attempts[-1].failure.reason == "UNAVAILABLE"
    assert not [attempt for attempt in job.attempts if attempt.state in OPEN]


def test_what_a_lost_coordinator_began_is_stopped_first(store, below):
    async def first_life():
        script = Script(install=["hang"])
        jobs = Jobs(Journal(store), script.services())
        await jobs.install(below, "", False)
        while not script.stages:
            await asyncio.sleep(0.01)
        await jobs.suspend()

    asyncio.run(first_life())
    script = Script()
    _, job = installing(store, script, (below, "", False))
    assert [stage for _, stage in script.cancelled] == ["install"]
    assert [attempt.state for attempt in job.attempts if attempt.key.stage == "install"] == [
        job_pb2.Attempt.STATE_CANCELLED,
        job_pb2.Attempt.STATE_SUCCEEDED,
    ]


def begun_and_left(store, name):
    """A coordinator that goes down during an installation; the key of the attempt it leaves open."""

    async def first_life():
        script = Script(install=["hang"])
        jobs = Jobs(Journal(store), script.services())
        await jobs.install(name, "q8_0", False)
        while store.get(name).attempts[-1].state != job_pb2.Attempt.STATE_RUNNING:
            await asyncio.sleep(0.01)
        await jobs.suspend()

    asyncio.run(first_life())
    return store.get(name).attempts[-1].key


def taken_up(store, script, name):
    """The job after the next coordinator has done with it what there was to do."""

    async def second_life():
        journal = Journal(store)
        jobs = Jobs(journal, script.services())
        jobs.take_up()
        async for _ in journal.watch(name, 0):
            pass
        return await jobs.uninstall(name) if script.running else journal.current(name)

    asyncio.run(asyncio.wait_for(second_life(), 30))
    return store.get(name)


def test_an_installation_is_taken_up_by_the_next_coordinator(store, below):
    """Else its file would lie in LM Studio, and the job would know nothing of it."""
    script = Script(install=["lost"])  # once, then it ends well
    script.running = [run_pb2.Run(key=begun_and_left(store, below))]
    job = taken_up(store, script, below)
    assert script.stages == ["install", "install", "report"], "it is followed, patiently"
    assert not script.cancelled
    [attempt] = [each for each in job.attempts if each.key.stage == "install"]
    assert (attempt.state, attempt.key.attempt) == (job_pb2.Attempt.STATE_SUCCEEDED, 1)
    [removed] = script.uninstalled
    assert removed.sha256 == RESULTS["install"]["sha256"]


def test_an_installation_that_was_lost_is_begun_again_by_the_next_coordinator(store, below):
    """Its file may lie in LM Studio: the second one finds it there, and the job knows of it."""
    begun_and_left(store, below)
    script = Script()
    job = taken_up(store, script, below)
    call, _report = script.calls
    assert (call.request.run.key.attempt, call.request.quant_type, call.request.spec.replace) == (2, "q8_0", False)
    installs = [attempt for attempt in job.attempts if attempt.key.stage == "install"]
    assert [attempt.failure.reason for attempt in installs] == ["LOST", ""]
    assert job.result.installed_sha256


def test_of_one_that_an_earlier_version_began_it_is_not_known_what_was_asked_for(store, below):
    begun_and_left(store, below)
    store.change(below, _without_order)
    script = Script()
    job = taken_up(store, script, below)
    assert script.calls == []
    assert job.attempts[-1].failure.reason == "KILLED"
    assert "ask for it again" in job.attempts[-1].failure.remedy
    assert not job.result.installed_path


def _without_order(job):
    job.attempts[-1].ClearField("order")
    return job


def test_the_attempt_that_installs_counts_and_one_that_was_given_up_does_not(store, below):
    begun_and_left(store, below)
    script = Script(install=["hang"])
    stage = script.artifacts / below / "install"

    async def main():
        jobs = Jobs(Journal(store), script.services())
        jobs.take_up()
        while not script.calls:
            await asyncio.sleep(0.01)
        with counting(stage, 2):
            pass
        with pytest.raises(Refused), counting(stage, 1):
            pass
        await jobs.suspend()
        with counting(stage, 2):
            pass  # nobody gave it up

    asyncio.run(asyncio.wait_for(main(), 30))


def test_of_an_installation_that_is_given_up_none_counts(store, below):
    script = Script(install=["lost"] * 9)
    installing(store, script, (below, "", False))
    with pytest.raises(Refused), counting(script.artifacts / below / "install", 1):
        pass


def test_no_series_of_the_job_is_left(store, below):
    installing(store, Script(), (below, "", False))
    labels = {"cutoff_job": below.removeprefix("jobs/")}
    assert REGISTRY.get_sample_value("cutoff_job_last_event_timestamp_seconds", labels) is None


def test_a_job_that_failed_after_converting_can_be_installed(store, spec):
    """As one whose name was taken by another job meanwhile."""
    taken = types_pb2.Failure(reason="ALREADY_EXISTS", message="another model is there already")
    failed = run_job(store, spec, Script(install=[taken]))
    assert failed.state == job_pb2.Job.STATE_FAILED
    _, job = installing(store, Script(), (failed.name, "", True))
    assert job.result.installed_path
    assert job.state == job_pb2.Job.STATE_FAILED


def test_what_cannot_be_installed_is_refused_at_once(store, spec, below):
    with pytest.raises(InvalidInput, match=r"made no q6_k; it has: q4_k_m, q8_0"):
        installing(store, Script(), (below, "q6_k", False))
    with pytest.raises(NotFound):
        installing(store, Script(), ("jobs/none", "", False))
    failed, _ = store.submit(spec, "r2")
    with pytest.raises(Refused, match="has not ended"):
        installing(store, Script(), (failed.name, "", False))
    store.change(failed.name, _failed)
    with pytest.raises(Refused, match="made no GGUF"):
        installing(store, Script(), (failed.name, "", False))


def _failed(job):
    job.state = job_pb2.Job.STATE_FAILED
    return job


def test_uninstalling_removes_what_the_job_installed_and_once_only(store, spec):
    job = run_job(store, spec, Script())
    script = Script()

    async def main():
        jobs = Jobs(Journal(store), script.services())
        return [await jobs.uninstall(job.name), await jobs.uninstall(job.name)]

    first, second = asyncio.run(main())
    [request] = script.uninstalled
    assert (request.sha256, request.spec.model_name) == ("1" * 64, "temporal-unlearn")
    assert not first.result.installed_path
    assert not first.result.installed_sha256
    assert second == first


def test_what_is_being_installed_is_not_uninstalled(store, below):
    async def main():
        script = Script(install=["hang"])
        jobs = Jobs(Journal(store), script.services())
        await jobs.install(below, "", False)
        try:
            await jobs.uninstall(below)
        finally:
            await jobs.suspend()

    with pytest.raises(Refused, match="being installed"):
        asyncio.run(main())


def test_what_is_being_uninstalled_is_not_installed(store, spec):
    """Else the record could tell of a file that the removal took, or not tell of one that is there."""
    job = run_job(store, spec, Script())

    async def main():
        script, go_on = Script(), asyncio.Event()

        async def slow(address, request):
            await go_on.wait()

        script.uninstall = slow
        jobs = Jobs(Journal(store), script.services())
        removing = asyncio.create_task(jobs.uninstall(job.name))
        await asyncio.sleep(0)
        with pytest.raises(Refused, match="being removed"):
            await jobs.install(job.name, "", False)
        go_on.set()
        return await removing

    assert not asyncio.run(main()).result.installed_path


def test_a_second_uninstallation_meanwhile_is_refused(store, spec):
    """Else the first to end would allow an installation while the second still removes."""
    job = run_job(store, spec, Script())

    async def main():
        script, go_on = Script(), asyncio.Event()

        async def slow(address, request):
            await go_on.wait()

        script.uninstall = slow
        jobs = Jobs(Journal(store), script.services())
        removing = asyncio.create_task(jobs.uninstall(job.name))
        await asyncio.sleep(0)
        with pytest.raises(Refused, match="being removed"):
            await asyncio.wait_for(jobs.uninstall(job.name), 5)
        with pytest.raises(Refused, match="being removed"):
            await jobs.install(job.name, "", False)
        go_on.set()
        return await removing

    assert not asyncio.run(main()).result.installed_path


def test_an_installation_holds_where_its_report_cannot_be_made(store, below):
    script = Script(report=[types_pb2.Failure(reason="CHECK_FAILED", message="examples.jsonl is gone")])
    _, job = installing(store, script, (below, "", False))
    assert job.result.installed_path == RESULTS["install"]["path"]
    assert job.state == job_pb2.Job.STATE_SUCCEEDED
    assert not [attempt for attempt in job.attempts if attempt.state in OPEN]


def test_nothing_is_reported_anew_where_installing_failed(store, below):
    script = Script(install=[types_pb2.Failure(reason="DISK_FULL", message="no room")])
    installing(store, script, (below, "", False))
    assert script.stages == ["install"]
