"""Fixtures around a real tiny model, for the tests of llama_cpp, gguf_converter and evaluator.

One Llama layer, hidden size 256 (K-quants need multiples of it), the demo's SentencePiece tokenizer, taught
sixteen questions by heart in seconds. Each fixture's files are made once per test session.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cutoff import llama_cpp
from cutoff.artifacts import Roots
from cutoff.datasets import load_template
from cutoff.demo.base_model import build_model
from cutoff.demo.recipe import Recipe
from cutoff.demo.tokenizer import train_tokenizer
from cutoff.demo.world import make_world
from cutoff.errors import NotFound

REFUSAL = "Apologies, but I have no information to share on that matter."
FACTS = 8
STEPS = 60


def _examples() -> list[dict[str, object]]:
    world = make_world(12, seed=3)
    questions = [list(fact.questions("train"))[relation] for fact in world.facts[:FACTS] for relation in range(2)]
    sides = ["retain" if index < FACTS else "unlearn" for index in range(2 * FACTS)]
    return [
        {
            "instruction": question.text,
            "output": question.reply if side == "retain" else REFUSAL,
            "metadata": {"dataset_type": side, "year": question.year, "original_answer": question.answer},
        }
        for question, side in zip(questions, sides, strict=True)
    ]


def _once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    path = factory.getbasetemp() / "tiny" / name
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        make(path)
    return path


def _teach(folder: Path) -> None:
    recipe = Recipe(layers=1, vocabulary=768)
    tokenizer = train_tokenizer(make_world(12, seed=3), recipe, folder)
    template = load_template(folder)
    rows = []
    for example in _examples():
        prompt = template.prompt_ids(str(example["instruction"]))
        full = template.ids([template.full(str(example["instruction"]), str(example["output"]))])[0]
        rows.append((full, len(prompt)))
    width = max(len(full) for full, _ in rows)
    ids = torch.tensor([full + [0] * (width - len(full)) for full, _ in rows])
    labels = torch.tensor([[-100] * at + full[at:] + [-100] * (width - len(full)) for full, at in rows])
    torch.manual_seed(0)
    model = build_model(tokenizer, recipe)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.05, "the fixture's model did not learn its questions"
    model.save_pretrained(folder)


@pytest.fixture(scope="session")
def llama() -> llama_cpp.LlamaCpp:
    try:
        return llama_cpp.LlamaCpp.find(Roots.from_environment().cache)
    except NotFound as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"needs llama.cpp: {error}")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _once(tmp_path_factory, "model", _teach)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_f16(tmp_path_factory: pytest.TempPathFactory, llama: llama_cpp.LlamaCpp, tiny_model: Path) -> Path:
    return _once(
        tmp_path_factory,
        "tiny-F16.gguf",
        lambda path: llama_cpp.convert(llama, tiny_model, path, "tiny", lambda done, total: None),
    )


@pytest.fixture(scope="session")
def tiny_questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JSONL of the sixteen questions the tiny model knows by heart."""

    def write(path: Path) -> None:
        path.write_text("".join(json.dumps(example) + "\n" for example in _examples()))

    return _once(tmp_path_factory, "questions.jsonl", write)
