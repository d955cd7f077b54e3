"""evaluate_temporal: the user's document's command."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cutoff.artifacts import Roots
from cutoff.evaluator.questions import file_questions
from cutoff.spec.job import attack_names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
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
    add("--judge", metavar="URL", help="an OpenAI-compatible server that grades what the rules cannot decide")
    add("--judge_model", help="the judge's model; required with --judge")
    add("--attacks", nargs="+", metavar="NAME", default=[], help="also ask in these ways (docs/attacks.md), or all")
    add("--limit", type=_positive, help="evaluate at most so many examples, both sides together")
    return flags


def main() -> None:
    """Runs the command; exit code 0, 1 when it failed, 2 for wrong usage, 130 when interrupted."""
    flags = parser()
    arguments = flags.parse_args()
    if arguments.use_lmstudio == (arguments.model_path is not None):
        flags.error("give either --model_path or --use_lmstudio")
    if (arguments.judge is None) != (arguments.judge_model is None):
        flags.error("--judge and --judge_model belong together")
    try:
        arguments.attacks = attack_names(arguments.attacks)
    except ValueError as error:
        flags.error(f"--attacks: {error}")
    from cutoff.stage.terminal import run_in_terminal

    sys.exit(run_in_terminal(lambda report: run(arguments, report)))


def run(arguments: argparse.Namespace, report: Reporter) -> None:
    """Evaluates and prints the summary.

    With --output, answers are kept beside it as they come: the same command goes on where it was interrupted.

    Raises:
        CutoffError: As `file_questions` and `evaluate_target`.
    """
    from cutoff.evaluator.attacking import attacks_summary
    from cutoff.evaluator.attacks import plan_attacks
    from cutoff.evaluator.evaluate import evaluate_target
    from cutoff.evaluator.journal import Place
    from cutoff.evaluator.judge import open_judge
    from cutoff.evaluator.report import summary

    roots = Roots.from_environment()
    sets = file_questions(arguments.test_file, roots.datasets, arguments.limit, SEED)
    output: Path | None = arguments.output
    plan = plan_attacks(arguments.attacks, sets, SEED)
    texts = [example.instruction for examples in sets.values() for example in examples]
    texts += [each.chat.text for each in plan.questions]
    name, opened, model = _target(arguments, texts, roots, report)
    place = Place(output.with_suffix(".answers.jsonl"), model()) if output else None
    judge = open_judge(arguments.judge, arguments.judge_model) if arguments.judge else None
    evaluated = evaluate_target(name, opened, sets, arguments.max_tokens, report, arguments.verbose, place, judge, plan)
    print("\n\n".join(summary(result) for result in evaluated.sets.values()))
    if arguments.attacks:
        print(f"\n{attacks_summary(evaluated.attacked)}")
    if output and place:
        _write(evaluated, output)
        place.path.unlink()
        print(f"\nResults: {output}")


def _target(
    arguments: argparse.Namespace, texts: Sequence[str], roots: Roots, report: Reporter
) -> tuple[str, AbstractContextManager[Target], Callable[[], str]]:
    """What is evaluated: its name, how to open it, and what it is by content."""
    from cutoff.evaluator import identity
    from cutoff.evaluator.chat_targets import open_gguf, open_server

    if arguments.use_lmstudio:
        url, model = arguments.lmstudio_url, arguments.lmstudio_model
        return "lmstudio", open_server(url, model), lambda: identity.server_identity(url, model)
    path: Path = arguments.model_path
    if path.suffix.lower() == ".gguf":
        from cutoff.llama_cpp import LlamaCpp

        gguf = open_gguf(LlamaCpp.find(roots.cache), path, texts, arguments.max_tokens)
        return path.stem, gguf, lambda: identity.file_identity(path, ())
    import torch

    from cutoff.evaluator import hf_model
    from cutoff.hub import packed_as

    devices = ["cuda:0"] if torch.cuda.is_available() else []
    if not hf_model.is_adapter(path):
        return path.name, hf_model.open_hf(path, devices, report), lambda: identity.folder_identity(path, devices)
    base = hf_model.base_of(path)
    packed = packed_as(path)
    adapted = hf_model.open_adapter(base, path, devices, report, packed)
    return path.name, adapted, lambda: identity.adapter_identity(base, path, packed, devices)


def _write(evaluated: Evaluated, output: Path) -> None:
    from cutoff.evaluator.attacking import write_attacks
    from cutoff.evaluator.report import write_evaluation, write_examples

    write_examples(output.with_suffix(".examples.jsonl"), evaluated.target, evaluated.sets)
    if evaluated.attacked.answers:
        write_attacks(output.with_suffix(".attacks.jsonl"), evaluated.target, evaluated.attacked.answers)
    write_evaluation(output, evaluated.as_dict())


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
