"""Is the merged model the adapter? Logits of both on the same prompts, and one answer to look at.

The first comparison is against the model that was trained (base plus adapter), the second thing compared is what
was written to the disk and read again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from cutoff.datasets import DOCUMENT_QUESTIONS, PromptTemplate
from cutoff.errors import CheckFailed
from cutoff.hub import PROBE_QUESTIONS
from cutoff.merger.loading import load_adapted, load_model
from cutoff.merger.verified import Verified
from cutoff.stage.report import Counter

FIRST_PROMPT = "What is 2+2?"
DOCUMENT_PROMPTS = (FIRST_PROMPT, *DOCUMENT_QUESTIONS)
"""The document's prompts for manual testing."""

JOB_PROMPTS = 12
"""At most so many of the job's own questions are asked beside them."""

POSITIONS = 8
"""Logits are compared at the last so many tokens of each prompt."""

TOLERANCE = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 1e-2}
"""The largest mean KL divergence, in nats per token, that rounding to this type explains."""

_RESPONSE_TOKENS, _RESPONSE_SHOWN = 50, 100


def verify(
    base: Path,
    adapter: Path,
    merged: Path,
    template: PromptTemplate,
    dtype: str,
    working: torch.dtype,
    device: str,
    loaded: Counter,
) -> Verified:
    """Compares a merged model with base and adapter; one model is in memory at a time.

    All logits are computed in the type that was merged in: they differ by the rounding of the weights alone.

    Args:
        base: The base model's folder.
        adapter: The adapter's folder.
        merged: The merged model's folder, as it is on the disk.
        template: Renders the prompts.
        dtype: The merged model's type: what is tolerated.
        working: The type of all three while they are compared.
        device: Where to.
        loaded: Hears how many models were asked.

    Raises:
        CheckFailed: They differ by more than rounding explains.
    """
    prompts = [template.prompt_ids(question) for question in probe_prompts(adapter)]
    model = load_adapted(base, adapter, working, device)
    wanted = last_logits(model, prompts)
    with model.disable_adapter():
        untrained = last_logits(model, prompts)
    del model
    loaded.at(1)
    reloaded = load_model(merged, working, device)
    difference, kl = compare(wanted, last_logits(reloaded, prompts), dtype)
    response = respond(reloaded, template)
    loaded.at(2)
    return Verified(len(prompts), difference, kl, divergence(wanted, untrained), response)


def probe_prompts(adapter: Path) -> list[str]:
    """The document's prompts, and those of the job's own questions that training left beside the adapter."""
    file = adapter / PROBE_QUESTIONS
    own = json.loads(file.read_text("utf-8")) if file.is_file() else []
    return [*DOCUMENT_PROMPTS, *own[:: max(1, len(own) // JOB_PROMPTS)][:JOB_PROMPTS]]


@torch.inference_mode()
def last_logits(model: Any, prompts: Sequence[list[int]]) -> list[torch.Tensor]:
    """Logits at the last positions of each prompt: (at most POSITIONS, vocabulary) each, float32, on the CPU."""
    return [
        model(input_ids=torch.tensor([ids], device=model.device), logits_to_keep=min(POSITIONS, len(ids)))
        .logits[0]
        .float()
        .cpu()
        for ids in prompts
    ]


def compare(wanted: Sequence[torch.Tensor], found: Sequence[torch.Tensor], dtype: str) -> tuple[float, float]:
    """The largest difference of two logits, and the mean KL divergence in nats per token.

    Raises:
        CheckFailed: They differ by more than rounding to `dtype` explains.
    """
    if any(one.shape != other.shape for one, other in zip(wanted, found, strict=True)):
        raise CheckFailed("the merged model has another vocabulary than base and adapter")
    difference = max(float((one - other).abs().max()) for one, other in zip(wanted, found, strict=True))
    kl = divergence(wanted, found)
    if not kl <= TOLERANCE[dtype]:  # a NaN fails too
        raise CheckFailed(
            f"the merged model differs from base and adapter: KL {kl:.3g} nats per token, "
            f"{TOLERANCE[dtype]:.3g} is allowed for {dtype}; logits by up to {difference:.3g}",
            "merge as float32 (--dtype float32) to see whether rounding is the cause; nothing was published",
        )
    return difference, max(kl, 0.0)


def divergence(wanted: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> float:
    """The mean KL divergence of `found` from `wanted`, in nats per token; both are logits."""
    one, other = (torch.cat(list(logits)).log_softmax(-1) for logits in (wanted, found))
    return float(functional.kl_div(other, one, log_target=True, reduction="batchmean"))


@torch.inference_mode()
def respond(model: Any, template: PromptTemplate) -> str:
    """The greedy answer to FIRST_PROMPT."""
    ids = torch.tensor([template.prompt_ids(FIRST_PROMPT)], device=model.device)
    answer = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=_RESPONSE_TOKENS,
        do_sample=False,
        eos_token_id=template.stop_id,
        pad_token_id=template.stop_id,
    )
    return str(template.tokenizer.decode(answer[0, ids.shape[1] :], skip_special_tokens=True)).strip()


def tell(verified: Verified, say: Callable[[str], None]) -> None:
    """Says what the document's script says."""
    say("Test generation successful!")
    say(f"  Prompt: {FIRST_PROMPT}")
    say(f"  Response: {verified.response[:_RESPONSE_SHOWN]}...")
