"""What runs in the child process of a trainer run: requests become plain calls, results become JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cutoff.artifacts import inside, publishing
from cutoff.hub import license_of
from cutoff.spec import JobSpec, spec_from_proto
from cutoff.stage.context import RunContext
from cutoff.telemetry import before_import
from cutoff.trainer import prepare as preparation
from cutoff.trainer.checkpoints import check_whole, newest_valid_from
from cutoff.trainer.plan import TrainingPlan
from cutoff.trainer.relearn import relearning_plan
from cutoff.v1 import trainer_pb2


def prepare(request: trainer_pb2.PrepareRequest, run: RunContext) -> Mapping[str, Any]:
    """Checks data and model, and leaves the texts a conversion measures with; see `cutoff.trainer.prepare`."""
    before_import()
    spec = spec_from_proto(request.spec)
    named = spec.train.resume_from_checkpoint
    if named:
        check_whole(inside(run.roots.artifacts, named))
    prepared = preparation.prepare(spec, run.roots.datasets, run.report)
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
        **{name: _published(run, f"{name}.txt", getattr(prepared, name)) for name in ("calibration", "validation")},
    }


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
        model_path=Path(request.model_path),
        model_name=_model_name(spec),
        revision=_revision(spec, Path(request.model_path)),
        dataset=spec.dataset,
        datasets_root=run.roots.datasets,
        spec=spec.train,
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
    result = launch.train(plan, run.report)
    adapter = result.adapter.resolve().relative_to(run.roots.artifacts.resolve())
    told = {name: getattr(result, name) for name in ("steps", "train_loss", "eval_loss", "seconds")}
    return {"adapter": str(adapter), **told}


def _resume_from(offered: str, spec: JobSpec, run: RunContext) -> Path | None:
    """Where to go on: from the checkpoint an earlier attempt left, or what the job names.

    Of an earlier attempt a damaged checkpoint is passed over for the one before it; what a user names must be whole.
    """
    if not offered:
        named = spec.train.resume_from_checkpoint
        return inside(run.roots.artifacts, named) if named else None
    newest = inside(run.roots.artifacts, offered)
    found = newest_valid_from(newest)
    if found != newest:
        since = f"going on from {found.name}" if found else "beginning anew"
        run.report.warn(f"{newest.name} of the earlier attempt is damaged; {since}")
    return found


def _model_name(spec: JobSpec) -> str:
    """As prepare names it: a hub id without its revision, or the folder."""
    return (
        str(Path(spec.base_model).expanduser().resolve())
        if spec.base_model_is_folder
        else spec.base_model.partition("@")[0]
    )


def _revision(spec: JobSpec, model_path: Path) -> str | None:
    """The commit of a hub model, which is the name of its folder in the cache."""
    return None if spec.base_model_is_folder else model_path.name
