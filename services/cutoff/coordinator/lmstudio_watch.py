"""Makes room for LM Studio: pauses trainings while it has a model loaded, and goes on with them afterwards.

Off unless CUTOFF_PAUSE_WHILE_LMSTUDIO names LM Studio's server. What a user paused stays paused; a training that a
user resumed while a model is loaded is let run until LM Studio has been empty once. Who it paused stands in the job's
record, so that a restarted coordinator resumes them too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain

from cutoff.coordinator.job import OPEN
from cutoff.coordinator.jobs import Jobs
from cutoff.errors import CutoffError, Unavailable
from cutoff.llama_cpp import ChatClient
from cutoff.llama_cpp.lmstudio import api_of, instances, list_models
from cutoff.telemetry import logger
from cutoff.v1 import job_pb2

_LOG = logger(__name__)

BY_WATCHER = "lmstudio"
"""As Pause.by names it."""

_ANSWER_SECONDS = 5.0


def loaded_models(url: str, token: str = "") -> list[str]:
    """The instances LM Studio has loaded; none when nobody answers there: then it does not run.

    Raises:
        RequestFailed: It answers, but not as LM Studio 0.4 or later does.
    """
    with ChatClient(api_of(url), "", token, timeout=_ANSWER_SECONDS) as client:
        try:
            return list(chain.from_iterable(map(instances, list_models(client))))
        except Unavailable:
            return []


@dataclass
class Watcher:
    """Decides after each look whom to pause and whom to resume.

    A change counts when two looks in a row agree: cutoff itself has LM Studio load what it installed, for a moment.
    """

    _seen: tuple[str, ...] = ()
    loaded: tuple[str, ...] = ()
    """The instances that count as loaded."""
    _paused: set[str] = field(default_factory=set)
    """Jobs paused since something is loaded: none of them a second time."""

    def looked(self, seen: Iterable[str]) -> None:
        """Takes in the instances that are loaded now."""
        before, self._seen = self._seen, tuple(seen)
        if bool(before) == bool(self._seen):
            self.loaded = self._seen
        if not self.loaded:
            self._paused.clear()

    def to_pause(self, jobs: Iterable[job_pb2.Job]) -> list[str]:
        """The jobs that train, or wait for a GPU to, and are to be paused."""
        if not self.loaded:
            return []
        training = (job.name for job in jobs if job.state == job_pb2.Job.STATE_RUNNING and _trains(job))
        return [name for name in training if name not in self._paused]

    def to_resume(self, jobs: Iterable[job_pb2.Job]) -> list[str]:
        """The jobs that a watcher paused and that may go on."""
        if self.loaded or self._seen:
            return []
        return [job.name for job in jobs if job.state == job_pb2.Job.STATE_PAUSED and job.pause.by == BY_WATCHER]

    def paused(self, name: str) -> None:
        """Takes in that a job was paused."""
        self._paused.add(name)


async def watch(
    jobs: Jobs, unfinished: Callable[[], list[job_pb2.Job]], url: str, token: str = "", seconds: float = 5.0
) -> None:
    """Looks every so many seconds, for ever.

    Args:
        jobs: Pauses and resumes them.
        unfinished: The jobs that have not ended.
        url: Of LM Studio's server.
        token: Its API token; "" sends none.
        seconds: Between two looks.
    """
    watcher, complained = Watcher(), False
    while True:
        try:
            watcher.looked(await asyncio.to_thread(loaded_models, url, token))
            step(watcher, jobs, unfinished())
            complained = False
        except (CutoffError, ValueError) as error:  # what is loaded is not known, or not what runs: all stays as it is
            if not complained:
                _LOG.warning("LM Studio cannot be watched", url=url, error=str(error))
            complained = True
        await asyncio.sleep(seconds)


def step(watcher: Watcher, jobs: Jobs, unfinished: list[job_pb2.Job]) -> None:
    """Pauses and resumes as the last look wants it."""
    for name in watcher.to_pause(unfinished):
        _LOG.info("pausing for LM Studio", job=name, loaded=watcher.loaded)
        jobs.pause(name, BY_WATCHER, f"LM Studio has {', '.join(watcher.loaded)} loaded")
        watcher.paused(name)
    for name in watcher.to_resume(unfinished):
        _LOG.info("LM Studio has no model loaded any more", job=name)
        jobs.resume(name)


def _trains(job: job_pb2.Job) -> bool:
    return any(attempt.key.stage == "train" and attempt.state in OPEN for attempt in job.attempts)
