"""What happens to a job, from top to bottom: prepare, train, merge, convert, evaluate, card, install, report.

Each stage is run by `attempts.py`, which keeps its result in the job's record. A pipeline that starts over (the
coordinator was restarted) takes the results that are there and attaches to what still runs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from google.protobuf import json_format

from cutoff.coordinator import delivery
from cutoff.coordinator.attempts import Attempts, Result, Services
from cutoff.coordinator.choice import Candidate, choose_quant
from cutoff.coordinator.job import State, newest_attempt
from cutoff.coordinator.journal import Journal
from cutoff.coordinator.patience import RETRIES, patiently
from cutoff.coordinator.store import StoreFailed
from cutoff.errors import Cancelled, CutoffError, Paused, Unavailable
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

        Cancelling the task cancels the job when it is CANCELLING, and pauses it when it is PAUSING; otherwise (the
        coordinator stops) the job is let go as it is, its runs go on for their lease, and another pipeline may take
        it up.

        Raises:
            StoreFailed: What happened could not be recorded; the job is let go as it is, too.
        """
        if self._is(job_pb2.Job.STATE_PAUSING) and await self._paused():
            return
        try:
            if not self._cancelling():
                if self._job().state == job_pb2.Job.STATE_QUEUED:
                    self._journal.move(self._name, job_pb2.Job.STATE_RUNNING)
                await self._deliver()
                self._end(job_pb2.Job.STATE_SUCCEEDED)
                return
            error: CutoffError = Cancelled("the job was cancelled")
        except asyncio.CancelledError:
            if self._is(job_pb2.Job.STATE_PAUSING) and await self._paused():
                return
            if not self._cancelling():
                raise
            error = Cancelled("the job was cancelled")
        except StoreFailed:
            raise
        except CutoffError as raised:
            error = raised
        except BaseExceptionGroup as group:
            if group.subgroup(StoreFailed) is not None:
                raise StoreFailed("the job store took nothing in") from group
            error = _first_error(group)
        await self._stop(error)

    async def _paused(self) -> bool:
        """Pauses the job; False when it was cancelled meanwhile."""
        try:
            await self._pause()
        except asyncio.CancelledError:
            if not self._cancelling():
                raise
            return False
        return True

    async def _pause(self) -> None:
        """Stops what runs; the job is PAUSED when nothing of it does, which a service that is away makes uncertain."""
        while True:
            try:
                await self._attempts.stop_open(Paused("the job was paused"))
            except Unavailable as error:
                _LOG.warning("not paused yet", job=self._name, reason=error.reason, message=error.message)
                await asyncio.sleep(RETRIES[-1] if RETRIES else 1.0)
            else:
                self._journal.move(self._name, job_pb2.Job.STATE_PAUSED)
                return

    async def _stop(self, error: CutoffError) -> None:
        """Ends a job that will not be finished, when nothing of it runs any more."""
        try:
            await self._attempts.cancel_open()
        except StoreFailed:
            raise
        except CutoffError as unreachable:
            await self._attempts.give_up(unreachable)
            self._end(job_pb2.Job.STATE_FAILED, unreachable)
            return
        self._end(job_pb2.Job.STATE_CANCELLED if self._cancelling() else job_pb2.Job.STATE_FAILED, error)

    async def _deliver(self) -> None:
        """The sequence. Conversion runs beside the evaluation of what needs no GGUF."""
        await self._check_install()
        prepared = await self._prepare()
        await self._check_model(prepared)
        trained = await self._train(prepared)
        merged = await self._merge(prepared, trained)
        async with asyncio.TaskGroup() as beside:
            converting = beside.create_task(self._convert(prepared, merged))
            beside.create_task(self._evaluate_folders(prepared, trained, merged))
        ggufs = {file["quant_type"]: file for file in converting.result()["files"]}
        scores = await self._evaluate_ggufs(ggufs)
        chosen = self._choose(ggufs, scores)
        await self._write_card()
        try:
            if chosen:
                await self._install(chosen)
        except CutoffError:
            await self.report()  # it says why nothing was installed
            raise
        await self.report()

    async def _check_install(self) -> None:
        """Finds out before any work that the model could not be installed.

        A job that is taken up again was checked already; by now its own model may be what is there.
        """
        if self._spec.install.enabled and not self._job().attempts:
            delivery.require_name(self._job(), self._journal.store.will_install(self._spec.install))
            address = self._services.addresses.gguf_converter
            for request in delivery.check_requests(self._spec):
                check = partial(self._services.check_install, address, request)
                await patiently(check, f"{self._name} check_install")

    async def _prepare(self) -> Result:
        return await self._attempts.run("prepare", lambda: trainer_pb2.PrepareRequest(spec=self._spec))

    async def _check_model(self, prepared: Result) -> None:
        """Finds out before training that the model could not be converted, or would fill a disk.

        A job that has begun to train was checked already; one prepared by an earlier version cannot be.
        """
        if "description" not in prepared or newest_attempt(self._job(), "train") is not None:
            return
        request = gguf_converter_pb2.CheckModelRequest(
            spec=self._spec, description=prepared["description"], parameters=int(prepared["parameters"])
        )
        check = partial(self._services.check_model, self._services.addresses.gguf_converter, request)
        await patiently(check, f"{self._name} check_model")

    async def _train(self, prepared: Result) -> Result:
        def request() -> trainer_pb2.TrainRequest:
            newest = _newest_checkpoint(self._job())
            return trainer_pb2.TrainRequest(spec=self._spec, model_path=prepared["model_path"], resume_from=newest)

        need = _need(prepared, "train_bytes")
        return await self._attempts.run("train", request, self._spec.resources.gpus, memory_bytes=need)

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
            calibration=prepared.get("calibration", ""),  # a job prepared by an earlier version has none
            validation=prepared.get("validation", ""),
            facts=self._facts(prepared),
            installs=self._spec.install.enabled,
        )
        return await self._attempts.run("convert", lambda: request)

    def _facts(self, prepared: Result) -> gguf_converter_pb2.ModelFacts:
        """What the GGUF says of where it comes from."""
        recipe = {section: _fields(getattr(self._spec, section)) for section in ("train", "merge")}
        recipe["train"].pop("resume_from_checkpoint", None)  # a path of this machine
        return gguf_converter_pb2.ModelFacts(
            job=self._name,
            base_model=prepared.get("model", ""),
            base_revision=prepared.get("revision", ""),
            license=prepared.get("license", ""),
            cutoff=self._spec.cutoff,
            data_sha256=_digests(prepared.get("data", [])),
            recipe=json.dumps(recipe, sort_keys=True),
        )

    async def _evaluate_folders(self, prepared: Result, trained: Result, merged: Result) -> None:
        targets, need = self._spec.evaluate.targets, _need(prepared, "evaluate_bytes")
        if "base" in targets:
            await self._evaluate("base", need, model_path=prepared["model_path"])
        if prepared.get("control_path"):
            await self._evaluate("control", need, model_path=prepared["control_path"])
        if "adapter" in targets:
            both = evaluator_pb2.AdapterModel(model_path=prepared["model_path"], adapter=trained["adapter"])
            await self._evaluate("adapter", need, adapter=both)
        if "merged" in targets:
            await self._evaluate("merged", need, model_path=merged["path"])
        if self._spec.evaluate.HasField("relearn"):
            await self._evaluate("relearned", need, adapter=await self._relearn(prepared, merged))

    async def _relearn(self, prepared: Result, merged: Result) -> evaluator_pb2.AdapterModel:
        """Trains the merged model a little further on unrelated data; returns it with its adapter."""
        request = trainer_pb2.RelearnRequest(spec=self._spec, model_path=merged["path"])
        need = _need(prepared, "train_bytes")
        relearnt = await self._attempts.run("relearn", lambda: request, self._spec.resources.gpus, memory_bytes=need)
        return evaluator_pb2.AdapterModel(model_path=merged["path"], adapter=relearnt["adapter"])

    async def _evaluate_ggufs(self, ggufs: Mapping[str, Result]) -> Mapping[str, Result]:
        """Evaluates every GGUF, and a model in LM Studio when asked to; returns the scores by quantization type."""
        spec = self._spec.evaluate
        results = {}
        if "gguf" in spec.targets:
            for quant_type, file in ggufs.items():
                results[quant_type] = await self._evaluate(quant_type, gguf=file["path"])
        if "lmstudio" in spec.targets:
            server = evaluator_pb2.OpenAiServer(url=spec.lmstudio_url, model=spec.lmstudio_model)
            await self._evaluate("lmstudio", server=server)
        return results

    async def _evaluate(self, target: str, need: int = 0, **model: Any) -> Result:
        """Has one target asked; a model in LM Studio is on LM Studio's GPU, not on one of the job's.

        Args:
            target: What is evaluated.
            need: Bytes of the GPU; 0 where it is not known: llama.cpp takes the layers that fit.
            **model: The field of EvaluateRequest that says where it is.
        """
        request = evaluator_pb2.EvaluateRequest(spec=self._spec, target=target, **model)
        gpus = 0 if "server" in model else self._spec.resources.gpus
        return await self._attempts.run(f"evaluate-{target}", lambda: request, gpus, memory_bytes=need)

    def _choose(self, ggufs: Mapping[str, Result], scores: Mapping[str, Result]) -> str | None:
        """The quantization type to install: one that reaches what install.require asks for; None if none does."""
        install = self._spec.install
        if not install.enabled:
            return None
        candidates = [
            Candidate(name, int(file["size_bytes"]), tuple(delivery.missed(install.require, scores.get(name))))
            for name, file in ggufs.items()
        ]
        choice = choose_quant(candidates, install.quant)
        if choice.missed and not self._job().result.missed:
            self._journal.change(self._name, lambda job: delivery.with_missed(job, choice.missed))
        return choice.quant_type

    async def _write_card(self) -> None:
        """For every job, whatever its gate said."""
        await self._attempts.run("card", lambda: gguf_converter_pb2.WriteCardRequest(job=self._job()))

    async def _install(self, quant_type: str) -> None:
        await self._attempts.run("install", lambda: delivery.install_request(self._job(), quant_type))

    async def report(self, anew: bool = False) -> None:
        """For every job that was evaluated, whatever came of installing. No job fails for want of its report.

        Args:
            anew: Whether it is made again: what came of installing has changed since.
        """
        try:
            await self._attempts.run("report", lambda: evaluator_pb2.WriteReportRequest(job=self._job()), anew=anew)
        except StoreFailed:
            raise
        except CutoffError as error:
            _LOG.warning("no report", job=self._name, reason=error.reason, message=error.message)
            await self._attempts.give_up(error)

    def _job(self) -> job_pb2.Job:
        return self._journal.store.get(self._name)

    def _cancelling(self) -> bool:
        return self._is(job_pb2.Job.STATE_CANCELLING)

    def _is(self, state: State) -> bool:
        return bool(self._job().state == state)

    def _end(self, state: State, error: CutoffError | None = None) -> None:
        self._journal.move(self._name, state, failure_of(error) if error else None)
        _LOG.info("job ended", job=self._name, state=State.Name(state), error=str(error or ""))


def _fields(section: Any) -> dict[str, Any]:
    """A section of the job as it would stand in job.yaml."""
    fields: dict[str, Any] = json_format.MessageToDict(section, preserving_proto_field_name=True)
    return fields


def _need(prepared: Result, stage: str) -> int:
    """Bytes of GPU memory by the plan; 0 for a model that has none, and for a job prepared by an earlier version."""
    return int(prepared.get("memory", {}).get(stage, 0))


def _digests(files: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The SHA-256 of each file of `dataset`, by its field there, of the files prepare told."""
    known = ((file["field"].partition("."), file["sha256"]) for file in files)
    return {name: sha256 for (section, _, name), sha256 in known if section == "dataset"}


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
