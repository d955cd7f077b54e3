"""kill -9 of the coordinator before and after every transaction that changes a job, one after the other."""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
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


def sweep(system: System, deaths: Iterable[Death], act) -> int:
    """Lives of the coordinator, one for each death, until the job has ended; returns how many died."""
    return next(lives for lives, death in enumerate(deaths) if not live(system, death, act))


def further(when: str, stride: int) -> Iterator[Death]:
    """Deaths around each stride-th transaction. Each life gets on: one that ends before a transaction does so before
    its next one.
    """
    yield Death(when, "1")
    yield from itertools.repeat(Death(when, str(stride + (when == "before"))))


def kill_at_each_transition(when: str, stride: int) -> tuple[int, Audit, int, int]:
    """Takes a job through a sweep; returns the kills, and what was wrong in the end: jobs and installs beyond one."""
    with System(ray_stays=True) as system:
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

        kills = sweep(system, further(when, stride), submit_and_see)
        audit = Audit.of(system, *names)
        with system.client() as client:
            jobs = len(list(client.jobs()))
        assert system.store_is_intact()
        installs = len(appeared.take())
        appeared.close()
        return kills, audit, jobs - 1, installs - 1


def test_no_kill_of_the_coordinator_loses_or_doubles_anything(figures, stride):
    """Before each transition and after each, side by side: most of a restart is waiting."""
    with ThreadPoolExecutor(2) as pool:
        lanes = list(pool.map(lambda when: kill_at_each_transition(when, stride), ("before", "after")))
    kills = [lane[0] for lane in lanes]
    audits = [lane[1] for lane in lanes]
    figures.hold(
        "kill -9 of the coordinator before and after each transition", sum(kills),
        jobs_lost=sum(one.lost for one in audits), jobs_doubled=sum(lane[2] for lane in lanes),
        jobs_stuck=sum(one.stuck for one in audits), attempts_lost=sum(one.attempts for one in audits),
        two_runs_on_one_device=sum(one.devices_taken_twice for one in audits),
        results_recorded_twice=sum(one.results_recorded_twice for one in audits),
        training_steps_redone=sum(one.steps_redone for one in audits),
        duplicate_installs=sum(lane[3] for lane in lanes),
    )  # fmt: skip
    assert min(kills) >= 30 / stride


def test_no_kill_of_the_coordinator_keeps_a_cancelled_job(figures):
    with System(ray_stays=True) as system:
        system.start_services()
        system.coordinator.start()
        system.coordinator.wait_healthy()
        system.ledger.hold("train")
        name = system.submit(system.spec())
        system.wait_for("held", stage="train")
        run = system.wait_for("begun", stage="train")["pid"]
        system.coordinator.kill()

        def cancel() -> bool:
            with system.client() as client, contextlib.suppress(NotFound):
                return client.cancel(name).state in TERMINAL
            return False

        kills = sweep(system, itertools.cycle((Death("before", "1"), Death("after", "1"))), cancel)
        with system.client() as client:
            job = client.get(name)
        left = len(system.ledger.lines("done", stage="train"))
        figures.hold(
            "kill -9 of the coordinator before and after each transition of a cancel", kills,
            jobs_not_cancelled=int(job.state != job_pb2.Job.STATE_CANCELLED), runs_that_went_on=left,
        )  # fmt: skip
        assert kills >= 6
        assert not psutil.pid_exists(run)


def test_jobs_that_share_a_device_survive_kills_with_ray(figures, stride):
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
        limit = 15 if stride == 1 else 60  # make test may share its machine
        figures.hold("the same", len(waits), limit=limit, seconds_until_it_answers_again=round(max(waits), 1))
        assert len(system.installed()) == 3
