"""The dashboard Job: one job from its first step to its scores."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import CustomVariable, QueryVariable
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard, VariableOption, VariableRefresh

from cutoff.evaluator.metrics import REQUIREMENTS, Requirement
from deploy.grafana.overview import SILENCE, TOKENS_PER_SECOND
from deploy.grafana.panels import (
    NO_LIMIT,
    PROMETHEUS,
    Panel,
    Steps,
    bars,
    dashboard,
    lines,
    more_is_better,
    more_is_worse,
    numbers,
)

JOB = 'cutoff_job="$cutoff_job"'
CHECKPOINT_AGE = more_is_worse(yellow=3600, red=7200)
"""Red where the alert CutoffNoCheckpoint fires."""


def job() -> Dashboard:
    """The dashboard of the job that is chosen at the top."""
    rows = {
        "Where it stands": _standing(),
        "Training": _training(),
        "Scores on the set chosen at the top": _scores(),
        "Merging and converting": _files(),
        "Hardware": _hardware(),
    }
    return dashboard("cutoff-job", "cutoff: job", "One job, from its first step to its scores.", rows, _job(), _set())


def _job() -> QueryVariable:
    return (
        QueryVariable("cutoff_job")
        .label("Job")
        .description("Jobs that were unfinished at some time in the chosen time range.")
        .datasource(PROMETHEUS)
        .query({"query": "label_values(cutoff_job_last_event_timestamp_seconds, cutoff_job)", "refId": "jobs"})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    )


def _set() -> CustomVariable:
    return (
        CustomVariable("question_set")
        .label("Set of questions")
        .description("validation is what install.require is held against.")
        .values("validation,test,heldout")
        .current(VariableOption(text="validation", value="validation"))
    )


def _standing() -> list[Panel]:
    return [
        numbers(
            "Progress",
            "How much of its current phase each stage has done; the last known value of stages that have ended.",
            units.PercentUnit,
            {"{{stage}}": f"max by (stage) (cutoff_run_progress_ratio{{{JOB}}})"},
            NO_LIMIT,
            width=12,
        ),
        numbers(
            "Silence",
            "Time since the job's newest event; once the job has ended, what it was at the end.",
            units.Seconds,
            {"": f"time() - max(cutoff_job_last_event_timestamp_seconds{{{JOB}}})"},
            SILENCE,
            width=6,
        ),
        numbers(
            "Age of the checkpoint",
            "Time since the newest checkpoint: what a crash of the training would cost.",
            units.Seconds,
            {"": f"time() - max(cutoff_train_checkpoint_timestamp_seconds{{{JOB}}})"},
            CHECKPOINT_AGE,
            width=6,
        ),
        lines(
            "Progress of the current phase",
            "A stage has several phases; each begins at 0.",
            units.PercentUnit,
            {"{{stage}}": f"max by (stage) (cutoff_run_progress_ratio{{{JOB}}})"},
            highest=1,
        ),
        lines(
            "Time left",
            "Of the current phase, at its mean speed so far.",
            units.Seconds,
            {"{{stage}}": f"max by (stage) (cutoff_run_eta_seconds{{{JOB}}})"},
        ),
    ]


def _training() -> list[Panel]:
    return [
        lines(
            "Loss",
            "Of the newest step, and of the newest evaluation on the validation sets. Both should fall and level off; "
            "validation that rises while training falls is overfitting.",
            units.NoUnit,
            {
                "training": f"max(cutoff_train_loss{{{JOB}}})",
                "validation": f"max(cutoff_train_eval_loss{{{JOB}}})",
            },
        ),
        lines(
            "Learning rate",
            "Rises over the warm-up, then falls along a cosine.",
            units.ScientificNotation,
            {"learning rate": f"max(cutoff_train_learning_rate{{{JOB}}})"},
        ),
        lines(
            "Speed",
            "Tokens trained on per second, padding not counted.",
            TOKENS_PER_SECOND,
            {"speed": f"max(cutoff_train_tokens_per_second{{{JOB}}})"},
        ),
        lines(
            "Model FLOPs utilisation",
            "The model's arithmetic, as a share of the GPU's peak. Only for GPUs whose peak is known.",
            units.PercentUnit,
            {"utilisation": f"max(cutoff_train_mfu_ratio{{{JOB}}})"},
            highest=1,
        ),
    ]


def _scores() -> list[Panel]:
    required = {requirement.score: requirement for requirement in REQUIREMENTS}
    return [
        _score("retain_correct", "Questions to keep, answered correctly.", required["retain_correct"]),
        _score("retain_refused", "Questions to keep, refused all the same.", required["retain_refused"]),
        _score("temporal_accuracy", "Of all questions: kept and correct, or to forget and refused.", None),
        _score("unlearn_refused", "Questions to forget, refused.", required["unlearn_refused"]),
        _score("unlearn_leaked", "Questions to forget whose true answer was said.", required["unlearn_leaked"]),
        _score("unlearn_forgotten", "Questions to forget whose known true answer was not said.", None),
    ]


def _score(name: str, meaning: str, required: Requirement | None) -> Panel:
    where = f'{JOB}, question_set="$question_set", score="{name}"'
    return bars(
        name,
        f"{meaning} By target. {_limits(required)}",
        units.PercentUnit,
        {"{{target}}": f"max by (target) (cutoff_evaluation_score_ratio{{{where}}})"},
        _steps(required),
        width=8,
        highest=1,
    )


def _limits(required: Requirement | None) -> str:
    if required is None:
        return "Nothing is required of it."
    side = "below" if required.higher_is_better else "from"
    return f"Yellow {side} the target of {required.target:.0%}, red {side} the minimum of {required.minimum:.0%}."


def _steps(required: Requirement | None) -> Steps:
    if required is None:
        return NO_LIMIT
    if required.higher_is_better:
        return more_is_better(yellow=required.minimum, green=required.target)
    return more_is_worse(yellow=required.target, red=required.minimum)


def _files() -> list[Panel]:
    return [
        lines(
            "Merging",
            "Bytes of the model merged per second.",
            units.BytesPerSecondSI,
            {"merge": f"max(cutoff_merge_bytes_per_second{{{JOB}}})"},
        ),
        lines(
            "Converting",
            "Bytes of the model converted per second, by quantization type.",
            units.BytesPerSecondSI,
            {"{{quant_type}}": f"max by (quant_type) (cutoff_convert_bytes_per_second{{{JOB}}})"},
        ),
    ]


def _hardware() -> list[Panel]:
    return [
        lines(
            "Memory",
            "Resident memory of the run's processes, by stage.",
            units.BytesIEC,
            {"{{stage}}": f"sum by (stage) (cutoff_run_memory_bytes{{{JOB}}})"},
            width=8,
        ),
        lines(
            "GPU memory",
            "What the run has allocated on its devices. Nothing on the CPU.",
            units.BytesIEC,
            {"{{device}} {{stage}}": f"sum by (device, stage) (cutoff_device_memory_used_bytes{{{JOB}}})"},
            width=8,
        ),
        lines(
            "Devices held",
            "Devices the job's runs hold. Nothing on the CPU.",
            units.NoUnit,
            {"{{device}} {{stage}}": f"sum by (device, stage) (cutoff_device_leased{{{JOB}}})"},
            width=8,
        ),
    ]
