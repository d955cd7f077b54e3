"""Runs the stages of one job as attempts: retries what may be retried, attaches to what still runs, stops the rest.

An attempt is open from the row that announces it to the event that ends it. Whatever happens to the stream
between, an open attempt is taken up again by its key: its service still has the run, or it is lost.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf import json_format

from cutoff.coordinator.job import OPEN, attempt_of, newest_attempt
from cutoff.coordinator.journal import Journal
from cutoff.coordinator.scheduler import Call
from cutoff.errors import Cancelled, CutoffError, Killed, NotFound, Unavailable
from cutoff.rpc import error_of_failure, failure_of
from cutoff.telemetry import logger
from cutoff.telemetry.metrics import stage_kind
from cutoff.v1 import (
    evaluator_pb2,
    gguf_converter_pb2,
    job_pb2,
    merger_pb2,
    run_pb2,
    trainer_pb2,
    types_pb2,
)

T = TypeVar("T")

_LOG = logger(__name__)

Drive = Callable[[Call], AsyncIterator[types_pb2.Event]]
Result = Mapping[str, Any]
"""A stage's summary, as its Finished event carried it."""

RETRIES = tuple(float(pause) for pause in os.environ.get("CUTOFF_RETRY_SECONDS", "1 5 15").split())
"""Seconds before each further try at what failed for want of infrastructure; wrong input is never retried.

Where services come back by themselves (containers), the pauses together are longer than that takes."""

_METHODS: Mapping[str, tuple[str, str, Any]] = {
    "prepare": ("trainer", "TrainerService/Prepare", trainer_pb2.PrepareResponse),
    "train": ("trainer", "TrainerService/Train", trainer_pb2.TrainResponse),
    "relearn": ("trainer", "TrainerService/Relearn", trainer_pb2.RelearnResponse),
    "merge": ("merger", "MergerService/Merge", merger_pb2.MergeResponse),
    "convert": ("gguf_converter", "GgufConverterService/Convert", gguf_converter_pb2.ConvertResponse),
    "evaluate": ("evaluator", "EvaluatorService/Evaluate", evaluator_pb2.EvaluateResponse),
    "card": ("gguf_converter", "GgufConverterService/WriteCard", gguf_converter_pb2.WriteCardResponse),
    "install": ("gguf_converter", "GgufConverterService/Install", gguf_converter_pb2.InstallResponse),
    "report": ("evaluator", "EvaluatorService/WriteReport", evaluator_pb2.WriteReportResponse),
}
"""By stage: the service, its streaming method, and what that answers with."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the stage services listen."""

    trainer: str
    merger: str
    gguf_converter: str
    evaluator: str

    def of_stage(self, stage: str) -> str:
        """Where a stage's runs are."""
        service, _, _ = _METHODS[stage_kind(stage)]
        return str(getattr(self, service))


@dataclass(frozen=True, slots=True)
class Services:
    """The stage services, as attempts need them."""

    addresses: Addresses
    drive: Drive
    cancel: Callable[[str, types_pb2.RunKey], Any]
    """Awaitable: stops a run at a service."""
    list_runs: Callable[[str], Any]
    """Awaitable: the run_pb2.Run messages of a service."""
    check_install: Callable[[str, gguf_converter_pb2.CheckInstallRequest], Any]
    """Awaitable: raises when the model could not be installed."""
    uninstall: Callable[[str, gguf_converter_pb2.UninstallRequest], Any]
    """Awaitable: removes an installed model."""


class Attempts:
    """The attempts of one job.

    Args:
        name: The job's name.
        journal: Where everything is recorded.
        services: Who does the work.
    """

    def __init__(self, name: str, journal: Journal, services: Services) -> None:
        self._name = name
        self._journal = journal
        self._services = services

    async def run(self, stage: str, request: Callable[[], Any], gpus: float = 0, anew: bool = False) -> Result:
        """Tries a stage until an attempt succeeds; takes an earlier attempt's result if there is one.

        Args:
            stage: As in RunKey.
            request: Makes the request, anew for each try.
            gpus: What an attempt holds.
            anew: Whether the stage is run again although it succeeded before.

        Raises:
            CutoffError: Why the last attempt failed.
        """
        newest = newest_attempt(self._job(), stage)
        if not anew and newest is not None and newest.state == job_pb2.Attempt.STATE_SUCCEEDED:
            return json_format.MessageToDict(newest.result)

        async def once() -> Result:
            return _result(await self._drive(await self._open(stage), request(), gpus))

        return await patiently(once, f"{self._name} {stage}")

    async def follow(self, key: types_pb2.RunKey, request: Any) -> Result:
        """Attaches to the run of an open attempt, and begins none.

        Args:
            key: The attempt's.
            request: Of the stage's kind; what it asks for is known to the run alone.

        Raises:
            Killed: The run is no more.
            CutoffError: Why it failed.
        """

        async def once() -> Result:
            runs: Sequence[run_pb2.Run] = await self._services.list_runs(self._services.addresses.of_stage(key.stage))
            if not any(run.key == key for run in runs):
                raise Killed("the run was lost with its service; whether it was done is not known", "ask for it again")
            return _result(await self._drive(key, request, gpus=0))

        return await patiently(once, f"following {self._name} {key.stage}")

    async def cancel_open(self) -> None:
        """Stops every attempt that is open, and records that.

        Raises:
            Unavailable: A service did not answer: whether its run goes on is not known.
        """
        for attempt in self._job().attempts:
            if attempt.state in OPEN:
                await self._cancel(attempt.key)

    def give_up(self, error: CutoffError) -> None:
        """Records of every attempt that is open why it is not gone on with."""
        for attempt in self._job().attempts:
            if attempt.state in OPEN:
                self._fail(attempt.key, error)

    async def _open(self, stage: str) -> types_pb2.RunKey:
        """The key of the open attempt, if its run is still there or never began; else of a new one."""
        newest = newest_attempt(self._job(), stage)
        if newest is None or newest.state not in OPEN:
            return self._journal.open_attempt(self._name, stage)
        runs: Sequence[run_pb2.Run] = await self._services.list_runs(self._services.addresses.of_stage(stage))
        if newest.state == job_pb2.Attempt.STATE_WAITING or any(run.key == newest.key for run in runs):
            return newest.key
        self._fail(newest.key, Unavailable("the run was lost with its service"))
        return self._journal.open_attempt(self._name, stage)

    async def _drive(self, key: types_pb2.RunKey, request: Any, gpus: float) -> types_pb2.Event:
        """Starts a run or attaches to it, records its events, and returns the last.

        Raises:
            Unavailable: The stream was lost; the attempt stays open.
        """
        _, method, response = _METHODS[stage_kind(key.stage)]
        address = self._services.addresses.of_stage(key.stage)
        request.run.key.CopyFrom(key)
        request.run.after_sequence = self._last_event(key)
        async for event in self._services.drive(Call(address, method, request, response, gpus)):
            if event.failed.reason == Unavailable.reason and not event.sequence:
                raise error_of_failure(event.failed)  # of the call, not of the run
            self._journal.run_event(self._name, key, event)
            if event.WhichOneof("kind") in ("finished", "failed"):
                return event
        raise Unavailable(f"{address} closed the stream of {key.stage}")

    async def _cancel(self, key: types_pb2.RunKey) -> None:
        """Stops a run and records that it was stopped, when no process of it is left."""
        address = self._services.addresses.of_stage(key.stage)

        async def once() -> None:
            try:
                await self._services.cancel(address, key)
            except NotFound:
                _LOG.info("was still waiting for its hardware", job=self._name, stage=key.stage)

        await patiently(once, f"cancelling {self._name} {key.stage}")
        self._fail(key, Cancelled("the run was cancelled"))

    def _fail(self, key: types_pb2.RunKey, error: CutoffError) -> None:
        event = types_pb2.Event(failed=failure_of(error))
        event.time.GetCurrentTime()
        self._journal.run_event(self._name, key, event)

    def _last_event(self, key: types_pb2.RunKey) -> int:
        return attempt_of(self._job(), key).last_event

    def _job(self) -> job_pb2.Job:
        return self._journal.store.get(self._name)


def _result(last: types_pb2.Event) -> Result:
    """What a run's last event says came of it.

    Raises:
        CutoffError: It failed.
    """
    if last.HasField("failed"):
        raise error_of_failure(last.failed)
    fields: Result = json_format.MessageToDict(last.finished.result)
    return fields


async def patiently(once: Callable[[], Awaitable[T]], what: str) -> T:
    """Awaits `once()`, and again after each pause of RETRIES while it fails in a way that may pass.

    Raises:
        CutoffError: The last failure, or the first that will not pass.
    """
    for pause in RETRIES:
        try:
            return await once()
        except CutoffError as error:
            if not error.retryable:
                raise
            _LOG.warning("trying again", what=what, reason=error.reason, message=error.message, after_seconds=pause)
        await asyncio.sleep(pause)
    return await once()
