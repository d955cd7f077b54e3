"""How likely a Hugging Face model finds given answers, token by token (teacher forcing). Imports torch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from cutoff.datasets import PromptTemplate
from cutoff.errors import OutOfMemory
from cutoff.evaluator.memorization import Scored

BATCH = 32
"""Answers scored at once; halved when memory runs out."""


@torch.inference_mode()
def score_answers(
    model: PreTrainedModel, template: PromptTemplate, pairs: Sequence[tuple[str, str]], batch: int = BATCH
) -> list[Scored]:
    """Log-probabilities of answers, given their questions and the answer's own earlier tokens.

    Args:
        model: In evaluation mode, on the device it answers on.
        template: Renders prompts exactly as training did.
        pairs: (question, answer). The answer's tokens are what its rendering adds to the prompt's; the end of the turn
            is none of them.
        batch: How many are scored at once, the longest first.

    Returns:
        For each pair its tokens' log-probabilities (natural logarithm), and whether each is the most likely one.

    Raises:
        OutOfMemory: Not even one answer fits.
    """
    prompts = [f"{prompt}{template.lead}" for prompt in template.prompts([question for question, _ in pairs])]
    before = template.ids(prompts)
    full = template.ids([f"{prompt}{answer}" for prompt, (_, answer) in zip(prompts, pairs, strict=True)])
    starts = [_shared(one, other) for one, other in zip(before, full, strict=True)]
    left = sorted(range(len(full)), key=lambda index: len(full[index]), reverse=True)
    scored: dict[int, Scored] = {}
    while left:
        now = left[:batch]
        try:
            found = _score(model, [full[index] for index in now], [starts[index] for index in now])
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            if batch == 1:
                raise OutOfMemory(f"the device has no room for one answer: {error}", "take a smaller model") from error
            batch //= 2
            continue
        scored.update(zip(now, found, strict=True))
        left = left[len(now) :]
    return [scored[index] for index in range(len(full))]


def _score(model: PreTrainedModel, rows: Sequence[Sequence[int]], starts: Sequence[int]) -> list[Scored]:
    """Scores one batch. Padding is on the left, so that all answers end together and few logits are kept."""
    width = max(map(len, rows))
    longest = max(len(row) - start for row, start in zip(rows, starts, strict=True))
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    options = {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0), "logits_to_keep": longest + 1, "use_cache": False}
    forward: Any = model
    output = forward(input_ids=ids, attention_mask=mask, **_accepted(model, options))
    # Each position's logits (batch, longest, vocabulary) are about the token after it.
    logits, targets = output.logits[:, -longest - 1 : -1].float(), ids[:, width - longest :]
    chosen = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
    greedy = logits.argmax(-1) == targets
    sizes = [len(row) - start for row, start in zip(rows, starts, strict=True)]
    return [
        Scored(tuple(chosen[at, longest - size :].tolist()), tuple(greedy[at, longest - size :].tolist()))
        for at, size in enumerate(sizes)
    ]


def _accepted(model: PreTrainedModel, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options a model knows: recurrent ones have no positions, remote code may keep all logits."""
    of_base = getattr(model, "get_base_model", None)  # an adapter's own forward takes anything and passes it on
    known = inspect.signature((of_base() if of_base else model).forward).parameters
    return {name: value for name, value in options.items() if name in known}


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two rows begin with alike: the tokenizer may merge the prompt's end with the answer."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
