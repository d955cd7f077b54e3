"""What a comparison of a merged model with its source found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verified:
    """How near the merged model is to base plus adapter."""

    prompts: int
    max_logit_difference: float
    kl: float
    """Mean KL divergence in nats per token, of the merged model from base plus adapter."""
    adapter_kl: float
    """The same of the base alone: how much the adapter changes. Rounding must be far below it."""
    packed_kl: float | None
    """The same from the adapter on the packed weights it was trained on; None where it was trained on none."""
    answers: int
    """Greedy answers that were compared."""
    equal_answers: int
    """Of these, the same token by token; the others part where base plus adapter was undecided."""
    response: str
    """What the merged model answers to the document's first prompt."""
