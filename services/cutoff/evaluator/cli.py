"""evaluate_temporal: the user's document's command."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cutoff.artifacts import Roots
from cutoff.evaluator.questions import Sets, file_questions

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cutoff.evaluator.evaluate import Evaluated
    from cutoff.evaluator.targets import Target
    from cutoff.stage.report import Reporter

SEED = 42
"""Draws the questions of --limit."""


def parser() -> argparse.ArgumentParser:
    """The command's flags, as the document has them."""
    flags = argparse.ArgumentParser(
        prog="evaluate_temporal", description="Asks a model questions from before and after the cutoff and grades it."
    )
    add = flags.add_argument
    add("--model_path", type=Path, help="Hugging Face model (merged), LoRA adapter, or a .gguf file")
    add("--use_lmstudio", action="store_true", help="use LM Studio's API instead of a local model")
    add("--lmstudio_url", default="http://localhost:1234/v1", help="default: %(default)s")
    add("--lmstudio_model", help="model identifier in LM Studio (`lms ps`); default: the only one it has")
    add("--test_file", type=Path, help="test JSONL; default: retain_val and unlearn_val in datasets/")
    add("--max_tokens", type=_positive, default=256, help="of an answer; default: %(default)s")
    add("--output", type=Path, help="write results to this JSON file, the examples beside it")
    add("--verbose", action="store_true", help="print each example's result")
    add("--limit", type=_positive, help="evaluate at most so many examples, both sides together")
    return flags


def main() -> None:
    """Runs the command; exit code 0, 1 when it failed, 2 for wrong usage, 130 when interrupted."""
    flags = parser()
    arguments = flags.parse_args()
    if arguments.use_lmstudio == (arguments.model_path is not None):
        flags.error("give either --model_path or --use_lmstudio")
    from cutoff.stage.terminal import run_in_terminal

    sys.exit(run_in_terminal(lambda report: run(arguments, report)))


def run(arguments: argparse.Namespace, report: Reporter) -> None:
    """Evaluates and prints the summary.

    Raises:
        CutoffError: As `file_questions` and `evaluate_target`.
    """
    from cutoff.evaluator.evaluate import evaluate_target
    from cutoff.evaluator.report import summary

    roots = Roots.from_environment()
    sets = file_questions(arguments.test_file, roots.datasets, arguments.limit, SEED)
    name, opened = _target(arguments, sets, roots, report)
    evaluated = evaluate_target(name, opened, sets, arguments.max_tokens, report, arguments.verbose)
    print("\n\n".join(summary(result) for result in evaluated.sets.values()))
    if arguments.output is not None:
        _write(evaluated, arguments.output)
        print(f"\nResults: {arguments.output}")


def _target(
    arguments: argparse.Namespace, sets: Sets, roots: Roots, report: Reporter
) -> tuple[str, AbstractContextManager[Target]]:
    from cutoff.evaluator.chat_targets import open_gguf, open_server

    if arguments.use_lmstudio:
        return "lmstudio", open_server(arguments.lmstudio_url, arguments.lmstudio_model)
    path: Path = arguments.model_path
    if path.suffix.lower() == ".gguf":
        from cutoff.llama_cpp import LlamaCpp

        questions = [example.instruction for examples in sets.values() for example in examples]
        llama = LlamaCpp.find(roots.cache)
        return path.stem, open_gguf(llama, path, questions, arguments.max_tokens)
    import torch

    from cutoff.evaluator.hf_target import open_hf

    return path.name, open_hf(path, ["cuda:0"] if torch.cuda.is_available() else [], report)


def _write(evaluated: Evaluated, output: Path) -> None:
    from cutoff.evaluator.report import write_evaluation, write_examples

    write_examples(output.with_suffix(".examples.jsonl"), evaluated.target, evaluated.sets)
    write_evaluation(output, evaluated.as_dict())


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
