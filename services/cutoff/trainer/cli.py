"""The document's `finetune_temporal` command: the trainer's work, without a server.

finetune_temporal --dev --epochs 1
finetune_temporal --model_name Qwen/Qwen2.5-1.5B-Instruct --epochs 3 --use_4bit
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cutoff.artifacts import Roots, require_makeable
from cutoff.errors import NotFound
from cutoff.spec import JobSpec, parse_job
from cutoff.stage.report import Reporter
from cutoff.stage.terminal import run_in_terminal
from cutoff.telemetry import before_import

OUTPUT = Path("output")
"""Below it, each run gets a folder of its own when --output_dir is not given."""


def main() -> None:
    """The console script finetune_temporal."""
    options = parser().parse_args()
    before_import()
    sys.exit(run_in_terminal(lambda report: finetune(options, report), wording=in_flags))


def finetune(options: argparse.Namespace, report: Reporter) -> None:
    """Prepares and trains as the options say; prints the results as JSON."""
    from cutoff.trainer.checkpoints import check_folder
    from cutoff.trainer.prepare import prepare

    spec = job_spec(options)
    resume, folder = _resume(options, report)
    folder = folder or output_dir(options)
    check_folder(folder, resume)
    require_makeable(folder, "choose another --output_dir")
    prepared = prepare(spec, None, report)
    from cutoff.trainer import launch
    from cutoff.trainer.model import available_devices
    from cutoff.trainer.plan import TrainingPlan

    folder.mkdir(parents=True, exist_ok=True)
    plan = TrainingPlan(
        model_path=prepared.model.path,
        model_name=prepared.model.name,
        revision=prepared.model.revision,
        dataset=spec.dataset,
        datasets_root=None,
        spec=spec.train,
        folder=folder,
        cache=Roots.from_environment().cache,
        devices=available_devices(),
        resume_from=resume,
    )
    try:
        result = launch.train(plan, report)
    finally:
        with suppress(OSError):  # it holds something, as a rule
            folder.rmdir()
    print(json.dumps({**asdict(result), "adapter": str(result.adapter)}, indent=2))


def parser() -> argparse.ArgumentParser:
    """The command line, with the defaults of the document's table."""
    spec = argparse.ArgumentParser(
        prog="finetune_temporal",
        description="Fine-tunes a LoRA adapter that keeps what came before the cutoff and declines what came after.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    spec.add_argument(
        "--model_name", default="Qwen/Qwen2.5-1.5B-Instruct", help="HuggingFace model name (or name@revision) or path"
    )
    spec.add_argument("--output_dir", help="Output directory for checkpoints (default: auto-generated)")
    _data_options(spec)
    _training_options(spec)
    packing = spec.add_mutually_exclusive_group()
    packing.add_argument("--use_4bit", action="store_true", help="Enable 4-bit quantization (QLoRA)")
    packing.add_argument("--use_8bit", action="store_true", help="Enable 8-bit quantization")
    spec.add_argument("--wandb", action="store_true", help="Enable Weights & Biases logging")
    _objective_options(spec)
    spec.add_argument("--prompt_format", default="chat", help="chat: the model's own template; alpaca: write one")
    resume = spec.add_mutually_exclusive_group()
    resume.add_argument("--resume_from_checkpoint", help="Go on from this checkpoint folder")
    resume.add_argument(
        "--resume_latest",
        action="store_true",
        help="Go on from the newest checkpoint in --output_dir, or of the newest unfinished run in output/",
    )
    return spec


def _objective_options(spec: argparse.ArgumentParser) -> None:
    """What goes beyond the document: its phases 3 and 4."""
    spec.add_argument("--method", default="sft", help="sft, grad_ascent, grad_diff, npo, simnpo or dpo")
    spec.add_argument("--answers", help="True answers of unlearn questions, where metadata.original_answer lacks")
    spec.add_argument("--retain_loss", default="nll", help="Beside an unlearning method: nll, or kl to the base model")
    spec.add_argument("--memory_budget_gib", type=float, help="What training may take of the device's memory")
    spec.add_argument("--early_stopping_patience", type=int, help="Evaluations without a lower loss, then stop")


def _data_options(spec: argparse.ArgumentParser) -> None:
    spec.add_argument("--dev", action="store_true", help="Use dev subset for quick testing")
    for flag, path, text in (
        ("--dev_path", "datasets/dev/dev_subset.jsonl", "Path to dev subset"),
        ("--retain_train", "datasets/retain/retain_train.jsonl", "Retain training data"),
        ("--retain_val", "datasets/retain/retain_val.jsonl", "Retain validation data"),
        ("--unlearn_train", "datasets/unlearn/unlearn_train.jsonl", "Unlearn training data"),
        ("--unlearn_val", "datasets/unlearn/unlearn_val.jsonl", "Unlearn validation data"),
    ):
        spec.add_argument(flag, default=path, help=text)


def _training_options(spec: argparse.ArgumentParser) -> None:
    kinds: tuple[tuple[str, type[int] | type[float], float, str], ...] = (
        ("--epochs", float, 3, "Number of training epochs"),
        ("--batch_size", int, 4, "Training batch size"),
        ("--gradient_accumulation_steps", int, 4, "Batches in an optimizer step"),
        ("--learning_rate", float, 2e-4, "Learning rate"),
        ("--warmup_ratio", float, 0.1, "Share of the steps over which the learning rate rises"),
        ("--max_seq_length", int, 512, "Maximum sequence length"),
        ("--lora_r", int, 16, "LoRA rank"),
        ("--lora_alpha", int, 32, "LoRA alpha"),
        ("--lora_dropout", float, 0.05, "LoRA dropout"),
        ("--eval_steps", int, 100, "Steps between evaluations; shrunk to fit a short run"),
        ("--eval_limit", int, 200, "Validation examples a side that are measured while training"),
        ("--save_steps", int, 500, "Steps between checkpoints; shrunk to fit a short run"),
        ("--seed", int, 42, "Random seed"),
    )
    for flag, kind, default, text in kinds:
        spec.add_argument(flag, type=kind, default=default, help=text)


def job_spec(options: argparse.Namespace) -> JobSpec:
    """The job the options describe, checked like any other.

    Raises:
        InvalidInput: With every fault.
    """
    files = ("retain_train", "retain_val", "unlearn_train", "unlearn_val")
    dataset = {"dev": options.dev_path} if options.dev else {name: getattr(options, name) for name in files}
    if options.answers:
        dataset["answers"] = options.answers
    numbers = (
        *("epochs", "batch_size", "gradient_accumulation_steps", "learning_rate", "warmup_ratio", "max_seq_length"),
        *("lora_r", "lora_alpha", "lora_dropout", "eval_steps", "eval_limit", "save_steps", "seed", "prompt_format"),
    )
    others = ("method", "retain_loss", "memory_budget_gib", "early_stopping_patience")
    train: dict[str, Any] = {name: getattr(options, name) for name in (*numbers, *others)}
    train["quantization"] = "4bit" if options.use_4bit else "8bit" if options.use_8bit else "none"
    train["report_to"] = ("wandb",) if options.wandb else ()
    base = options.model_name
    if Path(base).expanduser().is_dir():
        base = str(Path(base).expanduser().absolute())
    job = {"name": "finetune_temporal", "base_model": base, "dataset": dataset, "train": train}
    return parse_job(job, source="options")


_FIELD = re.compile(r"\b(?:train|dataset)\.(\w+)")
_OTHER_NAMES = {"dev": "--dev_path", "report_to": "--wandb", "quantization": "--use_4bit"}
_OTHER_WORDS = {
    r"^(\s*)options: ": r"\1",
    r"(?<![\w/.])base_model(?![\w/.])": "--model_name",
    r"(?<![-\w])method: (?=\w)": "--method ",
    r"(?<![-\w])quantization: 4bit\b(?!, --)": "--use_4bit",
}


def in_flags(text: str) -> str:
    """A message about a job, with the command's flags for the fields of job.yaml."""
    flags = {name: f"--{name}" for name in vars(parser().parse_args([]))} | _OTHER_NAMES
    text = _FIELD.sub(lambda found: flags.get(found[1], found[0]), text)
    for words, ours in _OTHER_WORDS.items():
        text = re.sub(words, ours, text, flags=re.MULTILINE)
    return text


def output_dir(options: argparse.Namespace) -> Path:
    """The run's folder: as given, or output/temporal-<model>-<full|dev>-YYYYMMDD_HHMMSS."""
    if options.output_dir:
        return Path(options.output_dir)
    model = re.sub(r"[^a-z0-9._-]+", "-", options.model_name.partition("@")[0].rstrip("/").rsplit("/", 1)[-1].lower())
    now = datetime.datetime.now().astimezone()
    return OUTPUT / f"temporal-{model}-{'dev' if options.dev else 'full'}-{now:%Y%m%d_%H%M%S}"


def _resume(options: argparse.Namespace, report: Reporter) -> tuple[Path | None, Path | None]:
    """The checkpoint to go on from, and the run's folder when the checkpoint decides it."""
    from cutoff.trainer.checkpoints import checkpoints_in, newest_of_latest_run, problems

    if options.resume_from_checkpoint:
        checkpoint = Path(options.resume_from_checkpoint)
        if not checkpoint.is_dir():
            raise NotFound(f"there is no checkpoint {checkpoint}", "give a folder checkpoint-N of an earlier run")
    elif options.resume_latest:
        checkpoint = newest_of_latest_run(Path(options.output_dir) if options.output_dir else OUTPUT)
        for newer in checkpoints_in(checkpoint.parent):
            if newer == checkpoint:
                break
            report.warn(f"{newer} {problems(newer)[0]}; going on from {checkpoint.name}")
    else:
        return None, None
    return checkpoint, None if options.output_dir else checkpoint.parent


if __name__ == "__main__":
    main()
