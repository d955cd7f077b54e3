"""Takes jobs in: those that are handed in at the same time are stored in one transaction, and then begun."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from cutoff.coordinator.journal import Journal
from cutoff.coordinator.store import StoreFailed, Submitted
from cutoff.v1 import job_pb2

_TOGETHER_SECONDS = 0.02
_TOGETHER = 200
"""What is handed in within so many seconds, and at most so many, is stored in one transaction."""


class Submissions:
    """Lives on one event loop.

    Args:
        journal: Where jobs are recorded.
        begin: Begins a job, unless it is under way.
    """

    def __init__(self, journal: Journal, begin: Callable[[str], None]) -> None:
        self._journal = journal
        self._begin = begin
        self._handed_in: list[tuple[job_pb2.JobSpec, str, asyncio.Future[job_pb2.Job]]] = []

    async def hand_in(self, spec: job_pb2.JobSpec, request_id: str) -> job_pb2.Job:
        """Stores a job and begins it, or finds the one this request stored before.

        A job whose caller goes away meanwhile is stored and begun all the same, unless the server stops too.

        Raises:
            AlreadyExists: The request_id belongs to a job with another spec.
            StoreFailed: Whether it was stored is not known; the same request again finds it, or stores it.
        """
        loop = asyncio.get_running_loop()
        if not self._handed_in:
            loop.call_later(_TOGETHER_SECONDS, self._store)
        stored: asyncio.Future[job_pb2.Job] = loop.create_future()
        self._handed_in.append((spec, request_id, stored))
        return await stored

    def _store(self) -> None:
        handed_in, self._handed_in = self._handed_in, []
        for first in range(0, len(handed_in), _TOGETHER):
            together = handed_in[first : first + _TOGETHER]
            outcomes = self._submit([(spec, request_id) for spec, request_id, _ in together])
            for (_, _, stored), outcome in zip(together, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    if not stored.done():
                        stored.set_exception(outcome)
                    continue
                job, new = outcome
                if new or job.state == job_pb2.Job.STATE_QUEUED:  # it may have been stored by a call that never knew
                    self._begin(job.name)
                if not stored.done():
                    stored.set_result(job)

    def _submit(self, submissions: Sequence[tuple[job_pb2.JobSpec, str]]) -> Sequence[Submitted | Exception]:
        try:
            return self._journal.submit_all(submissions)
        except Exception as error:  # noqa: BLE001 - each of them waits to be told
            if isinstance(error, StoreFailed) or len(submissions) == 1:
                return [error] * len(submissions)
            return [outcome for each in submissions for outcome in self._submit([each])]  # one of them is to blame
