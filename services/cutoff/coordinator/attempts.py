"""Runs the stages of one job as attempts: retries what may be retried, attaches to what still runs, stops the rest.

An attempt is open from the row that announces it to the event that ends it. Whatever happens to the stream
between, an open attempt is taken up again by its key, on the host where it is: its service still has the run, or it
is lost. A service that does not answer is asked for the length of the lease; after it the run has stopped by itself.
An attempt whose host is lost is lost with it, and the next one goes where there is room.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from cutoff.artifacts import NOBODY, attempt_folder, let_count
from cutoff.coordinator.hosts import Addresses, Hosts, Place, with_place
from cutoff.coordinator.job import OPEN, attempt_of, newest_attempt
from cutoff.coordinator.journal import Journal
from cutoff.coordinator.patience import heard, patiently
from cutoff.coordinator.scheduler import WAIT_MINUTES, Call, call_failed
from cutoff.errors import Cancelled, CutoffError, Killed, Lost, NotFound, Unavailable
from cutoff.rpc import error_of_failure, failure_of
from cutoff.run_key import stage_kind
from cutoff.stage.lease import LEASE_SECONDS
from cutoff.telemetry import logger
from cutoff.v1 import (
    evaluator_pb2,
    gguf_converter_pb2,
    job_pb2,
    merger_pb2,
    run_pb2,
    trainer_pb2,
    types_pb2,
)

_LOG = logger(__name__)

Drive = Callable[[Call], AsyncGenerator[types_pb2.Event, None]]
Result = Mapping[str, Any]
"""A stage's summary, as its Finished event carried it."""

_ASKING = (1.0, 2.0, 5.0, 10.0)
"""Seconds between asking a service that does not answer for a run that it had; the last one again and again."""

_AGAIN_WHEN_KILLED = frozenset({"evaluate"})
"""Stages that are tried again although their process was killed, most likely because memory ran out: what they have
done counts, so that each try has less to do. The others would only take the same memory again."""

_METHODS: Mapping[str, tuple[str, str, Any]] = {
    "prepare": ("trainer", "TrainerService/Prepare", trainer_pb2.PrepareResponse),
    "train": ("trainer", "TrainerService/Train", trainer_pb2.TrainResponse),
    "relearn": ("trainer", "TrainerService/Relearn", trainer_pb2.RelearnResponse),
    "merge": ("merger", "MergerService/Merge", merger_pb2.MergeResponse),
    "convert": ("gguf-converter", "GgufConverterService/Convert", gguf_converter_pb2.ConvertResponse),
    "evaluate": ("evaluator", "EvaluatorService/Evaluate", evaluator_pb2.EvaluateResponse),
    "card": ("gguf-converter", "GgufConverterService/WriteCard", gguf_converter_pb2.WriteCardResponse),
    "install": ("gguf-converter", "GgufConverterService/Install", gguf_converter_pb2.InstallResponse),
    "report": ("evaluator", "EvaluatorService/WriteReport", evaluator_pb2.WriteReportResponse),
}
"""By stage: the service, its streaming method, and what that answers with."""


def service_of(stage: str) -> str:
    """The stage service that runs a stage, by its name in compose.yaml."""
    return _METHODS[stage_kind(stage)][0]


async def _at_once() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Services:
    """The stage services, as attempts need them."""

    addresses: Addresses
    """Of the coordinator's own host."""
    drive: Drive
    cancel: Callable[..., Any]
    """Awaitable: stops a run, given its service's address and name, the key, and the last event that is known of it;
    returns the run's later events."""
    list_runs: Callable[[str, str], Any]
    """Awaitable: the run_pb2.Run messages of a service; takes its address and name."""
    check_install: Callable[[str, gguf_converter_pb2.CheckInstallRequest], Any]
    """Awaitable: raises when the model could not be installed."""
    check_model: Callable[[str, gguf_converter_pb2.CheckModelRequest], Any]
    """Awaitable: raises when the model could not be converted."""
    uninstall: Callable[[str, gguf_converter_pb2.UninstallRequest], Any]
    """Awaitable: removes an installed model."""
    artifacts: Path
    """The artifacts root, where an attempt at installing finds whether it counts."""
    hosts: Hosts = field(default_factory=Hosts)
    artifacts_id: str = ""
    """What the artifacts folder calls itself; every host must see the same."""
    may_begin: Callable[[], Awaitable[None]] = _at_once
    """Returns when a new attempt may begin: at once, unless the coordinator drains."""


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
        self._attached: Counter[str] = Counter()
        """By stage, how often a run was found to be there still."""

    async def run(
        self,
        stage: str,
        request: Callable[[], Any],
        gpus: float = 0,
        order: job_pb2.InstallOrder | None = None,
        memory_bytes: int = 0,
        anew: bool = False,
    ) -> Result:
        """Tries a stage until an attempt succeeds; takes an earlier attempt's result if there is one.

        Args:
            stage: As in RunKey.
            request: Makes the request, anew for each try.
            gpus: What an attempt holds.
            order: What a user asked for by itself: an earlier result is none of that, and it stays with the attempt.
            memory_bytes: What it needs of each GPU by the job's plan; 0 where that is not known.
            anew: Whether the stage is run again although it succeeded before.

        Raises:
            CutoffError: Why the last attempt failed.
        """
        newest = newest_attempt(self._job(), stage)
        if not anew and order is None and newest is not None and newest.state == job_pb2.Attempt.STATE_SUCCEEDED:
            return json_format.MessageToDict(newest.result)

        async def once() -> Result:
            return _result(await self._drive(await self._open(stage, order), request(), gpus, memory_bytes))

        def may_pass(error: CutoffError) -> bool:
            return error.retryable or (isinstance(error, Killed) and stage_kind(stage) in _AGAIN_WHEN_KILLED)

        def headway() -> int:
            return self._attached[stage] + _checkpoints(self._job(), stage)

        return await patiently(once, f"{self._name} {stage}", may_pass, headway)

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
            if not await self._runs_there(attempt_of(self._job(), key)):
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

    async def stop_open(self, why: CutoffError) -> None:
        """Stops every attempt that is open, and takes in what its run said to the end: a checkpoint, perhaps.

        Raises:
            Unavailable: A service did not answer: whether its run goes on is not known.
        """
        for attempt in self._job().attempts:
            if attempt.state in OPEN:
                await self._stop(attempt, why)

    async def give_up(self, error: CutoffError) -> None:
        """Records of every attempt that is open why it is not gone on with."""
        for attempt in self._job().attempts:
            if attempt.state in OPEN:
                await self._fail(attempt.key, error)

    async def _open(self, stage: str, order: job_pb2.InstallOrder | None) -> types_pb2.RunKey:
        """The key of the open attempt, if its run is still there or never began; else of a new one."""
        newest = newest_attempt(self._job(), stage)
        if newest is None or newest.state not in OPEN:
            await self._services.may_begin()
            return self._journal.open_attempt(self._name, stage, order)
        if not await self._goes_on(newest):
            _LOG.warning("an attempt was lost", job=self._name, stage=stage, attempt=newest.key.attempt)
            where = f"host {newest.host}" if await self._host_is_gone(newest) else "service"
            await self._fail(newest.key, Lost(f"the run was lost with its {where}", "it is tried again"))
            await self._services.may_begin()
            return self._journal.open_attempt(self._name, stage, order)
        if self._services.hosts.is_far(newest) and not await self._services.hosts.returns(newest.host):
            await self._cancel(newest.key, Lost(f"host {newest.host} has left the cluster", "it is tried again"))
            await self._services.may_begin()
            return self._journal.open_attempt(self._name, stage, order)
        if newest.state == job_pb2.Attempt.STATE_RUNNING:
            self._attached[stage] += 1
        return newest.key

    async def _goes_on(self, attempt: job_pb2.Attempt) -> bool:
        """Whether an open attempt's service still has its run, or never had one.

        A service that does not answer for the length of the lease has it no more; nor has one whose host is gone.
        """
        waits = attempt.state == job_pb2.Attempt.STATE_WAITING
        if waits and not self._services.hosts.is_far(attempt):
            return True  # of one that began although nobody was told, the service says so (Lost)
        loop = asyncio.get_running_loop()
        lease_ends = loop.time() + LEASE_SECONDS
        pauses = iter(_ASKING)
        while True:
            try:
                return await self._runs_there(attempt) or waits
            except Unavailable as error:
                pause = next(pauses, _ASKING[-1])
                if loop.time() + pause > lease_ends or await self._host_is_gone(attempt):
                    return False
                _LOG.warning("asking again for a run", job=self._name, stage=attempt.key.stage, message=error.message)
                await asyncio.sleep(pause)

    async def _runs_there(self, attempt: job_pb2.Attempt) -> bool:
        """Whether the service still has an attempt's run.

        Raises:
            Unavailable: It does not answer.
        """
        service = service_of(attempt.key.stage)
        runs: Sequence[run_pb2.Run] = await self._services.list_runs(self._address(attempt), service)
        return any(run.key == attempt.key for run in runs)

    async def _host_is_gone(self, attempt: job_pb2.Attempt) -> bool:
        """Of an attempt whose service does not answer: whether its host has left the cluster, too."""
        return self._services.hosts.is_far(attempt) and not await self._services.hosts.present(attempt.host)

    def _address(self, attempt: job_pb2.Attempt) -> str:
        """Where the service of an attempt listens; the coordinator's own services where it was not placed yet."""
        if self._services.hosts.is_far(attempt):
            return attempt.address
        return self._services.addresses.of(service_of(attempt.key.stage))

    async def _drive(self, key: types_pb2.RunKey, request: Any, gpus: float, memory_bytes: int = 0) -> types_pb2.Event:
        """Starts a run or attaches to it, records its events, and returns the last.

        Raises:
            Unavailable: The stream was lost, or nothing comes from it any more; the attempt stays open.
            StaleEvent: The attempt does not count any more.
        """
        service, method, response = _METHODS[stage_kind(key.stage)]
        request.run.key.CopyFrom(key)
        request.run.after_sequence = self._last_event(key)

        def placed(place: Place) -> None:
            self._journal.change(self._name, lambda job: with_place(job, key, place))

        job = self._job()
        resources, since = job.spec.resources, job.create_time.ToMicroseconds() / 1e6
        call = Call(
            service,
            method,
            request,
            response,
            gpus,
            host=attempt_of(job, key).host or self._services.hosts.for_stage(key.stage),
            artifacts_id=self._services.artifacts_id,
            placed=placed,
            memory_bytes=memory_bytes,
            priority=resources.priority,
            since=since,
            wait_minutes=resources.wait_minutes if resources.HasField("wait_minutes") else WAIT_MINUTES,
        )
        await self._let_count(key, key.attempt)
        async with aclosing(heard(self._services.drive(call), f"the {service}")) as events:
            async for event in events:
                if call_failed(event):
                    raise error_of_failure(event.failed)
                self._journal.heard(key)
                if event.HasField("heartbeat"):
                    continue
                self._journal.run_event(self._name, key, event)
                if event.WhichOneof("kind") in ("finished", "failed"):
                    return event
        raise Unavailable(f"the {service} closed the stream of {key.stage}")

    async def _stop(self, attempt: job_pb2.Attempt, why: CutoffError) -> None:
        key = attempt.key

        async def once() -> Sequence[types_pb2.Event]:
            try:
                said = await self._services.cancel(
                    self._address(attempt), service_of(key.stage), key, self._last_event(key)
                )
            except NotFound:
                return ()  # it was still waiting for its hardware
            except Unavailable:
                if not await self._host_is_gone(attempt):
                    raise
                return ()
            return list(said)

        for event in await patiently(once, f"stopping {self._name} {key.stage}"):
            if event.failed.reason == Cancelled.reason:
                event.failed.CopyFrom(failure_of(why))
            self._journal.run_event(self._name, key, event)
        if attempt_of(self._job(), key).state in OPEN:
            await self._fail(key, why)

    async def _cancel(self, key: types_pb2.RunKey, why: CutoffError | None = None) -> None:
        """Stops a run and records that it was stopped, when no process of it is left.

        On a host that is gone nobody can be asked: if the run still goes on there, it ends with its lease.
        """
        attempt = attempt_of(self._job(), key)

        async def once() -> None:
            try:
                await self._services.cancel(self._address(attempt), service_of(key.stage), key)
            except NotFound:
                _LOG.info("was still waiting for its hardware", job=self._name, stage=key.stage)
            except Unavailable:
                if not await self._host_is_gone(attempt):
                    raise
                _LOG.warning("its host is gone", job=self._name, stage=key.stage, host=attempt.host)

        await patiently(once, f"cancelling {self._name} {key.stage}")
        await self._fail(key, why or Cancelled("the run was cancelled"))

    async def _let_count(self, key: types_pb2.RunKey, attempt: int) -> None:
        """Says where an installation looks which attempt counts; see `artifacts.fence`."""
        if key.stage == "install":
            folder = attempt_folder(self._services.artifacts, key.job, key.stage, key.attempt).parent
            await asyncio.to_thread(let_count, folder, attempt)

    async def _fail(self, key: types_pb2.RunKey, error: CutoffError) -> None:
        await self._let_count(key, NOBODY)
        self._journal.run_event(self._name, key, _failed(error))
        self._journal.heard(key)  # nothing more will come of it

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


def _failed(error: CutoffError) -> types_pb2.Event:
    event = types_pb2.Event(failed=failure_of(error))
    event.time.GetCurrentTime()
    return event


def _checkpoints(job: job_pb2.Job, stage: str) -> int:
    """How many different checkpoints the attempts at a stage have published: headway that no retry loses."""
    artifacts = (artifact for attempt in job.attempts if attempt.key.stage == stage for artifact in attempt.artifacts)
    return len({artifact.path.rpartition("/")[2] for artifact in artifacts if artifact.kind == "checkpoint"})
