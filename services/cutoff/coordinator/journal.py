"""Tells watchers what happens to jobs: every change is a row first and an event second."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress

from cutoff.coordinator.job import (
    TERMINAL,
    RepeatedEvent,
    StaleEvent,
    State,
    attempt_of,
    job_id,
    moved,
    require_open,
    with_attempt,
    with_event,
    with_progress,
)
from cutoff.coordinator.looks import Looks
from cutoff.coordinator.measures import IGNORED, Measures
from cutoff.coordinator.store import Change, Store, Submitted
from cutoff.errors import AlreadyExists
from cutoff.run_key import RunId, run_id
from cutoff.telemetry import logger
from cutoff.v1 import job_pb2, types_pb2

_LOG = logger(__name__)

_SCORES_SECONDS = 600.0
"""How long the scores of a finished job can still be read by Prometheus."""


class Journal:
    """Changes jobs in the store and wakes whoever watches them. Lives on one event loop."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._looks = Looks(store)
        self._news: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._progress: dict[str, dict[str, job_pb2.JobEvent]] = defaultdict(dict)
        """By job and stage, the newest progress, which is passed on and not kept."""
        self._unheard: set[RunId] = set()
        """Runs that `until_heard` waits for."""
        self._all_heard = asyncio.Event()
        self._waiting: dict[str, job_pb2.JobEvent] = {}
        """By job, what it waits for; passed on and not kept. One without a reason: it waits no more."""
        self._reopened: set[str] = set()
        """Jobs that have ended and that something is done with again."""
        self._measures = Measures()
        self._measures.take_up(store.unfinished())
        self._jobs = Counter(store.count_by_state())
        """How many are in each state."""
        self._measures.jobs(self._jobs)

    def submit_all(self, submissions: Sequence[tuple[job_pb2.JobSpec, str]]) -> list[Submitted | AlreadyExists]:
        """Stores jobs together; see `Store.submit_all`."""
        outcomes = self.store.submit_all(submissions)
        self._jobs.update(each[0].state for each in outcomes if not isinstance(each, AlreadyExists) and each[1])
        self._measures.jobs(self._jobs)
        return outcomes

    def move(self, name: str, state: State, failure: types_pb2.Failure | None = None) -> job_pb2.Job:
        """Moves a job to another state; see `job.moved`."""
        job = self.change(name, lambda job: moved(job, state, failure))
        self._measures.moved(job)
        if state in TERMINAL:
            self._progress.pop(name, None)
            self._waiting.pop(name, None)
            asyncio.get_running_loop().call_later(_SCORES_SECONDS, self._measures.forget, job_id(job))
        return job

    def change(self, name: str, change: Change) -> job_pb2.Job:
        """Changes a job's record otherwise."""
        before: list[State] = []

        def noted(job: job_pb2.Job) -> job_pb2.Job:
            before[:] = [job.state]
            return change(job)

        job = self.store.change(name, noted)
        self._jobs.update({before[0]: -1})
        self._jobs.update({job.state: 1})
        self._measures.jobs(self._jobs)
        self._wake(name)
        return job

    def open_attempt(self, name: str, stage: str, order: job_pb2.InstallOrder | None = None) -> types_pb2.RunKey:
        """Adds an attempt at a stage and returns its key; see `job.with_attempt`."""
        key = self.change(name, lambda job: with_attempt(job, stage, order)[0]).attempts[-1].key
        self._measures.attempt_opened(key)
        return key

    def heard(self, key: types_pb2.RunKey) -> None:
        """A run gave a sign of life, or it is known that it will give none."""
        self._unheard.discard(run_id(key))
        if not self._unheard:
            self._all_heard.set()

    async def until_heard(self, keys: Iterable[types_pb2.RunKey], seconds: float) -> bool:
        """Waits until every one of these runs was heard of; returns whether that came in time."""
        self._unheard = set(map(run_id, keys))
        self._all_heard = asyncio.Event()
        if not self._unheard:
            return True
        with suppress(TimeoutError):
            await asyncio.wait_for(self._all_heard.wait(), seconds)
        return not self._unheard

    def run_event(self, name: str, key: types_pb2.RunKey, event: types_pb2.Event) -> None:
        """Takes in one event of one of a job's runs; once, however often it is told.

        Raises:
            StaleEvent: The run's attempt does not count any more; nothing was changed.
        """
        try:
            self._take_in(name, key, event)
        except RepeatedEvent:
            IGNORED.labels("repeated").inc()
        except StaleEvent as error:
            IGNORED.labels("stale").inc()
            _LOG.warning("not taken in", job=name, kind=event.WhichOneof("kind"), message=error.message)
            raise

    def _take_in(self, name: str, key: types_pb2.RunKey, event: types_pb2.Event) -> None:
        run = job_pb2.RunEvent(key=key, event=event)
        if event.WhichOneof("kind") == "progress":
            require_open(self.store.get(name), key)
            self._progress[name][key.stage] = job_pb2.JobEvent(time=event.time, run=run)
        else:
            job = self.store.change(name, lambda job: with_event(job, key, event), run)
            self._measures.run_event(attempt_of(job, key), event)
        self._measures.alive(name)
        self.heard(key)
        self._wake(name)

    def waits(self, name: str, waiting: job_pb2.Waiting | None) -> None:
        """Takes in what a job waits for; None when it waits no more."""
        if waiting is None and name not in self._waiting:
            return
        happened = job_pb2.JobEvent(waiting=waiting or job_pb2.Waiting())
        happened.time.GetCurrentTime()
        self._waiting[name] = happened
        self._wake(name)

    def reopen(self, name: str) -> None:
        """From now on, whoever watches a job that has ended is told of what happens to it."""
        self._reopened.add(name)

    def settle(self, name: str) -> None:
        """Nothing more is done with a job that was reopened: its watchers are let go."""
        self._reopened.discard(name)
        self._progress.pop(name, None)
        self._measures.at_rest(name)
        self._wake(name)

    def current(self, name: str) -> job_pb2.Job:
        """The job as it is now, its attempts' newest progress and what it waits for included."""
        job = self.with_waiting(self.store.get(name))
        for happened in self._progress[name].values() if name in self._progress else ():
            job = with_progress(job, happened.run.key, happened.run.event.progress)
        return job

    def with_waiting(self, job: job_pb2.Job) -> job_pb2.Job:
        """A job from the store, with what it waits for."""
        happened = self._waiting.get(job.name)
        if happened is not None and happened.waiting.reason and job.state not in TERMINAL:
            job.waiting.CopyFrom(happened.waiting)
        return job

    async def watch(self, name: str, after: int) -> AsyncIterator[job_pb2.JobEvent]:
        """Replays a job's events after a sequence number, then follows them until nothing is done with the job.

        Raises:
            NotFound: There is no such job.
        """
        self.store.get(name)
        told: dict[str, job_pb2.JobEvent] = {}
        waited: job_pb2.JobEvent | None = None
        while True:
            news = self._news[name]
            for happened in self._looks.events(name, after):
                after = happened.sequence
                yield happened
            for stage, happened in list(self._progress.get(name, {}).items()):
                if told.get(stage) is not happened:
                    told[stage] = happened
                    yield job_pb2.JobEvent(sequence=after, time=happened.time, run=happened.run)
            waits = self._waiting.get(name)
            if waits is not waited:
                if waits is not None and (waits.waiting.reason or waited is not None):
                    yield job_pb2.JobEvent(sequence=after, time=waits.time, waiting=waits.waiting)
                waited = waits
            job = self._looks.job(name)
            if job.state in TERMINAL and name not in self._reopened and job.last_sequence <= after:
                return
            if job.last_sequence <= after:
                await news.wait()

    def _wake(self, name: str) -> None:
        self._looks.forget(name)
        self._news.pop(name, asyncio.Event()).set()
