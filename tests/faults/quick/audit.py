"""Whether a job that went through faults is what it would have been without them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from cutoff.coordinator.job import TERMINAL
from cutoff.v1 import job_pb2
from tests.faults.quick.system import System


@dataclass(frozen=True)
class Audit:
    """What is wrong with a job, counted; all zeros is right."""

    lost: int
    """It ended otherwise than with success."""
    stuck: int
    """It has not ended."""
    results_recorded_twice: int
    """Stages that succeeded more than once, scores that stand twice, last events of a run beyond the first."""
    devices_taken_twice: int
    """Times that a run began on a device on which another was at work."""
    steps_redone: int
    """The most training steps that any attempt did again."""
    attempts: int
    """Beyond one a stage."""

    @classmethod
    def of(cls, system: System, name: str) -> Audit:
        with system.client() as client:
            job = client.get(name)
            events = list(client.watch(name)) if job.state in TERMINAL else []
        return cls(
            lost=int(job.state in TERMINAL and job.state != job_pb2.Job.STATE_SUCCEEDED),
            stuck=int(job.state not in TERMINAL),
            results_recorded_twice=_twice(job, events),
            devices_taken_twice=len(system.ledger.lines("device taken twice")),
            steps_redone=_redone(system, name.removeprefix("jobs/")),
            attempts=len(job.attempts) - len({attempt.key.stage for attempt in job.attempts}),
        )


def _twice(job: job_pb2.Job, events: list[job_pb2.JobEvent]) -> int:
    succeeded = Counter(each.key.stage for each in job.attempts if each.state == job_pb2.Attempt.STATE_SUCCEEDED)
    scores = Counter((each.target, each.question_set) for each in job.result.evaluations)
    last = Counter(
        (each.run.key.stage, each.run.key.attempt)
        for each in events
        if each.run.event.WhichOneof("kind") in ("finished", "failed")
    )
    return sum(count - 1 for counted in (succeeded, scores, last) for count in counted.values())


def _redone(system: System, job: str) -> int:
    """Of each attempt, how many steps it did that an earlier one had done."""
    done: set[int] = set()
    most = 0
    steps = system.ledger.lines("step", job=job)
    for attempt in sorted({line["attempt"] for line in steps}):
        own = {line["step"] for line in steps if line["attempt"] == attempt}
        most = max(most, len(own & done))
        done |= own
    return most
