"""kill -9 of the coordinator before and after every transaction that changes a job, one after the other."""

from __future__ import annotations

import contextlib
import itertools
import random
import time

import pytest

from cutoff.coordinator.job import TERMINAL
from cutoff.errors import NotFound, Unavailable
from cutoff.v1 import job_pb2
from tests.faults.quick.audit import Audit
from tests.faults.quick.deaths import Death
from tests.faults.quick.process import while_awake
from tests.faults.quick.renames import Appearances
from tests.faults.quick.system import System

pytestmark = pytest.mark.fault

STUCK_SECONDS = 60.0
"""A life in which nothing happens any more."""


def live(system: System, death: Death, act) -> bool:
    """One life of the coordinator; returns whether it died as it should: it does not when the job has ended."""
    system.coordinator.start(death)
    for _ in while_awake(STUCK_SECONDS):
        with contextlib.suppress(Unavailable):
            if act():
                return False
        if not system.coordinator.running:
            break
    assert not system.coordinator.running, f"stuck: {system.coordinator.last_words()}"
    assert system.coordinator.popen.returncode == -9, system.coordinator.last_words()
    return True


def sweep(system: System, stride: int, act) -> int:
    """Lives of the coordinator, each ended before or after its stride-th transaction; returns how many."""
    for lives, when in enumerate(itertools.cycle(("before", "after") if stride == 1 else ("after", "before"))):
        if not live(system, Death(when, str(stride)), act):
            return lives
    raise AssertionError("unreachable")


def test_no_kill_of_the_coordinator_loses_or_doubles_anything(ray, figures, stride):
    with System(ray) as system:
        system.start_services()
        folder = system.roots.models / "local" / "quick"
        folder.mkdir(parents=True)
        appeared = Appearances(folder)
        names: set[str] = set()

        def submit_and_see() -> bool:
            """What a client does that was told nothing yet: the same again."""
            with system.client() as client:
                names.add(client.submit(system.spec(), "the same").name)
                return client.get(*names).state in TERMINAL

        kills = sweep(system, stride, submit_and_see)
        audit = Audit.of(system, *names)
        with system.client() as client:
            jobs = list(client.jobs())
        figures.hold(
            "kill -9 of the coordinator before and after each transition", kills,
            jobs_lost=audit.lost + (len(jobs) - 1), jobs_stuck=audit.stuck, attempts_lost=audit.attempts,
            two_runs_on_one_device=audit.devices_taken_twice, results_recorded_twice=audit.results_recorded_twice,
            training_steps_redone=audit.steps_redone, duplicate_installs=len(appeared.take()) - 1,
        )  # fmt: skip
        assert kills >= 30 / stride
        assert system.store_is_intact()
        appeared.close()


def test_no_kill_of_the_coordinator_keeps_a_cancelled_job(ray, figures):
    with System(ray) as system:
        system.start_services()
        system.coordinator.start()
        system.coordinator.wait_healthy()
        system.ledger.hold("train")
        name = system.submit(system.spec())
        run = system.wait_for("held", stage="train")
        system.coordinator.kill()

        def cancel() -> bool:
            with system.client() as client, contextlib.suppress(NotFound):
                return client.cancel(name).state in TERMINAL
            return False

        kills = sweep(system, 1, cancel)
        with system.client() as client:
            job = client.get(name)
        left = len(system.ledger.lines("done", stage="train"))
        figures.hold(
            "kill -9 of the coordinator at each transition of a cancel", kills,
            jobs_not_cancelled=int(job.state != job_pb2.Job.STATE_CANCELLED), runs_that_went_on=left,
        )  # fmt: skip
        assert kills >= 6
        assert system.ledger.lines("begun", stage="train")[-1]["pid"], run


def test_jobs_that_share_a_device_survive_kills_with_ray(figures):
    """Here Ray dies with each coordinator, as in a user's system, at whatever moment it happens to be."""
    chance = random.Random(7)
    with System() as system:
        system.start()
        names = [system.submit(system.spec(f"shared-{number}", epochs=30)) for number in range(3)]
        waits = []
        for _ in range(4):
            time.sleep(chance.uniform(0.5, 3))
            system.coordinator.kill()
            began = time.monotonic()
            system.coordinator.start()
            system.coordinator.wait_healthy()
            waits.append(time.monotonic() - began)
        for name in names:
            system.wait_terminal(name)
        audits = [Audit.of(system, name) for name in names]
        figures.hold(
            "kill -9 of the coordinator and its Ray at random, three jobs on one device", len(waits),
            jobs_lost=sum(one.lost for one in audits), attempts_lost=sum(one.attempts for one in audits),
            two_runs_on_one_device=audits[0].devices_taken_twice,
            results_recorded_twice=sum(one.results_recorded_twice for one in audits),
        )  # fmt: skip
        figures.hold("the same", len(waits), limit=15, seconds_until_it_answers_again=round(max(waits), 1))
        assert len(system.installed()) == 3
