"""What the coordinator exports of jobs, of the queue for hardware, and of evaluations.

An unfinished job has series of its own; they go away with its end, its scores some minutes later, when they
have been looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import Counter, Gauge, Histogram

from cutoff.coordinator.job import LEGAL, TERMINAL, State, job_id
from cutoff.run_key import RunId, run_id, stage_kind
from cutoff.telemetry.metrics import JOB_LABEL, LONG_SECONDS
from cutoff.v1 import job_pb2, types_pb2

JOBS = Gauge("cutoff_jobs", "Jobs in the store, by state", ["state"])
JOB_SECONDS = Histogram(
    "cutoff_job_duration_seconds", "From submission to the end of a job", ["state"], buckets=LONG_SECONDS
)
JOB_LAST_EVENT = Gauge(
    "cutoff_job_last_event_timestamp_seconds", "When an unfinished job last moved, in Unix time", [JOB_LABEL]
)
QUEUE_LENGTH = Gauge("cutoff_queue_length", "Attempts that wait for hardware or for their service")
QUEUE_OLDEST = Gauge(
    "cutoff_queue_oldest_timestamp_seconds", "Since when the longest waiting attempt waits, in Unix time; 0: none does"
)
QUEUE_SECONDS = Histogram(
    "cutoff_queue_wait_seconds", "From asking for hardware to the start of a run", ["stage"], buckets=LONG_SECONDS
)
STAGE_SECONDS = Histogram(
    "cutoff_stage_duration_seconds", "How long attempts ran, by outcome", ["stage", "outcome"], buckets=LONG_SECONDS
)
SCORES = Gauge(
    "cutoff_evaluation_score_ratio",
    "Scores of a job's models, as shares of the questions",
    [JOB_LABEL, "target", "question_set", "score"],
)
INSTALLS = Counter("cutoff_installs_total", "Jobs that came to their installation, by outcome", ["outcome"])
IGNORED = Counter(
    "cutoff_ignored_events_total",
    "Events of runs that changed nothing: repeated, or of an attempt that had ended or was replaced (stale)",
    ["why"],
)
GPU_WAITING = Gauge("cutoff_queue_gpu_waiting", "Attempts that wait for a GPU, by why they do", ["reason"])
GPUS = Gauge("cutoff_gpus", "GPUs of all hosts")
GPUS_FREE = Gauge("cutoff_gpus_free", "GPUs that no attempt holds")


class Measures:
    """Follows what the journal is told. Lives on one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[RunId, float] = {}
        """From an attempt that waits to when it began to."""

    def take_up(self, jobs: Iterable[job_pb2.Job]) -> None:
        """Counts what unfinished jobs of an earlier process wait for."""
        for job in jobs:
            if job.state != job_pb2.Job.STATE_PAUSED:
                JOB_LAST_EVENT.labels(job_id(job)).set_to_current_time()
            for evaluation in job.result.evaluations:
                _tell_scores(job_id(job), evaluation)
            for attempt in job.attempts:
                if attempt.state == job_pb2.Attempt.STATE_WAITING:
                    self._wait(attempt.key, attempt.create_time.ToMicroseconds() / 1e6)

    def jobs(self, counts: dict[int, int]) -> None:
        """Takes in how many jobs are in each state."""
        for state in LEGAL:
            JOBS.labels(_state(state)).set(counts.get(state, 0))

    def moved(self, job: job_pb2.Job) -> None:
        """Takes in a job's new state."""
        if job.state == job_pb2.Job.STATE_PAUSED:
            self.at_rest(job.name)
            return
        if job.state not in TERMINAL:
            self.alive(job.name)
            return
        seconds = job.end_time.ToDatetime() - job.create_time.ToDatetime()
        JOB_SECONDS.labels(_state(job.state)).observe(seconds.total_seconds())
        outcome = _install_outcome(job)
        if outcome:
            INSTALLS.labels(outcome).inc()
        self._waiting = {key: since for key, since in self._waiting.items() if key[0] != job_id(job)}
        self._count_waiting()
        self.at_rest(job.name)

    def alive(self, name: str) -> None:
        """Takes in that something happened to a job."""
        JOB_LAST_EVENT.labels(name.removeprefix("jobs/")).set_to_current_time()

    def at_rest(self, name: str) -> None:
        """Takes in that nothing more happens to a job that has ended or is paused."""
        JOB_LAST_EVENT.remove_by_labels({JOB_LABEL: name.removeprefix("jobs/")})

    def attempt_opened(self, key: types_pb2.RunKey) -> None:
        """Takes in that an attempt asks for its hardware."""
        self._wait(key, time.time())

    def run_event(self, attempt: job_pb2.Attempt, event: types_pb2.Event) -> None:
        """Takes in one event of a run, and the attempt as it is after it."""
        kind = event.WhichOneof("kind")
        if kind == "started":
            self._started(attempt.key)
        elif kind in ("finished", "failed"):
            self._ended(attempt, event.failed.reason.lower() if kind == "failed" else "succeeded")
        elif kind == "metric" and event.metric.name == "cutoff_evaluation_score_ratio":
            labels = event.metric.labels
            scored = (labels["target"], labels["question_set"], labels["score"])
            SCORES.labels(attempt.key.job, *scored).set(event.metric.value)

    def forget(self, job: str) -> None:
        """Removes a finished job's scores."""
        SCORES.remove_by_labels({JOB_LABEL: job})

    def _wait(self, key: types_pb2.RunKey, since: float) -> None:
        self._waiting[run_id(key)] = since
        self._count_waiting()

    def _started(self, key: types_pb2.RunKey) -> None:
        since = self._waiting.pop(run_id(key), None)
        if since is not None:
            QUEUE_SECONDS.labels(stage_kind(key.stage)).observe(time.time() - since)
        self._count_waiting()

    def _ended(self, attempt: job_pb2.Attempt, outcome: str) -> None:
        key = attempt.key
        self._waiting.pop(run_id(key), None)
        self._count_waiting()
        if attempt.HasField("start_time"):
            seconds = attempt.end_time.ToDatetime() - attempt.start_time.ToDatetime()
            STAGE_SECONDS.labels(stage_kind(key.stage), outcome).observe(seconds.total_seconds())

    def _count_waiting(self) -> None:
        QUEUE_LENGTH.set(len(self._waiting))
        QUEUE_OLDEST.set(min(self._waiting.values(), default=0))


def watch_gpus(count: Callable[[], tuple[float, float]]) -> None:
    """Has the GPUs counted whenever Prometheus asks.

    Args:
        count: Returns how many there are, and how many are free.
    """
    GPUS.set_function(lambda: count()[0])
    GPUS_FREE.set_function(lambda: count()[1])


def waiting_for_gpus(reasons: Sequence[job_pb2.Waiting.Reason]) -> None:
    """Takes in why each attempt that waits for a GPU does so."""
    for reason in job_pb2.Waiting.Reason.values():
        if reason != job_pb2.Waiting.REASON_UNSPECIFIED:
            name = job_pb2.Waiting.Reason.Name(reason).removeprefix("REASON_").lower()
            GPU_WAITING.labels(name).set(reasons.count(reason))


def _install_outcome(job: job_pb2.Job) -> str | None:
    """What came of a finished job's installation; None when it never came to that."""
    if job.result.installed_path:
        return "installed"
    if job.result.missed:
        return "below_bar"
    return "failed" if any(attempt.key.stage == "install" for attempt in job.attempts) else None


def _tell_scores(job: str, evaluation: job_pb2.Evaluation) -> None:
    for field, score in evaluation.ListFields():
        if isinstance(score, job_pb2.Score) and score.total:
            labels = (job, evaluation.target, evaluation.question_set, field.name)
            SCORES.labels(*labels).set(score.count / score.total)


def _state(state: State) -> str:
    return State.Name(state).removeprefix("STATE_").lower()
