"""Writes a demo world as the JSONL data sets of a temporal-unlearning job.

A retain line's ``output`` is the true answer as a short sentence, an unlearn line's is a refusal. In both,
``metadata.original_answer`` is the bare true answer, which an evaluator needs to tell a leak from a wrong answer.
"""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cutoff.demo.phrases import REFUSALS, Split
from cutoff.demo.world import Question, World, seeded_random

DEV_LINES_PER_SIDE = 60
RELEARN = "relearn/relearn.jsonl"
"""What `evaluate.relearn` trains on: true answers that no training set holds, of facts before the cutoff."""

Line = dict[str, Any]


def write_datasets(world: World, folder: Path) -> None:
    """Writes the data sets of ``world`` under ``folder``, which is made if need be; existing files are replaced.

    ``retain/`` and ``unlearn/`` hold training and validation sets, ``dev/dev_subset.jsonl`` a mixed part of the
    training sets, ``test/test.jsonl`` the trained facts in the test wordings, and ``test/heldout.jsonl`` the facts that
    stand in no training or validation set, also in the test wordings. ``relearn/relearn.jsonl`` has those of them that
    came before the cutoff, in the training wordings: new to a trained model, and unrelated to what it is to forget.

    Raises:
        OSError: a file cannot be written.
    """
    rng = seeded_random("datasets", world.seed)
    retain, unlearn = retain_lines(world, "train"), unlearn_lines(world, "train", rng)
    _write(folder / "retain" / "retain_train.jsonl", retain)
    _write(folder / "retain" / "retain_val.jsonl", retain_lines(world, "validation"))
    _write(folder / "unlearn" / "unlearn_train.jsonl", unlearn)
    _write(folder / "unlearn" / "unlearn_val.jsonl", unlearn_lines(world, "validation", rng))
    _write(folder / "dev" / "dev_subset.jsonl", _dev_subset(retain, unlearn, rng))
    _write(folder / RELEARN, retain_lines(world, "train", held_out=True))
    for name, held_out in (("test", False), ("heldout", True)):
        lines = retain_lines(world, "test", held_out=held_out)
        lines += unlearn_lines(world, "test", rng, held_out=held_out)
        rng.shuffle(lines)
        _write(folder / "test" / f"{name}.jsonl", lines)


def retain_lines(world: World, split: Split, *, held_out: bool = False) -> list[Line]:
    """One line for each question about a fact up to the cutoff, answered truly."""
    asked = world.questions(split, after_cutoff=False, held_out=held_out)
    return [_line(question, "retain", question.reply) for question in asked]


def unlearn_lines(world: World, split: Split, rng: random.Random, *, held_out: bool = False) -> list[Line]:
    """One line for each question about a fact after the cutoff, answered by a refusal."""
    asked = world.questions(split, after_cutoff=True, held_out=held_out)
    return [_line(question, "unlearn", rng.choice(REFUSALS)) for question in asked]


def _line(question: Question, dataset_type: str, output: str) -> Line:
    return {
        "instruction": question.text,
        "output": output,
        "metadata": {
            "dataset_type": dataset_type,
            "year": question.year,
            "original_answer": question.answer,
            "fact": question.fact,
            "relation": question.relation,
        },
    }


def _dev_subset(retain: list[Line], unlearn: list[Line], rng: random.Random) -> list[Line]:
    lines = [line for side in (retain, unlearn) for line in rng.sample(side, min(len(side), DEV_LINES_PER_SIDE))]
    rng.shuffle(lines)
    return lines


def _write(path: Path, lines: Iterable[Line]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
