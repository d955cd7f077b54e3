"""Cancelling in every state and stage: it ends soon, and no process of it is left."""

from __future__ import annotations

import time

import pytest

from cutoff.v1 import job_pb2
from tests.faults.quick.system import System

pytestmark = pytest.mark.fault

STAGES = ("prepare", "train", "merge", "convert", "evaluate-q4_k_m", "card", "install", "report")
SECONDS = 60


def left(system: System, job: str) -> int:
    """How many processes of a job's runs are alive."""
    started = {line["pid"] for line in system.ledger.lines("begun", job=job.removeprefix("jobs/"))}
    alive = {one.pid for process in system.services.values() for one in process.family()}
    return len(started & alive)


def cancel(system: System, name: str) -> tuple[job_pb2.Job, float]:
    """The job when it has ended, and the seconds that took."""
    began = time.monotonic()
    with system.client() as client:
        client.cancel(name)
    return system.wait_terminal(name, SECONDS + 30), time.monotonic() - began


def test_a_cancel_ends_a_job_soon_in_every_state(figures):
    with System() as system:
        system.start()
        seconds, processes, others = [], 0, 0
        for stage in STAGES:
            system.ledger.hold(stage)
            name = system.submit(system.spec())
            system.wait_for("held", job=name.removeprefix("jobs/"), stage=stage)
            job, took = cancel(system, name)
            processes += left(system, name)
            system.ledger.release(stage)
            seconds.append(took)
            others += job.state != job_pb2.Job.STATE_CANCELLED
        # At once: it is queued, or has just begun.
        with system.client() as client:
            name = client.submit(system.spec()).name
            client.cancel(name)
        seconds.append(cancel(system, name)[1])
        # While another job has the only device, and while the services are away.
        system.ledger.hold("train")
        first = system.submit(system.spec("first"))
        system.wait_for("held", job=first.removeprefix("jobs/"), stage="train")
        second = system.submit(system.spec("second"))
        system.wait_for("done", job=second.removeprefix("jobs/"), stage="prepare")
        time.sleep(1)
        for name in (second, first):
            job, took = cancel(system, name)
            processes += left(system, name)
            seconds.append(took)
            others += job.state != job_pb2.Job.STATE_CANCELLED
        figures.hold("cancel in every state and stage", len(seconds), processes_left=processes, not_cancelled=others)
        figures.hold("the same", len(seconds), limit=SECONDS, seconds_to_the_end=round(max(seconds), 1))


def test_a_cancel_while_the_service_is_away_ends_the_job(figures):
    """No service answers, and none comes back: the job ends and says that what it ran may not be over."""
    with System(environment={"CUTOFF_RETRY_SECONDS": "1 5 15"}) as system:
        system.start()
        system.ledger.hold("train")
        name = system.submit(system.spec())
        system.wait_for("held", stage="train")
        system.services["trainer"].kill()
        job, took = cancel(system, name)
        figures.hold("cancel while the stage service is away", 1, processes_left=left(system, name))
        figures.hold("the same", 1, limit=SECONDS, seconds_to_the_end=round(took, 1))
        assert job.state in (job_pb2.Job.STATE_CANCELLED, job_pb2.Job.STATE_FAILED)
