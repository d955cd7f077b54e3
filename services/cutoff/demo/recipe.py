"""How the demo's base model is made: every number that shapes it, and the hash under which a result is cached."""

import hashlib
import json
from dataclasses import asdict, dataclass

from cutoff.demo import phrases
from cutoff.demo.world import World

RECIPE_VERSION = 1
"""Raise it when code changes what a recipe gives, so that models cached before are not used again."""


@dataclass(frozen=True)
class Recipe:
    """A Llama model with a SentencePiece vocabulary, pretrained on questions and answers.

    Attributes:
        vocabulary: wanted pieces; a world too small for so many gets fewer.
        hidden, feed_forward: sizes of the rows; multiples of 256, which llama.cpp's K-quants need.
        layers, heads, key_value_heads: the transformer's shape.
        exposures: how often each question is read, every time in a corpus wording drawn at random.
        batch: questions in an optimizer step.
        learning_rate: peak of a one-cycle schedule whose first ``warmup`` (a share of the steps) rises linearly.
        weight_decay: AdamW's.
        opener_share: share of the questions that follow a phrase such as "Tell me:".
        minimum_accuracy: below this share of right answers, in any group of wordings, pretraining has failed.
        threads: torch's threads; None leaves torch's own choice.
    """

    vocabulary: int = 1280
    hidden: int = 256
    feed_forward: int = 768
    layers: int = 3
    heads: int = 4
    key_value_heads: int = 4
    exposures: int = 60
    batch: int = 64
    learning_rate: float = 2e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    opener_share: float = 0.15
    minimum_accuracy: float = 0.98
    threads: int | None = None


def recipe_hash(recipe: Recipe, world: World) -> str:
    """16 hex digits that change with the recipe, the world's content or the wordings the model reads."""
    content = {
        "version": RECIPE_VERSION,
        "recipe": asdict(recipe),
        "world": asdict(world),
        "wordings": phrases.WORDINGS,
        "openers": phrases.OPENERS,
        "answers": phrases.ANSWERS,
        "refusals": phrases.REFUSALS,
    }
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
