"""The jobs under way: one task each, started, cancelled, taken up again after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from cutoff.coordinator import delivery
from cutoff.coordinator.attempts import Attempts, Result, Services
from cutoff.coordinator.job import OPEN, TERMINAL, newest_attempt
from cutoff.coordinator.journal import Journal
from cutoff.coordinator.pipeline import Pipeline
from cutoff.errors import Cancelled, CutoffError, Refused
from cutoff.rpc import failure_of
from cutoff.telemetry import logger
from cutoff.v1 import gguf_converter_pb2, job_pb2

_LOG = logger(__name__)


class Jobs:
    """Runs each job's pipeline as a task of its own. Lives on one event loop."""

    def __init__(self, journal: Journal, services: Services) -> None:
        self._journal = journal
        self._services = services
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._installing: dict[str, gguf_converter_pb2.InstallRequest] = {}
        """By job that has ended, what is being installed of it."""
        self._uninstalling: set[str] = set()

    def start(self, name: str) -> None:
        """Begins a job, or goes on with it."""
        task = asyncio.create_task(Pipeline(name, self._journal, self._services).run(), name=name)
        self._tasks[name] = task
        task.add_done_callback(self._ended)

    def take_up(self) -> None:
        """Goes on with every job, and every installation, that had not ended when the coordinator went down.

        Those that run first: they take the hardware they are on before anything else is placed.
        """
        waits = job_pb2.Attempt.STATE_WAITING
        for job in sorted(
            self._journal.store.unfinished(),
            key=lambda job: not job.attempts or job.attempts[-1].state == waits,
        ):
            _LOG.info("taking up", job=job.name)
            self.start(job.name)
        for job in self._journal.store.ended():
            attempt = newest_attempt(job, "install")
            if attempt is not None and attempt.state in OPEN:
                _LOG.info("taking up an installation", job=job.name)
                request = gguf_converter_pb2.InstallRequest(spec=job.spec.install)
                attempts = Attempts(job.name, self._journal, self._services)
                self._begin(job.name, request, partial(attempts.follow, attempt.key, request))

    def cancel(self, name: str) -> job_pb2.Job:
        """Asks a job to stop; one that has ended, or is being cancelled, is returned as it is.

        Raises:
            NotFound: There is no such job.
        """
        job = self._journal.store.get(name)
        if job.state in TERMINAL or job.state == job_pb2.Job.STATE_CANCELLING:
            return job
        job = self._journal.move(name, job_pb2.Job.STATE_CANCELLING)
        self._tasks[name].cancel()
        return job

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
                self._begin(name, request, partial(self._anew, name, request))
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
        if name in self._installing:
            raise Refused(f"{name} is being installed", "wait for that (cutoff watch)")
        if name in self._uninstalling:
            raise _being_removed(name)
        if not job.result.installed_sha256:
            return job
        self._uninstalling.add(name)
        try:
            await self._services.uninstall(self._services.addresses.gguf_converter, delivery.uninstall_request(job))
            return self._journal.change(name, delivery.without_installed)
        finally:
            self._uninstalling.discard(name)

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

    def _begin(
        self, name: str, request: gguf_converter_pb2.InstallRequest, installing: Callable[[], Awaitable[Result]]
    ) -> None:
        self._installing[name] = request
        self._journal.reopen(name)
        self._tasks[name] = asyncio.create_task(self._install(name, installing), name=name)
        self._tasks[name].add_done_callback(self._installed)

    async def _anew(self, name: str, request: gguf_converter_pb2.InstallRequest) -> Result:
        attempts = Attempts(name, self._journal, self._services)
        await attempts.cancel_open()  # what ended without its service's word
        return await attempts.run("install", lambda: request, anew=True)

    async def _install(self, name: str, installing: Callable[[], Awaitable[Result]]) -> None:
        try:
            installed = await installing()
            self._journal.change(name, lambda job: delivery.with_installed(job, installed))
        except CutoffError as error:
            _LOG.warning("not installed", job=name, reason=error.reason, message=error.message)
            Attempts(name, self._journal, self._services).give_up(error)
            return
        if newest_attempt(self._journal.store.get(name), "report") is not None:
            await Pipeline(name, self._journal, self._services).report(anew=True)

    def _installed(self, task: asyncio.Task[None]) -> None:
        name = task.get_name()
        del self._tasks[name], self._installing[name]
        self._journal.settle(name)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("an installation failed inside cutoff", job=name, exc_info=task.exception())

    async def suspend(self) -> None:
        """Lets go of every job as it is: its runs go on for their lease, to be taken up again."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        name = task.get_name()
        del self._tasks[name]
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                _LOG.error("a pipeline failed inside cutoff", job=name, exc_info=error)
                bug = CutoffError(
                    f"{type(error).__name__}: {error}", "this is a bug in cutoff; see the coordinator's log"
                )
                self._journal.move(name, job_pb2.Job.STATE_FAILED, failure_of(bug))
        elif self._journal.store.get(name).state == job_pb2.Job.STATE_CANCELLING:
            # Cancelled before its pipeline took its first step.
            self._journal.move(name, job_pb2.Job.STATE_CANCELLED, failure_of(Cancelled("the job was cancelled")))


def _being_removed(name: str) -> Refused:
    return Refused(f"what {name} installed is being removed", "ask again in a moment")
