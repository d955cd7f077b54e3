"""What happens to a job, from top to bottom: prepare, train, merge, convert, evaluate, install, report.

Each stage is run by `attempts.py`, which keeps its result in the job's record. A pipeline that starts over (the
coordinator was restarted) takes the results that are there and attaches to what still runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format

from cutoff.coordinator.attempts import Attempts, Result, Services, patiently
from cutoff.coordinator.job import State
from cutoff.coordinator.journal import Journal
from cutoff.errors import Cancelled, CutoffError
from cutoff.rpc import failure_of
from cutoff.telemetry import logger
from cutoff.v1 import evaluator_pb2, gguf_converter_pb2, job_pb2, merger_pb2, trainer_pb2

_LOG = logger(__name__)


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
        self._attempts = Attempts(name, journal, services)

    async def run(self) -> None:
        """Takes the job to its end, whatever that is.

        Cancelling the task cancels the job when it is CANCELLING; otherwise (the coordinator stops) the job
        is let go as it is, its runs go on for their lease, and another pipeline may take it up.
        """
        try:
            if not self._cancelling():
                if self._job().state == job_pb2.Job.STATE_QUEUED:
                    self._journal.move(self._name, job_pb2.Job.STATE_RUNNING)
                await self._deliver()
                self._end(job_pb2.Job.STATE_SUCCEEDED)
                return
            error: CutoffError = Cancelled("the job was cancelled")
        except asyncio.CancelledError:
            if not self._cancelling():
                raise
            error = Cancelled("the job was cancelled")
        except CutoffError as raised:
            error = raised
        except BaseExceptionGroup as group:
            error = _first_error(group)
        await self._stop(error)

    async def _stop(self, error: CutoffError) -> None:
        """Ends a job that will not be finished, when nothing of it runs any more."""
        try:
            await self._attempts.cancel_open()
        except CutoffError as unreachable:
            self._end(job_pb2.Job.STATE_FAILED, unreachable)
            return
        self._end(job_pb2.Job.STATE_CANCELLED if self._cancelling() else job_pb2.Job.STATE_FAILED, error)

    async def _deliver(self) -> None:
        """The sequence. Conversion runs beside the evaluation of what needs no GGUF."""
        await self._check_install()
        prepared = await self._prepare()
        trained = await self._train(prepared)
        merged = await self._merge(prepared, trained)
        async with asyncio.TaskGroup() as beside:
            converting = beside.create_task(self._convert(prepared, merged))
            beside.create_task(self._evaluate_folders(prepared, merged))
        ggufs = {file["quant_type"]: file for file in converting.result()["files"]}
        scores = await self._evaluate_ggufs(ggufs)
        try:
            await self._install(ggufs, scores)
        except CutoffError:
            await self._report()  # it says why nothing was installed
            raise
        await self._report()

    async def _check_install(self) -> None:
        """Finds out before any work that the model could not be installed."""
        if self._spec.install.enabled:
            address = self._services.addresses.gguf_converter
            check = self._services.check_install
            await patiently(lambda: check(address, self._spec), f"{self._name} check_install")

    async def _prepare(self) -> Result:
        return await self._attempts.run("prepare", lambda: trainer_pb2.PrepareRequest(spec=self._spec))

    async def _train(self, prepared: Result) -> Result:
        def request() -> trainer_pb2.TrainRequest:
            resume_from = _newest_checkpoint(self._job()) or self._spec.train.resume_from_checkpoint
            return trainer_pb2.TrainRequest(spec=self._spec, model_path=prepared["model_path"], resume_from=resume_from)

        return await self._attempts.run("train", request, self._spec.resources.gpus)

    async def _merge(self, prepared: Result, trained: Result) -> Result:
        request = merger_pb2.MergeRequest(
            spec=self._spec.merge, model_path=prepared["model_path"], adapter=trained["adapter"]
        )
        return await self._attempts.run("merge", lambda: request)

    async def _convert(self, prepared: Result, merged: Result) -> Result:
        request = gguf_converter_pb2.ConvertRequest(
            spec=self._spec.convert,
            merged=merged["path"],
            model_name=self._spec.install.model_name,
            probe_questions=prepared["probe_questions"],
        )
        return await self._attempts.run("convert", lambda: request)

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
        scores = await self._attempts.run(f"evaluate-{target}", lambda: request, self._spec.resources.gpus)
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
        installed = await self._attempts.run("install", lambda: request)
        result = {"installed_path": installed["path"], "installed_sha256": installed["sha256"]}
        self._journal.change(self._name, lambda job: _with_result(job, **result))

    async def _report(self) -> None:
        """For every job that was evaluated, whatever came of installing. No job fails for want of its report."""
        try:
            await self._attempts.run("report", lambda: evaluator_pb2.WriteReportRequest(job=self._job()))
        except CutoffError as error:
            _LOG.warning("no report", job=self._name, reason=error.reason, message=error.message)
            self._attempts.give_up(error)

    def _job(self) -> job_pb2.Job:
        return self._journal.store.get(self._name)

    def _cancelling(self) -> bool:
        return bool(self._job().state == job_pb2.Job.STATE_CANCELLING)

    def _end(self, state: State, error: CutoffError | None = None) -> None:
        self._journal.move(self._name, state, failure_of(error) if error else None)
        _LOG.info("job ended", job=self._name, state=State.Name(state), error=str(error or ""))


def _newest_checkpoint(job: job_pb2.Job) -> str:
    """The last checkpoint that an earlier attempt at training published; "" when there is none."""
    published = [
        artifact.path
        for attempt in job.attempts
        if attempt.key.stage == "train"
        for artifact in attempt.artifacts
        if artifact.kind == "checkpoint"
    ]
    return published[-1] if published else ""


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
    """The job with one target's scores in its result, in place of earlier ones."""
    others = [evaluation for evaluation in job.result.evaluations if evaluation.target != target]
    del job.result.evaluations[:]
    job.result.evaluations.extend(others)
    for question_set, values in scores["sets"].items():
        known = {name: value for name, value in values.items() if name in job_pb2.Evaluation.DESCRIPTOR.fields_by_name}
        evaluation = job_pb2.Evaluation(target=target, question_set=question_set)
        json_format.ParseDict({name: value for name, value in known.items() if value is not None}, evaluation)
        job.result.evaluations.append(evaluation)
    return job
