"""`cutoff compare`: jobs side by side, what was asked for and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf import json_format
from rich.box import SIMPLE_HEAD
from rich.table import Table

from cutoff.client.api import outcome_of
from cutoff.v1 import job_pb2

VALIDATION = "validation"

_SCORES = {
    "retain_correct": "retain accuracy",
    "retain_refused": "false refusal rate",
    "unlearn_refused": "unlearn success rate",
    "unlearn_leaked": "knowledge leakage",
    "unlearn_forgotten": "forgotten",
    "temporal_accuracy": "temporal accuracy",
}
_REFERENCES = ("base", "control", "relearned")
"""Models that a job's own are held against; the last one shows what of the forgotten is only hidden."""

_NAMES = {"name", "install.publisher", "install.model_name"}
"""Fields in which jobs differ without being different."""

_LESS_IS_BETTER = {"retain_refused", "unlearn_leaked"}


def compared(jobs: Sequence[job_pb2.Job], target: str | None = None, question_set: str = VALIDATION) -> dict[str, Any]:
    """Jobs side by side, as JSON values.

    Args:
        jobs: Two or more.
        target: Which model of each job; by default the file it would install, or what comes nearest to it.
        question_set: Which questions.

    Returns:
        question_set, differing (the fields of job.yaml in which the jobs differ) and jobs, each with job, outcome,
        installed_path, missed, target, settings (those fields), scores, and leaked (how much the models leak that
        the job's own is held against, by name); null where nothing was measured.
    """
    specs = [_flat(json_format.MessageToDict(job.spec, preserving_proto_field_name=True)) for job in jobs]
    fields = sorted({field for spec in specs for field in spec})
    differing = [field for field in fields if len({str(spec.get(field)) for spec in specs}) > 1 and field not in _NAMES]
    return {
        "question_set": question_set,
        "differing": differing,
        "jobs": [
            {
                "job": job.name.removeprefix("jobs/"),
                "outcome": outcome_of(job).value,
                "installed_path": job.result.installed_path or None,
                "missed": list(job.result.missed),
                **_measured(job, target, question_set),
                "settings": {field: spec.get(field) for field in differing},
            }
            for job, spec in zip(jobs, specs, strict=True)
        ],
    }


def compare_table(found: dict[str, Any]) -> Table:
    """What `compared` found, a column a job; the best of a row is bold."""
    jobs = found["jobs"]
    table = Table(title=f"{found['question_set']} questions, 95 % intervals", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("")
    for job in jobs:
        table.add_column(job["job"], overflow="fold")
    table.add_row("outcome", *(job["outcome"] for job in jobs))
    table.add_row("target", *(job["target"] or "-" for job in jobs), end_section=True)
    for score, name in _SCORES.items():
        table.add_row(name, *_cells([job["scores"].get(score) for job in jobs], score in _LESS_IS_BETTER))
    for name in _REFERENCES:
        leaked = [job["leaked"][name] for job in jobs]
        if any(leaked):
            table.add_row(f"knowledge leakage of {name}", *_cells(leaked, less_is_better=None))
    table.add_section()
    for field in found["differing"]:
        table.add_row(field, *(_shown(job["settings"][field]) for job in jobs))
    return table


def _measured(job: job_pb2.Job, target: str | None, question_set: str) -> dict[str, Any]:
    """The target of a job, its scores by name, and what it is held against."""
    by_target = {each.target: each for each in job.result.evaluations if each.question_set == question_set}
    order = (
        [target]
        if target
        else [*job.spec.convert.quant_types, "merged", *(name for name in by_target if name not in _REFERENCES)]
    )
    chosen = next((name for name in order if name in by_target), None)
    scores = {score: _share(by_target[chosen], score) if chosen else None for score in _SCORES}
    leaked = {name: _share(by_target[name], "unlearn_leaked") if name in by_target else None for name in _REFERENCES}
    return {"target": chosen, "scores": scores, "leaked": leaked}


def _share(evaluation: job_pb2.Evaluation, score: str) -> dict[str, float] | None:
    if not evaluation.HasField(score):
        return None
    share: job_pb2.Score = getattr(evaluation, score)
    value = share.count / share.total
    return {"value": value, "count": share.count, "total": share.total, "low": share.low, "high": share.high}


def _cells(shares: Sequence[dict[str, float] | None], less_is_better: bool | None) -> list[str]:
    """Shares as text; the best is bold, unless None says that none is better than another."""
    values = [share["value"] for share in shares if share]
    best = (min(values) if less_is_better else max(values)) if values and less_is_better is not None else None
    cells = []
    for share in shares:
        if share is None:
            cells.append("-")
            continue
        text = f"{100 * share['value']:.1f}".removesuffix(".0")
        range_ = f" {100 * share['low']:.0f}-{100 * share['high']:.0f}"
        cells.append(f"[bold]{text}[/]{range_}" if share["value"] == best and len(set(values)) > 1 else text + range_)
    return cells


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Fields of messages by their path: train.epochs."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
