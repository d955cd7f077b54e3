"""Is the merged model the adapter? Logits of both on the same prompts, and one answer to look at.

The first comparison is against the model that was trained (base plus adapter), the second thing compared is what
was written to the disk and read again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from cutoff.datasets import DOCUMENT_QUESTIONS, PromptTemplate
from cutoff.errors import CheckFailed
from cutoff.hub import PROBE_QUESTIONS, TrainedOn, load_causal_lm
from cutoff.merger.answers import count_equal, greedy, scored
from cutoff.merger.loading import load_adapted, load_adapted_packed, load_adapted_unpacked
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

ANSWERS = 4
"""So many greedy answers are compared: to the document's first prompt, and to the job's own questions."""

_RESPONSE_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared with what."""

    base: Path
    adapter: Path
    merged: Path
    """As it is on the disk."""
    dtype: str
    """The merged model's type: what is tolerated."""
    working: torch.dtype
    """The type of all models while they are compared: they differ by the rounding of the weights alone."""
    device: str
    trained_on: TrainedOn
    dequantized: bool
    """Whether the adapter was merged into what its packed weights unpack to."""

    @property
    def models(self) -> int:
        """How many models are loaded, one after the other."""
        return 2 + (self.trained_on.quantization != "none")


def verify(comparison: Comparison, template: PromptTemplate, loaded: Counter) -> Verified:
    """Compares a merged model with base and adapter; one model is in memory at a time.

    Args:
        comparison: What is compared with what.
        template: Renders the prompts.
        loaded: Hears how many models were asked.

    Raises:
        CheckFailed: They differ by more than rounding explains.
    """
    prompts = [template.prompt_ids(question) for question in probe_prompts(comparison.adapter)]
    packed = _packed_logits(comparison, prompts)
    loaded.at(comparison.models - 2)
    model = _source(comparison)
    wanted = last_logits(model, prompts)
    asked = [prompts[0], *prompts[len(DOCUMENT_PROMPTS) :]][:ANSWERS]
    said = [scored(model, prompt, greedy(model, prompt, template.stop_id)) for prompt in asked]
    with model.disable_adapter():
        untrained = last_logits(model, prompts)
    del model
    loaded.at(comparison.models - 1)
    reloaded = load_causal_lm(comparison.merged, comparison.working, comparison.device)
    found = last_logits(reloaded, prompts)
    difference, kl = compare(wanted, found, comparison.dtype)
    equal = count_equal(said, [scored(reloaded, each.prompt, each.tokens) for each in said], comparison.dtype)
    answer = template.tokenizer.decode(greedy(reloaded, prompts[0], template.stop_id), skip_special_tokens=True)
    loaded.at(comparison.models)
    return Verified(
        prompts=len(prompts),
        max_logit_difference=difference,
        kl=kl,
        adapter_kl=divergence(wanted, untrained),
        packed_kl=divergence(packed, found) if packed else None,
        answers=len(said),
        equal_answers=equal,
        response=str(answer).strip(),
    )


def _source(comparison: Comparison) -> Any:
    """What the merged model must be: the adapter on the base, or on what its packed weights unpack to."""
    at = comparison
    if not at.dequantized:
        return load_adapted(at.base, at.adapter, at.working, at.device)
    return load_adapted_unpacked(at.base, at.adapter, at.trained_on, at.working, at.device)


def _packed_logits(comparison: Comparison, prompts: Sequence[list[int]]) -> list[torch.Tensor]:
    """Logits of the adapter on the packed weights it was trained on; empty where it was trained on none."""
    if comparison.trained_on.quantization == "none":
        return []
    return last_logits(
        load_adapted_packed(comparison.base, comparison.adapter, comparison.trained_on, comparison.device), prompts
    )


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


def tell(verified: Verified, say: Callable[[str], None]) -> None:
    """Says what the document's script says."""
    say("Test generation successful!")
    say(f"  Prompt: {FIRST_PROMPT}")
    say(f"  Response: {verified.response[:_RESPONSE_SHOWN]}...")
