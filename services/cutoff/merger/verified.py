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
    response: str
    """What the merged model answers to the document's first prompt."""
