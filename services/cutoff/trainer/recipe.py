"""The document's recipe: LoRA on every linear layer, taught by answers and refusals; then what further stages add.

Read `train` top-down. It runs in a child process of the trainer service, or in the `finetune_temporal` command.
The loop is our own (ADR 0011): it takes whole optimizer steps, so that it can go on from the last one when memory
runs out, stop between two of them, and compute the same whatever the size of a micro-batch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model

from cutoff.artifacts import describe
from cutoff.errors import TrainingDiverged
from cutoff.stage.report import Counter, Reporter
from cutoff.stage.stopping import noting_stops
from cutoff.telemetry import quiet_libraries
from cutoff.trainer import attention
from cutoff.trainer.checkpoints import (
    FINAL,
    check_folder,
    check_resumable,
    link_checkpoint,
    problems,
    remove_old,
)
from cutoff.trainer.delivery import BAD_BATCH, TrainingResult, deliver, keep_batch
from cutoff.trainer.examples import TrainingData, training_data
from cutoff.trainer.journal import Journal, journal
from cutoff.trainer.learner import Learner, StepResult
from cutoff.trainer.lora_linear import use_lora_linear
from cutoff.trainer.measures import Measures
from cutoff.trainer.memory import MicroBatch
from cutoff.trainer.model import hardware, load_base, lora_config
from cutoff.trainer.objectives import Objective
from cutoff.trainer.plan import TrainingPlan
from cutoff.trainer.ranks import Ranks
from cutoff.trainer.saving import Progress, Saved, load_adapter, load_checkpoint, save_checkpoint
from cutoff.trainer.schedule import Intervals, Schedule, Step, intervals

_FALLING_BY = 0.2
"""The share of a run by which its loss should have fallen."""
_LEAST_COMPARED = 5
"""Steps whose mean loss says something."""
_FALL = 0.01
"""A smaller fall than this share of the loss is none."""

_NOT_FALLING = (
    "the loss has not fallen in the first fifth of the run ({first:.3f}, now {now:.3f}): consider a higher learning "
    "rate (--learning_rate 5e-4), more epochs, and whether the data is what it should be (cutoff check)"
)


def train(plan: TrainingPlan, report: Reporter, ranks: Ranks = Ranks()) -> TrainingResult:  # noqa: B008 - immutable
    """Trains an adapter and publishes it as `final` in the plan's folder, with the result files.

    Asked to stop (SIGTERM, or Ctrl-C), it first writes a checkpoint.

    Raises:
        AlreadyExists: The folder holds a finished adapter, or checkpoints of another run.
        InvalidInput: Nothing would be learnt, or the checkpoint to go on from does not fit.
        OutOfMemory: Not even one example at a time fits.
        TrainingDiverged: The loss is not a number any more; the batch is kept beside the checkpoints.
    """
    started = time.monotonic()
    if ranks.first:
        check_folder(plan.folder, plan.resume_from)
    with quiet_libraries(lambda line: report.log(line, "DEBUG")):
        data = training_data(plan)
        recipe = {**plan.recipe(), "data": data.sets.digest}
        if plan.resume_from is not None:
            check_resumable(plan.resume_from, recipe)
        objectives = [Objective.of(stage) for stage in plan.spec.stages]
        schedule = Schedule(plan.spec, [data.usable(objective) for objective in objectives])
        learner = _load(plan, report, ranks)
        saved = Saved(Progress(), recipe=recipe)
        if plan.resume_from is not None:
            saved = load_checkpoint(plan.resume_from, learner.model, learner.optimizer)
            _keep_best(saved.progress, plan.resume_from, plan.folder, ranks)
            report.log(f"going on from {plan.resume_from}: {saved.progress.step} of {schedule.total} steps are done")
        run = _Run(plan, report, ranks, data, objectives, schedule, learner, saved, started)
        folder = plan.folder if ranks.first else None
        with (
            noting_stops() as stopping,
            journal(folder, saved.records, plan.spec.report_to, plan.name or plan.folder.name, recipe) as kept,
            report.phase("training", "step", schedule.total) as steps,
        ):
            finished = run.loop(steps, kept, stopping)
        assert finished, "the signal that stopped the run has taken effect"
        return run.publish(kept.records)


def _keep_best(progress: Progress, resumed: Path, folder: Path, ranks: Ranks) -> None:
    """Brings the best checkpoint so far into this attempt's folder; without it, the search for the best begins anew."""
    if progress.best_step is None:
        return
    best = resumed.parent / f"checkpoint-{progress.best_step}"
    if problems(best):
        progress.best_step = progress.best_loss = None
    elif ranks.first and not (folder / best.name).exists():
        link_checkpoint(best, folder)


def _load(plan: TrainingPlan, report: Reporter, ranks: Ranks) -> Learner:
    """Loads the base model and puts an untrained adapter on it."""
    report.log(f"loading {plan.model_name}")
    on = hardware(plan.devices)
    for line in on.platform.warnings_for(plan.spec.quantization):
        report.warn(line)
    model_type = json.loads((plan.model_path / "config.json").read_text("utf-8"))["model_type"]
    name = attention.implementation(plan.spec.attention, on.platform, model_type)
    if name is None:
        report.log(f"{model_type} models are computed one sequence at a time, which is slower")
    base = load_base(plan.model_path, plan.spec, on, name)
    torch.manual_seed(plan.spec.seed)
    model = get_peft_model(base, lora_config(plan.spec))
    if on.on_cpu:
        use_lora_linear(model)
    model.peft_config["default"].base_model_name_or_path = plan.model_name
    model.peft_config["default"].revision = plan.revision
    model.train()

    def on_memory(what: str) -> None:
        report.warn(f"out of memory; the step is repeated with {what}, and the same examples in it")

    return Learner(model, on, name, ranks, on_memory)


class _Run:
    """A run between its first step and its last."""

    def __init__(
        self,
        plan: TrainingPlan,
        report: Reporter,
        ranks: Ranks,
        data: TrainingData,
        objectives: Sequence[Objective],
        schedule: Schedule,
        learner: Learner,
        saved: Saved,
        started: float,
    ) -> None:
        self._plan = plan
        self._report = report
        self._ranks = ranks
        self._data = data
        self._objectives = objectives
        self._schedule = schedule
        self._learner = learner
        self._progress = saved.progress
        self._recipe = saved.recipe
        self._started = started - saved.progress.seconds
        self._intervals: Intervals = intervals(schedule.total, plan.spec.eval_steps, plan.spec.save_steps)
        self._measures = Measures(report, learner.model, learner.device, schedule.total)
        limit, seed = plan.spec.eval_limit, plan.spec.seed
        self._validating = [data.validating(objective, limit, seed) for objective in objectives]

    def loop(self, steps: Counter, kept: Journal, stopping: Callable[[], bool]) -> bool:
        """Takes the steps that are left; False if it was stopped, after writing a checkpoint."""
        steps.start_at(self._progress.step)
        self._fit_memory()
        while self._progress.step < self._schedule.total and not self._stopped_early():
            step = self._schedule.step(self._progress.step)
            self._enter_stage(step)
            result = self._take(step)
            steps.at(self._progress.step, result.loss)
            kept.add(self._record(step, result))
            self._warn_unless_falling(step, kept.records)
            if self._due(self._intervals.evaluate) and self._evaluate(kept, stopping):
                self._save(kept)
            if self._ranks.any(stopping()):
                self._save(kept, evaluated=False)
                self._report.log(
                    f"stopped; {self._checkpoint()} is where to go on from "
                    "(--resume_latest; in job.yaml train.resume_from_checkpoint)"
                )
                return False
        return True

    def _fit_memory(self) -> None:
        """Chooses the micro-batch by the longest example of each stage; a run that goes on keeps its own."""
        progress = self._progress
        self._learner.loss_scale = progress.loss_scale
        if progress.micro_batch_tokens is not None:
            self._learner.use(MicroBatch(progress.micro_batch_tokens, progress.recompute))
            return
        longest = [self._data.longest(objective) for objective in self._objectives]
        samples = [
            (objective, self._data.example(objective, line))
            for objective, (line, _) in zip(self._objectives, longest, strict=True)
        ]
        most = max(tokens for _, tokens in longest)
        self._learner.fit_memory(samples, most, self._plan.spec.memory_budget_gib)
        fitted = self._learner.micro_batch
        recomputed = ", activations recomputed" if fitted.recompute else ""
        self._report.log(
            f"{self._schedule.total} steps of {self._schedule.examples_per_step} examples, "
            f"at most {fitted.most_tokens} tokens at a time{recomputed}"
        )

    def _enter_stage(self, step: Step) -> None:
        """At the beginning of a later stage the optimizer and the search for the best checkpoint start anew."""
        stage = self._schedule.stages[step.stage]
        if step.number != stage.first:
            return
        if len(self._objectives) > 1:
            self._report.log(f"stage {step.stage + 1} of {len(self._objectives)}: {stage.spec.method}")
        if step.stage > 0:
            self._learner.new_optimizer()
            progress = self._progress
            progress.best_step = progress.best_loss = None
            progress.without_gain = 0

    def _take(self, step: Step) -> StepResult:
        """Takes one optimizer step.

        Raises:
            TrainingDiverged: Its loss or gradient is no number; its batch is written down.
        """
        objective = self._objectives[step.stage]
        examples = [self._data.example(objective, line) for line in step.examples]
        seed = (self._plan.spec.seed << 24) + step.number * self._ranks.count
        result = self._learner.step(objective, examples, step.learning_rate, seed)
        if not result.finite:
            if self._ranks.first:
                keep_batch(self._plan.folder, self._data, step, examples, result)
            raise TrainingDiverged(
                f"the loss is {result.loss} and its gradient's norm {result.gradient_norm} at step {step.number + 1}; "
                f"the batch is in {self._plan.folder / BAD_BATCH}",
                "lower the learning rate (--learning_rate), and look for strange lines in the data",
            )
        self._progress.step += 1
        self._progress.tokens += result.tokens
        self._progress.summed_loss += result.loss
        return result

    def _record(self, step: Step, result: StepResult) -> dict[str, Any]:
        self._measures.step(self._progress.step, result, step.learning_rate, self._progress.tokens)
        return {
            **self._place(step.stage),
            "loss": result.loss,
            "learning_rate": step.learning_rate,
            "grad_norm": result.gradient_norm,
            "tokens": self._progress.tokens,
        }

    def _place(self, stage: int) -> dict[str, Any]:
        """Where in the run a record was made."""
        step = self._progress.step
        return {"step": step, "epoch": round(self._schedule.epochs_at(step), 4), "stage": stage}

    def _warn_unless_falling(self, step: Step, records: Sequence[dict[str, Any]]) -> None:
        """Reports a loss that has not fallen in the first fifth of the first stage, by comparing the fifth's halves."""
        fifth = round(self._schedule.stages[0].count * _FALLING_BY)
        if step.number != fifth - 1 or fifth < 2 * _LEAST_COMPARED:
            return
        losses = [record["loss"] for record in records if "loss" in record]
        half = len(losses) // 2
        first, now = (sum(part) / half for part in (losses[:half], losses[-half:]))
        if first - now < _FALL * abs(first):
            self._report.warn(_NOT_FALLING.format(first=first, now=now))

    def _stopped_early(self) -> bool:
        """Whether the validation loss of the last stage has not fallen for as long as the job allows."""
        patience = self._plan.spec.early_stopping_patience
        if patience is None or self._progress.step == 0:
            return False
        last = self._schedule.step(self._progress.step - 1).stage == len(self._objectives) - 1
        return last and self._progress.without_gain >= patience

    def _due(self, every: int) -> bool:
        return self._progress.step % every == 0 or self._progress.step == self._schedule.total

    def _evaluate(self, kept: Journal, stopping: Callable[[], bool]) -> bool:
        """Measures the validation loss; True if a checkpoint is due too."""
        progress = self._progress
        stage = self._schedule.step(progress.step - 1).stage
        objective = self._objectives[stage]
        loss = self._learner.evaluate(objective, self._validating[stage], stopping)
        if loss is None:
            return False
        self._report.log(f"step {progress.step}: validation loss {loss:.4f}")
        self._measures.evaluated(loss)
        kept.add({**self._place(stage), "eval_loss": loss})
        lowest = progress.best_loss is None or loss < progress.best_loss
        progress.without_gain = 0 if lowest else progress.without_gain + 1
        if lowest:
            progress.best_step, progress.best_loss = progress.step, loss
        if self._stopped_early():
            self._report.log(f"the validation loss was not lower {progress.without_gain} times in a row: stopping")
        return lowest or self._due(self._intervals.save) or self._stopped_early()

    def _save(self, kept: Journal, evaluated: bool = True) -> None:
        """Writes a checkpoint and removes old ones."""
        target = self._checkpoint()
        if not self._ranks.first or (not evaluated and not problems(target)):
            return
        progress, fitted = self._progress, self._learner.micro_batch
        progress.micro_batch_tokens, progress.recompute = fitted.most_tokens, fitted.recompute
        progress.loss_scale = self._learner.loss_scale
        progress.seconds = time.monotonic() - self._started
        save_checkpoint(
            target, self._learner.model, self._learner.optimizer, Saved(self._progress, kept.records, self._recipe)
        )
        self._report.artifact("checkpoint", describe(target), step=str(self._progress.step))
        self._measures.saved()
        remove_old(self._plan.folder, self._best())

    def _checkpoint(self) -> Path:
        """The folder of a checkpoint taken now."""
        return self._plan.folder / f"checkpoint-{self._progress.step}"

    def _best(self) -> Path | None:
        """The best checkpoint's folder."""
        step = self._progress.best_step
        return None if step is None else self._plan.folder / f"checkpoint-{step}"

    def publish(self, records: Sequence[dict[str, Any]]) -> TrainingResult:
        """Writes the result files and the curve, then `final`: where that is, the others are."""
        best = self._best()
        assert best is not None, "the last step is evaluated and saved"
        self._ranks.any(False)  # which is a barrier: the first rank has written what all read
        assert self._progress.best_loss is not None
        load_adapter(best, self._learner.model)
        fitted = self._learner.micro_batch
        result = TrainingResult(
            adapter=self._plan.folder / FINAL,
            best_checkpoint=best.name,
            train_loss=self._progress.summed_loss / self._progress.step,
            eval_loss=self._progress.best_loss,
            steps=self._progress.step,
            epoch=self._schedule.epochs_at(self._progress.step),
            seconds=round(time.monotonic() - self._started, 2),
            tokens=self._progress.tokens,
            examples_per_step=self._schedule.examples_per_step,
            micro_batch_tokens=fitted.most_tokens,
            activations_recomputed=fitted.recompute,
            stopped_early=self._stopped_early(),
        )
        if self._ranks.first:
            deliver(self._plan, self._data, self._learner.model, result, records)
            self._report.artifact("adapter", describe(result.adapter))
        return result
