"""SIGSTOP of a stage service past its lease, another in its place, SIGCONT: what it writes then counts for nothing."""

from __future__ import annotations

import time

import pytest

from cutoff.v1 import job_pb2
from tests.faults.quick.audit import Audit
from tests.faults.quick.process import thaw
from tests.faults.quick.renames import Appearances
from tests.faults.quick.system import System

pytestmark = pytest.mark.fault

LEASE = 30.0
"""Seconds; a service that does not answer for so long is given up, and a run that nobody watches stops."""

NOTICED_SECONDS = 180.0


def stale(system: System, name: str, stage: str) -> int:
    """Events of the first attempt at a stage that were taken in after it was given up."""
    with system.client() as client:
        runs = [event.run for event in client.watch(name) if event.run.key.stage == stage]
    first = [run.event.WhichOneof("kind") for run in runs if run.key.attempt == 1]
    return len(first) - first.index("failed") - 1


def test_a_training_that_was_stopped_past_its_lease_changes_nothing(figures):
    with System(lease=LEASE) as system:
        system.start()
        system.ledger.hold("train")
        system.ledger.hold("merge")
        name = system.submit(system.spec(gpus=0))
        system.wait_for("held", stage="train", attempt=1)
        stopped = system.services["trainer"].freeze()
        system.another("trainer").start()
        system.wait_for("held", NOTICED_SECONDS, stage="train", attempt=2)
        system.ledger.release("train")
        system.wait_for("held", stage="merge")
        thaw(stopped)
        time.sleep(6)  # it goes on, and finds that its lease is over
        first = system.wait_for("begun", stage="train", attempt=1)["pid"]
        still = [one for one in stopped if one.pid == first and one.is_running() and one.status() != "zombie"]
        system.ledger.release("merge")
        job = system.wait_terminal(name)
        audit = Audit.of(system, name)
        trained = [each for each in job.attempts if each.key.stage == "train"]
        assert [each.state for each in trained] == [job_pb2.Attempt.STATE_FAILED, job_pb2.Attempt.STATE_SUCCEEDED]
        assert trained[1].result["adapter"].split("/")[-2:] == ["2", "final"]
        figures.hold(
            "SIGSTOP of the trainer past the lease, reassignment, SIGCONT", 1,
            stale_writes_accepted=stale(system, name, "train"), jobs_lost=audit.lost,
            results_recorded_twice=audit.results_recorded_twice, stale_runs_left=len(still),
        )  # fmt: skip


def test_an_installation_that_was_stopped_past_its_lease_installs_nothing(figures):
    """It is stopped when the file is copied and has not got its name yet."""
    with System(lease=LEASE) as system:
        system.start()
        folder = system.roots.models / "local" / "quick"
        folder.mkdir(parents=True)
        appeared = Appearances(folder)
        system.ledger.hold("install")
        name = system.submit(system.spec(gpus=0))
        system.wait_for("held", stage="install", attempt=1)
        stopped = system.services["gguf-converter"].freeze()
        system.another("gguf-converter").start()
        system.wait_for("begun", NOTICED_SECONDS, stage="install", attempt=2)
        thaw(stopped)
        system.ledger.release("install")
        job = system.wait_terminal(name)
        audit = Audit.of(system, name)
        installed = [each for each in job.attempts if each.key.stage == "install"]
        figures.hold(
            "SIGSTOP of the converter in an installation, reassignment, SIGCONT", 1,
            stale_writes_accepted=stale(system, name, "install") + int(not installed[-1].result["changed"]),
            jobs_lost=audit.lost, duplicate_installs=len(appeared.take()) - 1,
        )  # fmt: skip
