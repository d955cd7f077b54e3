"""The jobs under way: one task each, started, cancelled, taken up again after a restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from cutoff.coordinator import delivery
from cutoff.coordinator.attempts import Attempts, Result, Services
from cutoff.coordinator.job import BY_USER, OPEN, TERMINAL, State, newest_attempt, pausing
from cutoff.coordinator.journal import Journal
from cutoff.coordinator.line import Line
from cutoff.coordinator.pipeline import Pipeline
from cutoff.coordinator.results import without_installed
from cutoff.coordinator.retention import require_all_there
from cutoff.coordinator.store import StoreFailed
from cutoff.errors import CutoffError, Refused
from cutoff.rpc import failure_of
from cutoff.telemetry import logger
from cutoff.v1 import gguf_converter_pb2, job_pb2, types_pb2

_LOG = logger(__name__)

_ATTACH_SECONDS = 15.0
"""How long others wait for the hardware of runs that were under way when the coordinator went down."""

_APART_SECONDS = 0.2
"""Between the first steps of two jobs: a crowd of jobs must not keep callers waiting."""

_STORE_SECONDS = 5.0
"""Between two tries to go on with a job of which something could not be recorded."""


class Jobs:
    """Runs each job's pipeline as a task of its own. Lives on one event loop."""

    def __init__(self, journal: Journal, services: Services) -> None:
        self._journal = journal
        self._services = services
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._installing: dict[str, gguf_converter_pb2.InstallRequest] = {}
        """By job that has ended, what is being installed of it."""
        self._stopping: set[str] = set()
        """Those whose installation is being cancelled."""
        self._uninstalling: set[str] = set()
        self._attached = asyncio.Event()
        self._attached.set()
        """Unset while runs of an earlier coordinator are being attached to: nothing else is begun."""
        self._line = Line(_APART_SECONDS)
        self._attaching: asyncio.Task[None] | None = None
        self._suspended = False
        self._held: list[str] = []
        """Jobs that are let go until `release`, the oldest first."""

    def begin(self, name: str) -> None:
        """Begins a job that was just submitted, unless somebody did already."""
        if name not in self._tasks:
            self.start(name)

    def start(self, name: str) -> None:
        """Begins a job, or goes on with it; one that comes after `suspend` is left to the next coordinator."""
        if not self._suspended:
            self._go_on(name, self._in_its_turn(name))

    def take_up(self) -> None:
        """Goes on with every job, and every installation, that had not ended when the coordinator went down.

        Those that run come first: the others wait until these hold the hardware they are on, or seconds are over.
        """
        unfinished = self._journal.store.unfinished()
        interrupted = [job for job in self._journal.store.ended() if _open_install(job) is not None]
        running = [key for job in (*unfinished, *interrupted) for key in _running(job)]
        self._attached.clear()
        for job in unfinished:
            if job.state == job_pb2.Job.STATE_PAUSED:
                continue
            _LOG.info("taking up", job=job.name, running=len(_running(job)))
            if _running(job):
                self._go_on(job.name, self._pipeline(job.name).run())
            else:
                self.start(job.name)
        for job in interrupted:
            self._take_up_install(job)
        self._attaching = asyncio.create_task(self._attach(running))

    async def _attach(self, running: Sequence[types_pb2.RunKey]) -> None:
        began = time.monotonic()
        whole = await self._journal.until_heard(running, _ATTACH_SECONDS)
        _LOG.info("attached", runs=len(running), all_of_them=whole, seconds=round(time.monotonic() - began, 2))
        self._attached.set()

    def _take_up_install(self, job: job_pb2.Job) -> None:
        attempt = _open_install(job)
        assert attempt is not None, "it was looked for"
        _LOG.info("taking up an installation", job=job.name)
        attempts = Attempts(job.name, self._journal, self._services)
        if attempt.HasField("order"):
            order = attempt.order
            request = delivery.install_request(job, order.quant_type, order.replace)
            self._begin(job.name, request, partial(attempts.run, "install", lambda: request, order=order))
        else:  # of an earlier version: what was asked for is known to the run alone
            request = gguf_converter_pb2.InstallRequest(spec=job.spec.install)
            self._begin(job.name, request, partial(attempts.follow, attempt.key, request))

    def retry(self, name: str) -> job_pb2.Job:
        """Goes on with a job that failed or was cancelled; one that has not ended is returned as it is.

        Raises:
            NotFound: There is no such job.
            Refused: It succeeded, is being cancelled, something of it is being installed or removed, or of what it
                made something was removed to save space.
        """
        job = self._journal.store.get(name)
        if job.state == job_pb2.Job.STATE_SUCCEEDED:
            raise Refused(f"{name} has succeeded", "submit it again to run it from the start")
        if job.state == job_pb2.Job.STATE_CANCELLING:
            raise Refused(f"{name} is being cancelled", "wait for that (cutoff watch), and ask again")
        if job.state not in TERMINAL:
            return job
        self._require_settled(name)
        require_all_there(job)
        job = self._journal.move(name, job_pb2.Job.STATE_QUEUED)
        self.start(name)
        return job

    def cancel(self, name: str) -> job_pb2.Job:
        """Asks a job to stop; one that has ended, or is being cancelled, is returned as it is.

        What is being installed of a job that has ended is stopped.

        Raises:
            NotFound: There is no such job.
        """
        job = self._journal.store.get(name)
        if name in self._installing and name not in self._stopping:
            self._stopping.add(name)
            self._tasks[name].cancel()
        if job.state in TERMINAL or job.state == job_pb2.Job.STATE_CANCELLING:
            return job
        job = self._journal.move(name, job_pb2.Job.STATE_CANCELLING)
        self._interrupt(name)
        return job

    def pause(self, name: str, by: str = BY_USER, reason: str = "") -> job_pb2.Job:
        """Asks a job to stop for a while; one that is paused already is returned as it is.

        Args:
            name: The job's.
            by: Who wants that; see `job.pausing`.
            reason: In words, why.

        Raises:
            NotFound: There is no such job.
            Refused: It has ended, or is being cancelled.
        """
        before = self._journal.store.get(name)
        if before.state in TERMINAL or before.state == job_pb2.Job.STATE_CANCELLING:
            raise Refused(f"{name} is {_word(before.state)}", "only a job that goes on can be paused")
        if pausing(before, by, reason) is before:
            return before
        job = self._journal.change(name, lambda job: pausing(job, by, reason))
        if before.state not in (job_pb2.Job.STATE_PAUSING, job_pb2.Job.STATE_PAUSED):
            self._interrupt(name)
        return job

    def resume(self, name: str) -> job_pb2.Job:
        """Goes on with a paused job; one that goes on already is returned as it is.

        Raises:
            NotFound: There is no such job.
            Refused: It has ended, is being cancelled, or is not paused yet.
        """
        job = self._journal.store.get(name)
        if job.state in (job_pb2.Job.STATE_QUEUED, job_pb2.Job.STATE_RUNNING):
            return job
        if job.state == job_pb2.Job.STATE_PAUSING:
            raise Refused(f"{name} is still being paused", "ask again when it is (cutoff watch)")
        if job.state != job_pb2.Job.STATE_PAUSED:
            raise Refused(f"{name} is {_word(job.state)}", "only a paused job can be resumed")
        job = self._journal.move(name, job_pb2.Job.STATE_RUNNING)
        self.start(name)
        return job

    def _interrupt(self, name: str) -> None:
        """Has a job's pipeline look at the state it was brought into; one that has none gets it."""
        task = self._tasks.get(name)
        if task is None or task.done():
            self._held = [other for other in self._held if other != name]
            self.start(name)
        else:
            task.cancel()

    def touched(self, name: str) -> bool:
        """Whether anything is done with a job now, by its pipeline or after its end."""
        return name in self._tasks or name in self._uninstalling

    def installing(self) -> int:
        """How many jobs that have ended are being installed, or what they installed removed."""
        return len(self._installing) + len(self._uninstalling)

    def hold(self) -> None:
        """Lets go of every job of which nothing runs; what runs of others goes on, and what waits beside it."""
        for job in self._journal.store.unfinished():
            runs = any(attempt.state == job_pb2.Attempt.STATE_RUNNING for attempt in job.attempts)
            if job.name in self._tasks and not runs and job.state not in _ON_ITS_WAY:
                self._held.append(job.name)
                self._tasks[job.name].cancel()

    def release(self) -> None:
        """Goes on with what was held."""
        for name in self._held:
            self.begin(name)
        self._held.clear()

    async def install(self, name: str, quant_type: str, replace: bool) -> job_pb2.Job:
        """Begins to install a GGUF of a job that has ended, or joins such an installation.

        Returns:
            The job as it was before: whoever watches it from its last_sequence on sees the whole installation,
            which is its newest install attempt.

        Raises:
            NotFound: There is no such job.
            Refused: It has not ended, has made no GGUF, or another one of it is being installed.
            InvalidInput: It has made none of this type.
            AlreadyExists: Its name is taken, and not to be replaced.
            CutoffError: It could not be installed for another reason.
        """
        job = self._journal.store.get(name)
        delivery.require_ended(job)
        request = delivery.install_request(job, quant_type, replace)
        if not self._joins(name, request):
            check = delivery.check_request(job.spec, request)
            await self._services.check_install(self._services.addresses.gguf_converter, check)
            if not self._joins(name, request):  # another call may have been faster
                order = job_pb2.InstallOrder(quant_type=request.quant_type, replace=replace)
                self._begin(name, request, partial(self._anew, name, request, order))
        return job

    async def uninstall(self, name: str) -> job_pb2.Job:
        """Removes what a job installed; a job of which nothing is installed is returned as it is.

        Raises:
            NotFound: There is no such job.
            Refused: It has not ended, is being installed or uninstalled, or its file was changed since.
            CutoffError: It cannot be removed.
        """
        job = self._journal.store.get(name)
        delivery.require_ended(job)
        self._require_settled(name)
        if not job.result.installed_sha256:
            return job
        self._uninstalling.add(name)
        try:
            await self._services.uninstall(self._services.addresses.gguf_converter, delivery.uninstall_request(job))
            return self._journal.change(name, without_installed)
        finally:
            self._uninstalling.discard(name)

    def _require_settled(self, name: str) -> None:
        """Refuses a job that has ended while it is being installed, or what it installed removed."""
        if name in self._installing:
            raise Refused(f"{name} is being installed", "wait for that (cutoff watch)")
        if name in self._uninstalling:
            raise _being_removed(name)

    def _joins(self, name: str, request: gguf_converter_pb2.InstallRequest) -> bool:
        """Whether just this is being installed.

        Raises:
            Refused: Something else of the job is, or what it installed is being removed.
        """
        if name in self._uninstalling:
            raise _being_removed(name)
        present = self._installing.get(name)
        if present is not None and present != request:
            raise Refused(f"another installation of {name} is under way", "wait for that (cutoff watch)")
        return present is not None

    def _pipeline(self, name: str) -> Pipeline:
        return Pipeline(name, self._journal, self._services)

    async def _in_its_turn(self, name: str) -> None:
        """Who has nothing to begin waits for nobody: what runs is watched, and what is to stop is stopped."""
        await self._attached.wait()
        job = self._journal.store.get(name)
        if job.state not in _ON_ITS_WAY and not _running(job):
            await self._line.turn(job.spec.resources.priority, job.create_time.ToMicroseconds() / 1e6)
        await self._pipeline(name).run()

    def _go_on(self, name: str, steps: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(steps, name=name)
        self._tasks[name] = task
        task.add_done_callback(self._ended)

    def _begin(
        self, name: str, request: gguf_converter_pb2.InstallRequest, installing: Callable[[], Awaitable[Result]]
    ) -> None:
        self._installing[name] = request
        self._journal.reopen(name)
        self._tasks[name] = asyncio.create_task(self._install(name, installing), name=name)
        self._tasks[name].add_done_callback(self._installed)

    async def _anew(self, name: str, request: gguf_converter_pb2.InstallRequest, order: job_pb2.InstallOrder) -> Result:
        attempts = Attempts(name, self._journal, self._services)
        await attempts.cancel_open()  # what ended without its service's word
        return await attempts.run("install", lambda: request, order=order)

    async def _install(self, name: str, installing: Callable[[], Awaitable[Result]]) -> None:
        try:
            await installing()
        except StoreFailed:
            raise
        except asyncio.CancelledError:
            if name not in self._stopping:  # the coordinator stops; another one goes on with it
                raise
            await Attempts(name, self._journal, self._services).cancel_open()
            return
        except CutoffError as error:
            _LOG.warning("not installed", job=name, reason=error.reason, message=error.message)
            await Attempts(name, self._journal, self._services).give_up(error)
            return
        if newest_attempt(self._journal.store.get(name), "report") is not None:
            await self._pipeline(name).report(anew=True)

    def _installed(self, task: asyncio.Task[None]) -> None:
        name = task.get_name()
        del self._tasks[name], self._installing[name]
        self._stopping.discard(name)
        self._journal.settle(name)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("an installation failed inside cutoff", job=name, exc_info=task.exception())

    async def suspend(self) -> None:
        """Lets go of every job as it is: its runs go on for their lease, to be taken up again."""
        self._suspended = True
        tasks = [*self._tasks.values(), *([self._attaching] if self._attaching else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        name = task.get_name()
        if self._tasks.get(name) is task:  # a retry may have been faster, or a paused job resumed at once
            del self._tasks[name]
        error = None if task.cancelled() else task.exception()
        try:
            if isinstance(error, StoreFailed):
                raise error
            if error is not None:
                _LOG.error("a pipeline failed inside cutoff", job=name, exc_info=error)
                remedy = "this is a bug in cutoff; see the coordinator's log"
                bug = CutoffError(f"{type(error).__name__}: {error}", remedy)
                self._journal.move(name, job_pb2.Job.STATE_FAILED, failure_of(bug))
            elif task.cancelled() and not self._suspended and self._journal.store.get(name).state in _ON_ITS_WAY:
                self.start(name)  # stopped before its pipeline took its first step: what may run must be stopped
        except StoreFailed as failed:
            self._go_on_later(name, failed)

    def _go_on_later(self, name: str, failed: StoreFailed) -> None:
        _LOG.error("going on with the job when its store answers again", job=name, message=failed.message)
        asyncio.get_running_loop().call_later(_STORE_SECONDS, self._go_on_if_open, name)

    def _go_on_if_open(self, name: str) -> None:
        try:
            if self._journal.store.get(name).state not in _AT_REST:
                self.begin(name)
        except StoreFailed as failed:
            self._go_on_later(name, failed)


_ON_ITS_WAY = (job_pb2.Job.STATE_CANCELLING, job_pb2.Job.STATE_PAUSING)

_AT_REST = TERMINAL | {job_pb2.Job.STATE_PAUSED}


def _word(state: State) -> str:
    return job_pb2.Job.State.Name(state).removeprefix("STATE_").lower()


def _running(job: job_pb2.Job) -> list[types_pb2.RunKey]:
    """The runs of a job that were under way when its record was written."""
    return [attempt.key for attempt in job.attempts if attempt.state == job_pb2.Attempt.STATE_RUNNING]


def _open_install(job: job_pb2.Job) -> job_pb2.Attempt | None:
    """The installation of a job that has not ended, if there is one."""
    attempt = newest_attempt(job, "install")
    return attempt if attempt is not None and attempt.state in OPEN else None


def _being_removed(name: str) -> Refused:
    return Refused(f"what {name} installed is being removed", "ask again in a moment")
