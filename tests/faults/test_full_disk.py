"""The disk runs full under the store, the artifacts and the models folder, each a small file system of its own."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cutoff.errors import CutoffError
from cutoff.v1 import job_pb2
from tests.faults.quick.system import System

pytestmark = pytest.mark.fault

SUCCEEDED, FAILED = job_pb2.Job.STATE_SUCCEEDED, job_pb2.Job.STATE_FAILED


def fill(folder: Path) -> Path:
    """Writes a file until nothing more goes in."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            while True:
                try:
                    file.write(b"x" * size)
                except OSError:
                    break
    return filler


def submit_until_refused(system: System, most: int = 40) -> tuple[list[str], CutoffError]:
    """Jobs that were acknowledged all the same, and the first refusal: a full disk may have room for a row yet."""
    acknowledged: list[str] = []
    with system.client() as client:
        for number in range(most):
            try:
                acknowledged.append(client.submit(system.spec(f"more-{number}", gpus=0)).name)
            except CutoffError as error:
                return acknowledged, error
    raise AssertionError(f"{most} jobs were acknowledged on a full disk")


def test_a_full_disk_under_the_store_loses_no_job(mount_tmpfs, figures):
    state = mount_tmpfs("state", "2m")
    with System(folders={"state": state}) as system:
        system.start()
        system.ledger.hold("train")
        first = system.submit(system.spec("first"))
        system.wait_for("held", stage="train")
        filler = fill(state)
        acknowledged, refusal = submit_until_refused(system)
        system.ledger.release("train")
        time.sleep(5)  # what happens to the jobs now cannot be written down
        assert system.coordinator.running
        assert "full" in refusal.message, refusal
        assert refusal.remedy
        filler.unlink()
        acknowledged += [first, system.submit(system.spec("last"))]
        ended = [system.wait_terminal(name, 90) for name in acknowledged]
        system.coordinator.stop()
        figures.hold(
            "full disk under the store", len(acknowledged),
            acknowledged_jobs_lost=sum(job.state != SUCCEEDED for job in ended),
            stores_damaged=int(not system.store_is_intact()),
        )  # fmt: skip


@pytest.mark.parametrize("stage", ["train", "merge", "report"])
def test_a_full_disk_under_the_artifacts_ends_the_job_with_that_reason(mount_tmpfs, figures, stage):
    artifacts = mount_tmpfs("artifacts", "1m")
    with System(folders={"artifacts": artifacts}) as system:
        system.start()
        system.ledger.hold(stage)
        first = system.submit(system.spec("first"))
        system.wait_for("held", stage=stage)
        filler = fill(artifacts)
        system.ledger.release(stage)
        job = system.wait_terminal(first)
        # A job that has delivered is not failed for want of its report.
        assert job.state == (SUCCEEDED if stage == "report" else FAILED)
        attempt = next(each for each in reversed(job.attempts) if each.key.stage == stage)
        assert attempt.failure.reason == "DISK_FULL", attempt
        assert str(artifacts) in attempt.failure.message
        assert attempt.failure.remedy
        partial = list(artifacts.rglob("*.partial"))
        filler.unlink()
        last = system.wait_terminal(system.submit(system.spec("last")))
        with system.client() as client:
            names = {each.name for each in client.jobs()}
        system.coordinator.stop()
        figures.hold(
            f"full disk under the artifacts, in {stage}", 2,
            acknowledged_jobs_lost=int(last.state != SUCCEEDED) + len({first, last.name} - names),
            stores_damaged=int(not system.store_is_intact()), half_written_files=len(partial),
        )  # fmt: skip


def test_a_full_disk_under_the_models_folder_leaves_a_job_to_be_installed_later(mount_tmpfs, figures):
    models = mount_tmpfs("models", "1m")
    with System(folders={"models": models}) as system:
        system.start()
        system.ledger.hold("card")
        first = system.submit(system.spec("first"))
        system.wait_for("held", stage="card")
        filler = fill(models)
        system.ledger.release("card")
        job = system.wait_terminal(first)
        assert (job.state, job.failure.reason) == (FAILED, "DISK_FULL"), job.failure
        assert str(models) in job.failure.message
        half = [path for path in system.installed() if path != filler]
        filler.unlink()
        with system.client() as client:
            begun = client.install(first)
            list(client.watch(first, begun.last_sequence))
            job = client.get(first)
        system.coordinator.stop()
        figures.hold(
            "full disk under the models folder", 1,
            acknowledged_jobs_lost=int(not job.result.installed_path), half_installed_files=len(half),
            stores_damaged=int(not system.store_is_intact()),
        )  # fmt: skip
        assert [str(path) for path in system.installed()] == [job.result.installed_path]
