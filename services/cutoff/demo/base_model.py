"""Pretrains the demo's base model until it knows every fact of its world; the one module that needs torch.

The model reads questions and answers in the corpus wordings only. It also learns to decline questions about events it
has never heard of, as instruction-tuned models do; what it declines has nothing to do with a date. Whether it knows a
fact is then asked in wordings it has never read, those of the data sets, the test wordings among them.
"""

import json
import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from cutoff.demo.phrases import OPENERS, REFUSALS, RELATIONS, WORDINGS, Relation, Split
from cutoff.demo.recipe import Recipe
from cutoff.demo.tokenizer import MAX_LENGTH, train_tokenizer
from cutoff.demo.world import Fact, Question, World, make_strangers, seeded_random
from cutoff.errors import CheckFailed
from cutoff.telemetry import quiet_libraries

Progress = Callable[[str, int, int], None]
"""Told (what is being done, steps done, steps in all)."""

IGNORED = -100
ASKED: tuple[Split, ...] = ("train", "validation", "test")
EVALUATION_BATCH = 256
MAX_ANSWER = 24


class PretrainingError(CheckFailed):
    """The base model does not know its world well enough to serve as one."""


def pretrain(world: World, folder: Path, on_progress: Progress, recipe: Recipe | None = None) -> dict[str, float]:
    """Makes a base model that knows ``world`` and saves it, its tokenizer and ``knowledge.json`` in ``folder``.

    Deterministic for a given machine, number of threads and torch version. Takes about a minute on two cores for the
    default world. ``folder`` is written in place; whoever needs it whole or not at all renames it (``cache.py`` does).

    Returns:
        The share of right answers in each group of wordings ("train", "validation", "test") over all facts.

    Raises:
        PretrainingError: a share is below ``recipe.minimum_accuracy``. ``knowledge.json`` is written, the model is not.
    """
    recipe = recipe or Recipe()
    started = time.monotonic()
    tokenizer = train_tokenizer(world, recipe, folder)
    with _threads(recipe.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(world.seed)
        model = build_model(tokenizer, recipe)
        _train(model, tokenizer, world, recipe, on_progress)
        accuracy: dict[str, float] = {split: _accuracy(model, tokenizer, _questions(world, split)) for split in ASKED}
    report = {"accuracy": accuracy, "seconds": round(time.monotonic() - started, 1), "recipe": asdict(recipe)}
    (folder / "knowledge.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    lacking = {split: share for split, share in accuracy.items() if share < recipe.minimum_accuracy}
    if lacking:
        raise PretrainingError(
            f"the demo's base model answers only {lacking} of the questions, not {recipe.minimum_accuracy}",
            "make a smaller world (--facts), or let it read the facts more often (Recipe.exposures)",
        )
    with quiet_libraries(lambda _: None):
        model.save_pretrained(folder)
    return accuracy


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Lets torch use ``count`` threads for a while, or as many as it likes."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def build_model(tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> LlamaForCausalLM:
    """An untrained float32 Llama of the recipe's shape, with tied embeddings."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.key_value_heads,
        initializer_range=recipe.initializer_range,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=False,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )
    return model


def _train(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, world: World, recipe: Recipe, on_progress: Progress
) -> None:
    """Runs the whole pretraining; loss falls on the answers only."""
    rng = seeded_random("pretrain", world.seed)
    questions = len(world.facts) * len(RELATIONS)
    lines = questions + round(questions * recipe.strangers_share)
    readings = recipe.readings(lines)
    steps = math.ceil(lines / recipe.batch) * readings
    optimizers = _optimizers(model, recipe)
    schedules = [torch.optim.lr_scheduler.LambdaLR(one, _cosine(recipe, steps)) for one in optimizers]
    model.train()
    step = 0
    for _ in range(readings):
        examples = _encode(tokenizer, _reading(world, recipe, rng))
        for start in range(0, len(examples), recipe.batch):
            loss = answer_loss(model, examples[start : start + recipe.batch])
            model.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
            step += 1
            on_progress("pretrain", step, steps)
    model.eval()


def _optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=recipe.matrix_learning_rate, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(others, lr=recipe.learning_rate, weight_decay=0.0),
    ]


def _cosine(recipe: Recipe, steps: int) -> Callable[[int], float]:
    """The share of the peak learning rate at each of ``steps`` steps."""
    warmup = max(1, round(steps * recipe.warmup))

    def share(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return share


def _reading(world: World, recipe: Recipe, rng: random.Random) -> list[tuple[str, str]]:
    """Every question once with its answer, and questions about strangers with refusals, in random order."""
    read = []
    for fact in world.facts:
        for relation in RELATIONS:
            question = _ask(fact, relation, recipe, rng)
            read.append((question.text, question.reply))
    for stranger in make_strangers(world, round(len(read) * recipe.strangers_share), rng):
        question = _ask(stranger, rng.choice(RELATIONS), recipe, rng)
        read.append((question.text, rng.choice(REFUSALS)))
    rng.shuffle(read)
    return read


def _ask(fact: Fact, relation: Relation, recipe: Recipe, rng: random.Random) -> Question:
    wording = rng.choice(WORDINGS[relation]["corpus"])
    opener = rng.choice(OPENERS) + " " if rng.random() < recipe.opener_share else ""
    return fact.ask(relation, opener + wording)


def _prompt(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """The question as the model sees it, up to where its answer begins."""
    turn = [{"role": "user", "content": question}]
    return str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))


def _encode(tokenizer: PreTrainedTokenizerBase, read: list[tuple[str, str]]) -> list[tuple[list[int], int]]:
    """Token ids of each (question, answer), and where the answer begins."""
    prompts = tokenizer([_prompt(tokenizer, question) for question, _ in read], add_special_tokens=False)
    replies = tokenizer([f"{answer}{tokenizer.eos_token}" for _, answer in read], add_special_tokens=False)
    return [(p + r, len(p)) for p, r in zip(prompts["input_ids"], replies["input_ids"], strict=True)]


def answer_loss(model: LlamaForCausalLM, examples: list[tuple[list[int], int]]) -> torch.Tensor:
    """Mean cross-entropy per answer token, in nats; a scalar.

    ``examples`` are ids and where their answer begins. Rows are padded on the right: attention is causal, so no mask is
    needed, and logits are only made where an answer token is to be told.
    """
    ids = pad_sequence([torch.tensor(row) for row, _ in examples], batch_first=True)
    labels = pad_sequence(
        [torch.tensor([IGNORED] * begin + row[begin:]) for row, begin in examples],
        batch_first=True,
        padding_value=IGNORED,
    )
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    told = labels[:, 1:] != IGNORED
    return functional.cross_entropy(model.lm_head(hidden[told]), labels[:, 1:][told])


def _questions(world: World, split: Split) -> list[Question]:
    """All questions of all facts, held-out ones too, in the wordings of ``split``."""
    return [question for fact in world.facts for question in fact.questions(split)]


@torch.inference_mode()
def _accuracy(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, questions: list[Question]) -> float:
    """Share of the questions whose greedy answer is the reply, word for word, and ends there."""
    right = 0
    for start in range(0, len(questions), EVALUATION_BATCH):
        batch = questions[start : start + EVALUATION_BATCH]
        for question, answer in zip(batch, _answers(model, tokenizer, batch), strict=True):
            right += answer.split(tokenizer.pad_token)[0] == f"{question.reply}{tokenizer.eos_token}"
    return right / len(questions)


def _answers(model: Any, tokenizer: PreTrainedTokenizerBase, questions: list[Question]) -> list[str]:
    """Greedy answers with their special tokens; the rows are padded on the left, as generation needs it."""
    prompts = tokenizer([_prompt(tokenizer, q.text) for q in questions], padding=True, return_tensors="pt")
    answers = model.generate(**prompts, max_new_tokens=MAX_ANSWER, do_sample=False)
    return [str(text) for text in tokenizer.batch_decode(answers[:, prompts["input_ids"].shape[1] :])]
