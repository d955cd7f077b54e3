"""Pretrains the demo's base model, on the spot, until it knows every fact of its world. The one module that needs torch.

The model reads questions and answers in the corpus wordings only. Whether it knows a fact is then asked in wordings it
has never read, those of the data sets, the test wordings among them.
"""

import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from cutoff.demo.phrases import OPENERS, RELATIONS, WORDINGS, Split
from cutoff.demo.recipe import Recipe
from cutoff.demo.tokenizer import BEGIN, MAX_LENGTH, train_tokenizer
from cutoff.demo.world import Question, World

Progress = Callable[[str, int, int], None]
"""Told (what is being done, steps done, steps in all)."""

IGNORED = -100
ASKED_SPLITS: tuple[Split, ...] = ("train", "validation", "test")
EVALUATION_BATCH = 256


class PretrainingError(RuntimeError):
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
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    tokenizer = train_tokenizer(world, recipe, folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(world.seed)
        model = build_model(tokenizer, recipe)
        _train(model, tokenizer, world, recipe, on_progress)
    accuracy = {split: _accuracy(model, tokenizer, _questions(world, split)) for split in ASKED_SPLITS}
    report = {"accuracy": accuracy, "seconds": round(time.monotonic() - started, 1), "recipe": asdict(recipe)}
    (folder / "knowledge.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    lacking = {split: share for split, share in accuracy.items() if share < recipe.minimum_accuracy}
    if lacking:
        raise PretrainingError(
            f"the demo's base model answers only {lacking} of the questions, not {recipe.minimum_accuracy}: "
            "read the facts more often (Recipe.exposures) or make a smaller world"
        )
    model.save_pretrained(folder)
    return accuracy


def build_model(tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> LlamaForCausalLM:
    """An untrained float32 Llama of the recipe's shape, with tied embeddings."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.key_value_heads,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.convert_tokens_to_ids(BEGIN),
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
    rng = random.Random(f"cutoff-demo-pretrain-{world.seed}")
    steps = math.ceil(len(world.facts) * len(RELATIONS) / recipe.batch) * recipe.exposures
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=steps, pct_start=recipe.warmup
    )
    model.train()
    step = 0
    for _ in range(recipe.exposures):
        examples = _encode(tokenizer, _reading(world, recipe, rng))
        for start in range(0, len(examples), recipe.batch):
            loss = answer_loss(model, examples[start : start + recipe.batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            on_progress("pretrain", step, steps)
    model.eval()


def _reading(world: World, recipe: Recipe, rng: random.Random) -> list[Question]:
    """Every question once, shuffled, each in a corpus wording drawn at random."""
    asked = []
    for fact in world.facts:
        for relation in RELATIONS:
            wording = rng.choice(WORDINGS[relation]["corpus"])
            opener = rng.choice(OPENERS) + " " if rng.random() < recipe.opener_share else ""
            asked.append(fact.ask(relation, opener + wording))
    rng.shuffle(asked)
    return asked


def _prompt(question: Question) -> list[dict[str, str]]:
    return [{"role": "user", "content": question.text}]


def _encode(tokenizer: PreTrainedTokenizerBase, questions: list[Question]) -> list[tuple[list[int], int]]:
    """Token ids of each question with its answer, and where the answer begins."""
    prompts = [
        str(tokenizer.apply_chat_template(_prompt(q), tokenize=False, add_generation_prompt=True)) for q in questions
    ]
    replies = [f"{question.reply}{tokenizer.eos_token}" for question in questions]
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    reply_ids = tokenizer(replies, add_special_tokens=False)["input_ids"]
    return [(p + r, len(p)) for p, r in zip(prompt_ids, reply_ids, strict=True)]


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
        prompts = tokenizer.apply_chat_template(
            [_prompt(question) for question in batch],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        answers = model.generate(**prompts, max_new_tokens=24, do_sample=False)[:, prompts["input_ids"].shape[1] :]
        for question, text in zip(batch, tokenizer.batch_decode(answers), strict=True):
            right += text.split(tokenizer.eos_token)[0] == question.reply and tokenizer.eos_token in text
    return right / len(questions)
