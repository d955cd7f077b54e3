"""The document's recipe: LoRA on every linear layer, supervised by the answers, with TRL and PEFT.

Read `train` top-down. It runs in a child process of the trainer service, or in the `finetune_temporal` command.
"""

from __future__ import annotations

import gc
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from transformers import PreTrainedModel, PrinterCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from cutoff.artifacts import describe, publishing, publishing_folder
from cutoff.datasets import EncodedSet, PromptTemplate, check_learnable, encode_examples, load_template
from cutoff.errors import OutOfMemory
from cutoff.hub import PROBE_QUESTIONS, carry_tokenizer
from cutoff.stage.report import Counter, Reporter
from cutoff.telemetry import quiet_libraries
from cutoff.trainer.checkpoints import FINAL, check_folder, check_resumable, newest_valid, step_of
from cutoff.trainer.model import OOM_REMEDY, Hardware, hardware, is_out_of_memory, load_base, lora_config
from cutoff.trainer.order import StepOrder
from cutoff.trainer.plan import KEPT_CHECKPOINTS, Batches, TrainingPlan, intervals
from cutoff.trainer.prepare import length_warnings, probe_questions
from cutoff.trainer.sft import AdapterTrainer, save_adapter

_LEAST_EVALUATION_BATCH = 8


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a finished run delivered. Losses are means per answer token, in nats."""

    adapter: Path
    best_checkpoint: str
    train_loss: float
    eval_loss: float
    """Of the best checkpoint, which is what `adapter` holds."""
    steps: int
    seconds: float
    tokens: int
    """Tokens trained on, prompts included and padding not."""
    batch_size: int
    gradient_accumulation_steps: int


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What does not change when a run is started again with a smaller micro-batch."""

    template: PromptTemplate
    train: EncodedSet
    validation: EncodedSet
    hardware: Hardware


def train(plan: TrainingPlan, report: Reporter) -> TrainingResult:
    """Trains an adapter and publishes it as `final` in the plan's folder, with the two result files.

    Out of memory, the run goes on from its newest checkpoint with half the micro-batch and the same examples in
    an optimizer step.

    Raises:
        AlreadyExists: The folder holds a finished adapter, or checkpoints of another run.
        InvalidInput: Nothing would be learnt, or the checkpoint to go on from does not fit.
        OutOfMemory: Not even one example at a time fits.
        TrainingDiverged: The loss is not a number any more.
    """
    check_folder(plan.folder, plan.resume_from)
    if plan.resume_from is not None:
        check_resumable(plan.resume_from, plan)
    with quiet_libraries(lambda line: report.log(line, "DEBUG")):
        disable_progress_bars()
        inputs = _inputs(plan, report)
        batches: Batches | None = Batches(plan.spec.batch_size, plan.spec.gradient_accumulation_steps)
        resume = plan.resume_from
        while batches is not None:
            result = _train_unless_too_large(plan, inputs, batches, resume, report)
            if result is not None:
                return result
            _release_memory()
            batches = batches.halved()
            resume = newest_valid(plan.folder) or plan.resume_from
            if batches is not None:
                since = f"from {resume.name}" if resume else "from the start"
                report.warn(
                    f"out of memory; going on {since} with {batches.size} examples in a micro-batch "
                    f"and {batches.accumulation} micro-batches in a step"
                )
    raise OutOfMemory(f"training {plan.model_name} does not fit, not even one example at a time", OOM_REMEDY)


def _inputs(plan: TrainingPlan, report: Reporter) -> _Inputs:
    """Tokenizes everything; refuses data from which nothing would be learnt."""
    template = load_template(plan.model_path, plan.spec.prompt_format)
    limit = plan.spec.max_seq_length
    encoded = {
        name: encode_examples(template, examples, limit)
        for name, examples in (("training", plan.data.train), ("validation", plan.data.validation))
    }
    for name, rows in encoded.items():
        check_learnable(rows, template, limit, name)
        for line in length_warnings(rows, limit, name):
            report.warn(line)
    return _Inputs(template, encoded["training"], encoded["validation"], hardware(plan.devices))


def _train_unless_too_large(
    plan: TrainingPlan, inputs: _Inputs, batches: Batches, resume: Path | None, report: Reporter
) -> TrainingResult | None:
    """Trains once; None when memory did not suffice."""
    try:
        return _train_once(plan, inputs, batches, resume, report)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        report.log(f"{error}", "DEBUG")
        return None


def _train_once(
    plan: TrainingPlan, inputs: _Inputs, batches: Batches, resume: Path | None, report: Reporter
) -> TrainingResult:
    started = time.monotonic()
    report.log(f"loading {plan.model_name}")
    model = load_base(plan.model_path, plan.spec, inputs.hardware)
    with report.phase("training", "step", batches.steps(len(inputs.train.rows), plan.spec.epochs)) as steps:
        steps.start_at(step_of(resume) if resume else 0)
        trainer = _trainer(plan, inputs, batches, model, report=report, steps=steps)
        metrics = trainer.train(resume_from_checkpoint=str(resume) if resume else None).metrics
    best = trainer.state.best_model_checkpoint or ""
    evaluation = _best_evaluation(trainer.state.log_history, trainer.state.best_global_step)
    result = TrainingResult(
        adapter=plan.folder / FINAL,
        best_checkpoint=Path(best).name,
        train_loss=metrics["train_loss"],
        eval_loss=evaluation["eval_loss"],
        steps=trainer.state.global_step,
        seconds=round(time.monotonic() - started, 2),
        tokens=int(max((entry.get("num_tokens", 0) for entry in trainer.state.log_history), default=0)),
        batch_size=batches.size,
        gradient_accumulation_steps=batches.accumulation,
    )
    summary = {**asdict(result), "adapter": FINAL}
    _publish(plan, inputs, trainer.model, {**metrics, **summary}, evaluation)
    report.artifact("adapter", describe(result.adapter))
    return result


def _trainer(
    plan: TrainingPlan, inputs: _Inputs, batches: Batches, model: PreTrainedModel, report: Reporter, steps: Counter
) -> AdapterTrainer:
    tokenizer = inputs.template.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    trainer = AdapterTrainer(
        model=model,
        args=_arguments(plan, inputs, batches),
        train_dataset=_dataset(inputs.train),
        eval_dataset=_dataset(inputs.validation, by_length=True),
        processing_class=tokenizer,
        data_collator=DataCollatorForLanguageModeling(pad_token_id=pad or 0),
        peft_config=lora_config(plan.spec),
        folder=plan.folder,
        report=report,
        steps=steps,
        order=StepOrder([len(row.ids) for row in inputs.train.rows], batches.per_step, plan.spec.seed),
    )
    trainer.remove_callback(PrinterCallback)
    adapted: Any = trainer.model
    adapter = adapted.peft_config["default"]
    adapter.base_model_name_or_path, adapter.revision = plan.model_name, plan.revision
    return trainer


def _arguments(plan: TrainingPlan, inputs: _Inputs, batches: Batches) -> SFTConfig:
    spec, on = plan.spec, inputs.hardware
    total = batches.steps(len(inputs.train.rows), spec.epochs)
    every = intervals(total, spec.eval_steps, spec.save_steps)
    return SFTConfig(
        output_dir=str(plan.folder),
        num_train_epochs=spec.epochs,
        per_device_train_batch_size=batches.size,
        per_device_eval_batch_size=max(batches.size, _LEAST_EVALUATION_BATCH),
        gradient_accumulation_steps=batches.accumulation,
        learning_rate=spec.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(total * spec.warmup_ratio),
        eval_strategy="steps",
        eval_steps=every.evaluate,
        save_strategy="steps",
        save_steps=every.save,
        save_total_limit=KEPT_CHECKPOINTS,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        activation_checkpointing=not on.on_cpu,
        bf16=on.dtype == torch.bfloat16,
        fp16=on.dtype == torch.float16,
        use_cpu=on.on_cpu,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        disable_tqdm=True,
        report_to=list(spec.report_to) or "none",
        run_name=plan.folder.name,
        seed=spec.seed,
    )


def _dataset(rows: EncodedSet, by_length: bool = False) -> Dataset:
    """What TRL takes: ids and labels. By length where order does not matter, which saves padding."""
    ordered = sorted(rows.rows, key=lambda row: len(row.ids)) if by_length else rows.rows
    return Dataset.from_dict({"input_ids": [row.ids for row in ordered], "labels": [row.labels for row in ordered]})


def _best_evaluation(history: list[dict[str, float]], best_step: int | None) -> dict[str, float]:
    """The evaluation of the best checkpoint; the last one where none was marked."""
    evaluations = [entry for entry in history if "eval_loss" in entry]
    return next((entry for entry in evaluations if entry["step"] == best_step), evaluations[-1])


def _publish(
    plan: TrainingPlan, inputs: _Inputs, model: Any, train_results: dict[str, Any], evaluation: dict[str, float]
) -> None:
    """Writes the two result files, then `final`: where that is, the others are."""
    for name, content in (("train_results.json", train_results), ("eval_results.json", evaluation)):
        with publishing(plan.folder / name) as partial:
            partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    with publishing_folder(plan.folder / FINAL) as partial:
        save_adapter(model, partial)
        carry_tokenizer(plan.model_path, partial, inputs.template.tokenizer)
        probes = json.dumps(probe_questions(plan.data, plan.spec.seed), indent=2, ensure_ascii=False)
        (partial / PROBE_QUESTIONS).write_text(probes + "\n", encoding="utf-8")


def _release_memory() -> None:
    """Gives back what a run that failed still holds."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
