"""What runs in the child process of a trainer run: requests become plain calls, results become JSON."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cutoff.artifacts import inside, publishing, publishing_folder, resolved
from cutoff.hub import allowed_folder, license_of, tokenizer_files
from cutoff.hub.shape import stored_parameters
from cutoff.spec import JobSpec, TrainSpec, spec_from_proto
from cutoff.spec.job import names_folder
from cutoff.stage.context import RunContext
from cutoff.telemetry import before_import
from cutoff.trainer import prepare as preparation
from cutoff.trainer.checkpoints import check_whole, newest_valid_of
from cutoff.trainer.estimate import GIB
from cutoff.trainer.plan import TrainingPlan
from cutoff.trainer.relearn import relearning_plan
from cutoff.trainer.room import JobRoom
from cutoff.v1 import trainer_pb2


def prepare(request: trainer_pb2.PrepareRequest, run: RunContext) -> Mapping[str, Any]:
    """Checks data and model, and leaves the texts a conversion measures with; see `cutoff.trainer.prepare`."""
    before_import()
    spec = spec_from_proto(request.spec)
    for model in (spec.base_model, spec.evaluate.control):
        if model and names_folder(model):
            allowed_folder(model, run.roots)
    named = spec.train.resume_from_checkpoint
    if named:
        check_whole(inside(run.roots.artifacts, named))
    prepared = preparation.prepare(spec, run.roots.datasets, run.report, room=JobRoom(spec, run.roots))
    return {
        "model_path": str(prepared.model.path),
        "control_path": str(prepared.control.path) if prepared.control else "",
        "model": prepared.model.name,
        "revision": prepared.model.revision or "",
        "data": [asdict(file) for file in prepared.data],
        "counts": prepared.counts,
        "probe_questions": list(prepared.probe_questions),
        "warnings": list(prepared.warnings),
        "example": prepared.example,
        "license": license_of(prepared.model.path),
        "memory": prepared.memory,
        "parameters": stored_parameters(prepared.model.path),
        "description": _description(run, prepared.model.path),
        **{name: _published(run, f"{name}.txt", getattr(prepared, name)) for name in ("calibration", "validation")},
    }


def _description(run: RunContext, model: Path) -> str:
    """Copies what llama.cpp knows a model by, without its weights, to where the converter can read it."""
    folder = run.folder / "description"
    with publishing_folder(folder) as partial:
        for path in (model / "config.json", *tokenizer_files(model)):
            copy = partial / path.relative_to(model)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
    return str(folder.resolve().relative_to(run.roots.artifacts.resolve()))


def _published(run: RunContext, name: str, text: str) -> str:
    """Writes a text into the attempt's folder; its path, relative to the artifacts root, or "" for no text."""
    if not text:
        return ""
    path = run.folder / name
    with publishing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return str(path.resolve().relative_to(run.roots.artifacts.resolve()))


def train(request: trainer_pb2.TrainRequest, run: RunContext) -> Mapping[str, Any]:
    """Trains an adapter; see `cutoff.trainer.recipe`."""
    before_import()
    from cutoff.trainer import launch

    spec = spec_from_proto(request.spec)
    plan = TrainingPlan(
        model_path=allowed_folder(request.model_path, run.roots),
        model_name=_model_name(spec),
        revision=_revision(spec, Path(request.model_path)),
        dataset=spec.dataset,
        datasets_root=run.roots.datasets,
        spec=_within_share(spec.train, request.run.device_share, run.devices),
        folder=run.folder,
        cache=run.roots.cache,
        devices=run.devices,
        resume_from=_resume_from(request.resume_from, spec, run),
        name=f"{run.key.job}-{run.key.attempt}",
    )
    result = launch.train(plan, run.report)
    adapter = result.adapter.resolve().relative_to(run.roots.artifacts.resolve())
    return {**asdict(result), "adapter": str(adapter)}


def relearn(request: trainer_pb2.RelearnRequest, run: RunContext) -> Mapping[str, Any]:
    """Trains an adapter on a merged model with examples that say nothing of what came later; see `trainer.relearn`.

    Returns:
        adapter (relative to the artifacts root), steps, train_loss, eval_loss and seconds.
    """
    before_import()
    from cutoff.trainer import launch

    spec = spec_from_proto(request.spec)
    merged = inside(run.roots.artifacts, request.model_path)
    plan = relearning_plan(spec, merged, run.roots.datasets, run.folder, run.roots.cache, tuple(run.devices))
    plan = replace(plan, spec=_within_share(plan.spec, request.run.device_share, run.devices))
    result = launch.train(plan, run.report)
    adapter = result.adapter.resolve().relative_to(run.roots.artifacts.resolve())
    told = {name: getattr(result, name) for name in ("steps", "train_loss", "eval_loss", "seconds")}
    return {"adapter": str(adapter), **told}


def _within_share(train: TrainSpec, share: float, devices: Sequence[str]) -> TrainSpec:
    """The recipe with a memory budget of its share of the GPU: without one it would take most of what is free."""
    if not devices or not 0 < share < 1:
        return train
    import torch

    from cutoff.trainer.model import hardware

    own = share * torch.cuda.mem_get_info(hardware(tuple(devices)).device)[1] / GIB
    return train.model_copy(update={"memory_budget_gib": min(train.memory_budget_gib or own, own)})


def _resume_from(offered: str, spec: JobSpec, run: RunContext) -> Path | None:
    """Where to go on: from the newest whole checkpoint of the job's earlier attempts, else from what the job names.

    Whatever they published counts, whether the coordinator was told or not. What a user names must be whole.

    Args:
        offered: The newest that the coordinator was told of, below the artifacts root; "" for none.
        spec: The job.
        run: The attempt.
    """
    earlier = [run.folder.parent / str(number) for number in range(1, run.key.attempt)]
    found = newest_valid_of(earlier)
    if offered and (found is None or found.name != Path(offered).name):
        since = f"going on from {found.name}" if found else "beginning anew"
        run.report.warn(f"{Path(offered).name} was the newest the coordinator knew of; {since}")
    if found is not None or offered:
        return found
    named = spec.train.resume_from_checkpoint
    return inside(run.roots.artifacts, named) if named else None


def _model_name(spec: JobSpec) -> str:
    """As prepare names it: a hub id without its revision, or the folder."""
    return str(resolved(spec.base_model)) if spec.base_model_is_folder else spec.base_model.partition("@")[0]


def _revision(spec: JobSpec, model_path: Path) -> str | None:
    """The commit of a hub model, which is the name of its folder in the cache."""
    return None if spec.base_model_is_folder else model_path.name
