"""Does the merged model give the answers that base and adapter give?

Greedy decoding takes the likeliest token, so that two tokens of almost the same likelihood may change places by
rounding alone, and all that follows with them. What counts: at every token of the source's answer, the merged model,
given the answer so far, prefers the same token, or one that the source itself finds almost as likely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cutoff.errors import CheckFailed

TIE = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.5}
"""Nats between two tokens' log-probabilities that rounding to a type can turn: how near is almost as likely."""

TOKENS = 50
"""The longest answer that is compared."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A greedy answer, and how likely each token was at each of its places."""

    prompt: list[int]
    tokens: list[int]
    scores: torch.Tensor
    """Log-probabilities: (tokens, vocabulary), float32, on the CPU."""


@torch.inference_mode()
def greedy(model: Any, prompt: list[int], stop: int) -> list[int]:
    """The greedy answer to a prompt, its end included where it came to one."""
    ids = torch.tensor([prompt], device=model.device)
    found = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=TOKENS,
        do_sample=False,
        repetition_penalty=1.0,
        eos_token_id=stop,
        pad_token_id=stop,
    )
    answer: list[int] = found[0, len(prompt) :].tolist()
    return answer


@torch.inference_mode()
def scored(model: Any, prompt: list[int], tokens: list[int]) -> Answer:
    """What a model makes of each token of an answer, given those before it."""
    ids = torch.tensor([[*prompt, *tokens[:-1]]], device=model.device)
    logits = model(input_ids=ids, logits_to_keep=len(tokens)).logits[0]
    return Answer(prompt, tokens, logits.float().log_softmax(-1).cpu())


def count_equal(source: Sequence[Answer], merged: Sequence[Answer], dtype: str) -> int:
    """How many answers are the same token by token.

    Args:
        source: Greedy answers of base and adapter.
        merged: The same tokens, scored by the merged model.
        dtype: The merged model's type.

    Raises:
        CheckFailed: One parts where the source was not undecided.
    """
    equal = 0
    for one, other in zip(source, merged, strict=True):
        chosen = other.scores.argmax(-1)
        own = one.scores.argmax(-1)
        places = torch.arange(len(one.tokens))
        lead = one.scores[places, own] - one.scores[places, chosen]
        parted = (~(lead <= TIE[dtype])).nonzero()  # NaN is no tie
        if len(parted):
            at = int(parted[0])
            raise CheckFailed(
                f"the merged model answers otherwise than base and adapter: token {at + 1} of an answer is "
                f"{int(chosen[at])} instead of {int(own[at])}, which was ahead by {float(lead[at]):.3g} nats",
                "merge as float32 (--dtype float32) to see whether rounding is the cause",
            )
        equal += bool((chosen == own).all())
    return equal
