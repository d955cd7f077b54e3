"""What may go of a job's artifacts, and that it goes safely."""

import asyncio
import datetime
import os

import pytest

from cutoff.artifacts.removal import freed_bytes, remove
from cutoff.client.ask import chosen
from cutoff.coordinator import delivery
from cutoff.coordinator.garbage import Garbage
from cutoff.coordinator.journal import Journal
from cutoff.coordinator.retention import Policy, candidates, gone, removable_of, require_all_there, require_there
from cutoff.errors import Refused
from cutoff.v1 import job_pb2, types_pb2

Job = job_pb2.Job
NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)
SHIPPED = "1" * 64
KINDS = {
    "checkpoint": "train/1/checkpoint-5",
    "adapter": "train/1/final",
    "merged": "merge/1/merged",
    "gguf-f16": "convert/1/m-F16.gguf",
    "gguf": "convert/1/m-Q4_K_M.gguf",
    "evaluation": "evaluate-base/1/evaluation.json",
    "card": "card/1/card.md",
    "report": "report/1/report.json",
    "installed": "/models/local/m/m.gguf",
}


def filled(job: Job, days: float = 30, state=Job.STATE_SUCCEEDED) -> Job:
    """A job that ended so many days before NOW, with an artifact of each kind."""
    for kind, path in KINDS.items():
        stage, number, _ = path.split("/", 2) if not path.startswith("/") else ("install", "1", "")
        attempt = job.attempts.add(key={"job": job.name[5:], "stage": stage, "attempt": int(number)})
        attempt.state = job_pb2.Attempt.STATE_SUCCEEDED
        whole = path if path.startswith("/") else f"{job.name}/{path}"
        attempt.artifacts.add(kind=kind, path=whole, size_bytes=5, sha256=SHIPPED if "gguf" in kind else "2")
        if kind == "gguf":
            files = [{"quant_type": "q4_k_m", "path": whole, "sha256": SHIPPED, "size_bytes": 5}]
            attempt.result.update({"files": files})
    job.spec.convert.quant_types[:] = ["q4_k_m"]
    job.state = state
    job.end_time.FromDatetime(NOW - datetime.timedelta(days=days))
    return job


def kinds(artifacts) -> set[str]:
    return {artifact.kind for artifact in artifacts}


def test_what_is_intermediate_goes_and_the_rest_stays():
    job = filled(Job(name="jobs/a"))
    assert kinds(removable_of(job)) == {"checkpoint", "merged", "gguf-f16"}
    assert kinds(removable_of(job, ggufs=True)) == {"checkpoint", "merged", "gguf-f16", "gguf"}
    job.result.installed_sha256 = SHIPPED
    assert kinds(removable_of(job, ggufs=True)) == {"checkpoint", "merged"}


def test_age_number_and_state_decide():
    jobs = [filled(Job(name=f"jobs/{days}"), days) for days in (1, 10, 20, 30)]
    jobs.append(filled(Job(name="jobs/running"), 90, Job.STATE_RUNNING))
    installing = filled(Job(name="jobs/installing"), 90)
    installing.attempts.add(
        key={"job": "installing", "stage": "install", "attempt": 2}, state=job_pb2.Attempt.STATE_RUNNING
    )
    jobs.append(installing)

    def names(**policy):
        return [job.name[5:] for job, _ in candidates(jobs, Policy(**policy), NOW)]

    assert names() == ["30", "20", "10", "1"]
    assert names(min_age=datetime.timedelta(days=15)) == ["30", "20"]
    assert names(keep_jobs=3) == ["30"]
    assert names(keep_jobs=9) == []


@pytest.mark.parametrize("path", ["/out/jobs/a/merge/1/merged", "jobs/a/train/1/checkpoint-5"])
def test_what_another_job_builds_on_stays(path):
    running = Job(name="jobs/b", state=Job.STATE_RUNNING)
    if path.startswith("/"):
        running.spec.base_model = path
    else:
        running.spec.train.resume_from_checkpoint = path
    [(_, removed)] = candidates([filled(Job(name="jobs/a")), running], Policy(), NOW)
    assert len(removed) == 2
    assert not any(path.endswith(artifact.path) for artifact in removed)


def test_linked_files_free_nothing_until_their_last_name_goes(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a/f").write_bytes(b"12345")
    os.link(tmp_path / "a/f", tmp_path / "b/f")
    (tmp_path / "a/link").symlink_to("/etc/passwd")
    assert freed_bytes([tmp_path / "a"]) == 0
    assert freed_bytes([tmp_path / "a", tmp_path / "b"]) == 5


def test_removing_finishes_what_was_interrupted_and_follows_no_link(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "f").touch()
    (tmp_path / ".merged.removed").mkdir()
    (tmp_path / ".merged.removed/f").touch()
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged/link").symlink_to(kept)
    remove([tmp_path / "merged", tmp_path / "none"])
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (kept / "f").exists()


class NothingRuns:
    def __init__(self, *names):
        self.names = names

    def touched(self, name):
        return name in self.names


@pytest.fixture
def ended(store, spec, tmp_path):
    """A stored job that has ended, and its files."""
    job, _ = store.submit(spec, "r")
    job = store.change(job.name, filled)
    for attempt in job.attempts:
        for artifact in attempt.artifacts:
            if not artifact.path.startswith("/"):
                (tmp_path / artifact.path).mkdir(parents=True)
                (tmp_path / artifact.path / "f").write_bytes(b"12345")
    return job


EVERYTHING, NOTHING_RUNS = Policy(), NothingRuns()


def collect(store, tmp_path, policy=EVERYTHING, jobs=NOTHING_RUNS, **options):
    async def main():
        garbage = Garbage(Journal(store), jobs, tmp_path)
        return [one async for one in garbage.collect(policy, **options)]

    return asyncio.run(main())


def test_a_dry_run_tells_and_changes_nothing(store, ended, tmp_path):
    [one] = collect(store, tmp_path, dry_run=True)
    assert (one.freed_bytes, len(one.artifacts)) == (15, 3)
    assert store.get(ended.name) == ended
    assert all((tmp_path / artifact.path).exists() for artifact in one.artifacts)


def test_the_record_says_what_is_gone_and_a_second_collection_finds_nothing(store, ended, tmp_path):
    [one] = collect(store, tmp_path)
    assert one.freed_bytes == 15
    after = store.get(ended.name)
    assert kinds(gone(after)) == {"checkpoint", "merged", "gguf-f16"}
    assert not any((tmp_path / artifact.path).exists() for artifact in gone(after))
    assert (tmp_path / f"{ended.name}/report/1/report.json/f").exists()
    assert after.last_sequence == ended.last_sequence + 1
    assert collect(store, tmp_path) == []
    assert delivery.install_request(after).gguf.endswith("Q4_K_M.gguf")


def test_a_job_of_which_something_is_gone_is_not_gone_on_with(store, ended, tmp_path):
    require_all_there(ended)
    collect(store, tmp_path)
    with pytest.raises(Refused, match="submit the job again"):
        require_all_there(store.get(ended.name))


def test_a_removed_target_cannot_be_asked(store, ended, tmp_path):
    def converted(job):
        job.attempts.add(key={"job": "x", "stage": "merge", "attempt": 2}, state=job_pb2.Attempt.STATE_SUCCEEDED)
        job.attempts[-1].result.update({"path": f"{job.name}/merge/1/merged"})
        return job

    job = store.change(ended.name, converted)
    assert next(iter(chosen(job, None))).target == "merged"
    collect(store, tmp_path)
    after = store.get(job.name)
    assert [each.target for each in chosen(after, None)] == ["q4_k_m"]
    with pytest.raises(Refused, match="was removed"):
        chosen(after, "merged")


def test_a_removed_gguf_cannot_be_installed(store, ended, tmp_path):
    collect(store, tmp_path, Policy(ggufs=True))
    with pytest.raises(Refused, match=r"was removed on .* to free disk space"):
        delivery.install_request(store.get(ended.name))
    with pytest.raises(Refused, match="merged"):
        require_there(store.get(ended.name), f"{ended.name}/merge/1/merged/model.safetensors")


def test_a_job_that_something_is_done_with_is_left_alone(store, ended, tmp_path):
    assert collect(store, tmp_path, jobs=NothingRuns(ended.name)) == []
    assert store.get(ended.name) == ended


@pytest.mark.parametrize("moment", ["before the rename", "while removing"])
def test_a_crash_leaves_nothing_that_the_next_collection_does_not_remove(store, ended, tmp_path, monkeypatch, moment):
    with monkeypatch.context() as patched:
        crash = "pathlib.Path.rename" if moment == "before the rename" else "shutil.rmtree"
        patched.setattr(crash, lambda *_: (_ for _ in ()).throw(OSError("the power is gone")))
        with pytest.raises(OSError, match="power"):
            collect(store, tmp_path)
    left = {path.name for path in (tmp_path / ended.name).rglob("*") if path.is_dir()}
    assert left & {"checkpoint-5", ".checkpoint-5.removed"}
    collect(store, tmp_path)
    left = {path.name for path in (tmp_path / ended.name).rglob("*") if path.is_dir()}
    assert not left & {"checkpoint-5", ".checkpoint-5.removed", "merged", ".merged.removed"}


def test_a_path_that_leaves_the_root_is_never_removed(store, ended, tmp_path):
    def outside(job):
        job.attempts[0].artifacts[0].path = "../../etc"
        return job

    store.change(ended.name, outside)
    with pytest.raises(Exception, match="leaves"):
        collect(store, tmp_path)
    assert types_pb2.Artifact() != gone(store.get(ended.name))
