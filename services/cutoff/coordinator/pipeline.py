"""What happens to a job, from top to bottom: prepare, train, merge, convert, evaluate, install.

Each stage is an attempt that a scheduler drives; its result is kept in the job's record. A pipeline that
starts over (the coordinator was restarted) takes the results that are there and attaches to what still runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from cutoff.coordinator.job import State, newest_attempt
from cutoff.coordinator.journal import Journal
from cutoff.coordinator.scheduler import Call
from cutoff.errors import Cancelled, CutoffError, NotFound, Unavailable
from cutoff.rpc import error_of_failure, failure_of
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

Drive = Callable[[Call], AsyncIterator[types_pb2.Event]]
Result = Mapping[str, Any]

_RETRIES = (1.0, 5.0, 15.0)
"""Seconds before each further attempt at a stage whose infrastructure failed; wrong input is never retried."""


_METHODS: Mapping[str, tuple[str, str, Any]] = {
    "prepare": ("trainer", "TrainerService/Prepare", trainer_pb2.PrepareResponse),
    "train": ("trainer", "TrainerService/Train", trainer_pb2.TrainResponse),
    "merge": ("merger", "MergerService/Merge", merger_pb2.MergeResponse),
    "convert": ("gguf_converter", "GgufConverterService/Convert", gguf_converter_pb2.ConvertResponse),
    "evaluate": ("evaluator", "EvaluatorService/Evaluate", evaluator_pb2.EvaluateResponse),
    "install": ("gguf_converter", "GgufConverterService/Install", gguf_converter_pb2.InstallResponse),
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
        service, _, _ = _METHODS[_kind(stage)]
        return str(getattr(self, service))


@dataclass(frozen=True, slots=True)
class Services:
    """The stage services, as the pipeline needs them."""

    addresses: Addresses
    drive: Drive
    cancel: Callable[[str, types_pb2.RunKey], Any]
    """Awaitable: stops a run at a service."""
    list_runs: Callable[[str], Any]
    """Awaitable: the run_pb2.Run messages of a service."""
    check_install: Callable[[str, job_pb2.InstallSpec], Any]
    """Awaitable: raises when the model could not be installed."""


class Pipeline:
    """One job on its way.

    Args:
        name: The job's name.
        journal: Where everything is recorded.
        services: Who does the work.
    """

    def __init__(self, name: str, journal: Journal, services: Services) -> None:
        self._name = name
        self._journal = journal
        self._services = services
        self._spec = journal.store.get(name).spec

    async def run(self) -> None:
        """Takes the job to its end, whatever that is.

        Cancelling the task cancels the job when it is CANCELLING; otherwise (the coordinator stops) the job
        is let go as it is, its runs go on for their lease, and another pipeline may take it up.
        """
        try:
            if self._cancelling():
                await self._cancel_open_attempts()
                raise Cancelled("the job was cancelled")
            if self._job().state == job_pb2.Job.STATE_QUEUED:
                self._journal.move(self._name, job_pb2.Job.STATE_RUNNING)
            await self._deliver()
        except (asyncio.CancelledError, Cancelled) as error:
            if not self._cancelling():
                raise
            self._end(
                job_pb2.Job.STATE_CANCELLED,
                error if isinstance(error, Cancelled) else Cancelled("the job was cancelled"),
            )
        except CutoffError as error:
            self._end(job_pb2.Job.STATE_FAILED, error)
        except BaseExceptionGroup as group:
            self._end(job_pb2.Job.STATE_FAILED, _first_error(group))
        else:
            self._end(job_pb2.Job.STATE_SUCCEEDED)

    async def _deliver(self) -> None:
        """The sequence. Conversion runs beside the evaluation of what needs no GGUF."""
        if self._spec.install.enabled:
            await self._services.check_install(self._services.addresses.gguf_converter, self._spec.install)
        prepared = await self._prepare()
        trained = await self._train(prepared)
        merged = await self._merge(prepared, trained)
        async with asyncio.TaskGroup() as beside:
            converting = beside.create_task(self._convert(prepared, merged))
            beside.create_task(self._evaluate_folders(prepared, merged))
        ggufs = {file["quant_type"]: file for file in converting.result()["files"]}
        scores = await self._evaluate_ggufs(ggufs)
        await self._install(ggufs, scores)

    async def _prepare(self) -> Result:
        return await self._stage("prepare", trainer_pb2.PrepareRequest(spec=self._spec))

    async def _train(self, prepared: Result) -> Result:
        request = trainer_pb2.TrainRequest(
            spec=self._spec,
            model_path=prepared["model_path"],
            resume_from=self._spec.train.resume_from_checkpoint,
        )
        return await self._stage("train", request, self._spec.resources.gpus)

    async def _merge(self, prepared: Result, trained: Result) -> Result:
        request = merger_pb2.MergeRequest(
            spec=self._spec.merge, model_path=prepared["model_path"], adapter=trained["adapter"]
        )
        return await self._stage("merge", request)

    async def _convert(self, prepared: Result, merged: Result) -> Result:
        request = gguf_converter_pb2.ConvertRequest(
            spec=self._spec.convert,
            merged=merged["path"],
            model_name=self._spec.install.model_name,
            probe_questions=prepared["probe_questions"],
        )
        return await self._stage("convert", request)

    async def _evaluate_folders(self, prepared: Result, merged: Result) -> None:
        targets = self._spec.evaluate.targets
        if "base" in targets:
            await self._evaluate("base", model_path=prepared["model_path"])
        if "merged" in targets:
            await self._evaluate("merged", model_path=merged["path"])

    async def _evaluate_ggufs(self, ggufs: Mapping[str, Result]) -> Result | None:
        """Evaluates every GGUF, and a model in LM Studio when asked to; returns the installed type's scores."""
        spec = self._spec.evaluate
        results = {}
        if "gguf" in spec.targets:
            for quant_type, file in ggufs.items():
                results[quant_type] = await self._evaluate(quant_type, gguf=file["path"])
        if "lmstudio" in spec.targets:
            server = evaluator_pb2.OpenAiServer(url=spec.lmstudio_url, model=spec.lmstudio_model)
            await self._evaluate("lmstudio", server=server)
        return results.get(self._spec.convert.quant_types[0])

    async def _evaluate(self, target: str, **model: Any) -> Result:
        request = evaluator_pb2.EvaluateRequest(spec=self._spec, target=target, **model)
        scores = await self._stage(f"evaluate-{target}", request, self._spec.resources.gpus)
        self._journal.change(self._name, lambda job: _with_scores(job, target, scores))
        return scores

    async def _install(self, ggufs: Mapping[str, Result], scores: Result | None) -> None:
        """Installs the first quantization type, if it reaches what install.require asks for."""
        install = self._spec.install
        if not install.enabled:
            return
        missed = _missed(install.require, scores)
        if missed:
            self._journal.change(self._name, lambda job: _with_result(job, missed=missed))
            return
        quant_type = self._spec.convert.quant_types[0]
        file = ggufs[quant_type]
        request = gguf_converter_pb2.InstallRequest(
            spec=install, gguf=file["path"], sha256=file["sha256"], quant_type=quant_type
        )
        installed = await self._stage("install", request)
        result = {"installed_path": installed["path"], "installed_sha256": installed["sha256"]}
        self._journal.change(self._name, lambda job: _with_result(job, **result))

    async def _stage(self, stage: str, request: Any, gpus: float = 0) -> Result:
        """Runs a stage until an attempt at it succeeds; takes an earlier attempt's result if there is one."""
        newest = newest_attempt(self._job(), stage)
        if newest is not None and newest.state == job_pb2.Attempt.STATE_SUCCEEDED:
            return json_format.MessageToDict(newest.result)
        key = await self._attached(newest) if newest else None
        _, method, response = _METHODS[_kind(stage)]
        for pause in (*_RETRIES, None):
            key = key or self._journal.open_attempt(self._name, stage)
            request.run.key.CopyFrom(key)
            call = Call(self._services.addresses.of_stage(stage), method, request, response, gpus)
            last = await self._attempt(key, call)
            if last.HasField("finished"):
                return json_format.MessageToDict(last.finished.result)
            if pause is None or not last.failed.retryable:
                raise error_of_failure(last.failed)
            _LOG.warning("retrying", job=self._name, stage=stage, reason=last.failed.reason, after_seconds=pause)
            await asyncio.sleep(pause)
            key = None
        raise AssertionError("the loop returns or raises")

    async def _attempt(self, key: types_pb2.RunKey, call: Call) -> types_pb2.Event:
        """One attempt: records its events and returns the last; a cancelled one is stopped at its service."""
        try:
            async for event in self._services.drive(call):
                self._journal.run_event(self._name, key, event)
                if event.WhichOneof("kind") in ("finished", "failed"):
                    return event
            lost: CutoffError = Unavailable(f"{call.address} closed the stream of {key.stage}")
        except Unavailable as error:
            lost = error
        except asyncio.CancelledError:
            if self._cancelling():
                await self._cancel(key)
            raise
        event = types_pb2.Event(failed=failure_of(lost))
        event.time.GetCurrentTime()
        self._journal.run_event(self._name, key, event)
        return event

    async def _cancel_open_attempts(self) -> None:
        """Stops what was under way when the coordinator went down in the middle of a cancel."""
        open_states = (job_pb2.Attempt.STATE_WAITING, job_pb2.Attempt.STATE_RUNNING)
        for attempt in self._job().attempts:
            if attempt.state in open_states:
                await self._cancel(attempt.key)

    async def _cancel(self, key: types_pb2.RunKey) -> None:
        """Stops a run and records that it was stopped, when no process of it is left."""
        address = self._services.addresses.of_stage(key.stage)
        try:
            await self._services.cancel(address, key)
        except NotFound:
            pass  # it was still waiting for its hardware
        except CutoffError as error:
            _LOG.warning("the run could not be cancelled at its service", address=address, error=str(error))
        event = types_pb2.Event(failed=failure_of(Cancelled("the run was cancelled")))
        event.time.GetCurrentTime()
        self._journal.run_event(self._name, key, event)

    async def _attached(self, newest: job_pb2.Attempt) -> types_pb2.RunKey | None:
        """The key of an attempt that was under way when the coordinator went down, if its service still has it."""
        if newest.state not in (job_pb2.Attempt.STATE_WAITING, job_pb2.Attempt.STATE_RUNNING):
            return None
        runs: Sequence[run_pb2.Run] = await self._services.list_runs(
            self._services.addresses.of_stage(newest.key.stage)
        )
        if any(run.key == newest.key for run in runs):
            return newest.key
        lost = types_pb2.Event(failed=failure_of(Unavailable("the run was lost with its service")))
        lost.time.GetCurrentTime()
        self._journal.run_event(self._name, newest.key, lost)
        return None

    def _job(self) -> job_pb2.Job:
        return self._journal.store.get(self._name)

    def _cancelling(self) -> bool:
        return bool(self._job().state == job_pb2.Job.STATE_CANCELLING)

    def _end(self, state: State, error: CutoffError | None = None) -> None:
        self._journal.move(self._name, state, failure_of(error) if error else None)
        _LOG.info("job ended", job=self._name, state=State.Name(state), error=str(error or ""))


def _kind(stage: str) -> str:
    """The stage without its target: evaluate for evaluate-merged."""
    return stage.partition("-")[0]


def _first_error(group: BaseExceptionGroup[BaseException]) -> CutoffError:
    """The error to report of several that happened side by side."""
    for error in group.exceptions:
        if isinstance(error, CutoffError):
            return error
        if isinstance(error, BaseExceptionGroup):
            return _first_error(error)
    raise group


def _missed(require: str, scores: Result | None) -> list[str]:
    """Which thresholds the installed type misses, in words; measured on the validation sets."""
    if require == "none" or scores is None:
        return []
    missed: list[str] = scores["sets"]["validation"][f"missed_{require}"]
    return missed


def _with_result(job: job_pb2.Job, **fields: Any) -> job_pb2.Job:
    job.result.MergeFrom(job_pb2.Result(**fields))
    return job


def _with_scores(job: job_pb2.Job, target: str, scores: Result) -> job_pb2.Job:
    """The job with one target's scores in its result."""
    for question_set, values in scores["sets"].items():
        known = {name: value for name, value in values.items() if name in job_pb2.Evaluation.DESCRIPTOR.fields_by_name}
        evaluation = job_pb2.Evaluation(target=target, question_set=question_set)
        json_format.ParseDict({name: value for name, value in known.items() if value is not None}, evaluation)
        job.result.evaluations.append(evaluation)
    return job
