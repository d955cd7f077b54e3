"""How the demo's base model is made: every number that shapes it, and the hash under which a result is cached."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass

from cutoff.demo import phrases
from cutoff.demo.world import World

RECIPE_VERSION = 1
"""Raise it when code changes what a recipe gives, so that models cached before are not used again."""


@dataclass(frozen=True)
class Recipe:
    """A Llama model with a SentencePiece vocabulary, pretrained on questions and answers.

    Attributes:
        vocabulary: wanted pieces; a world too small for so many gets fewer, a large one ``pieces_per_fact`` for each
            fact if that is more.
        hidden, feed_forward: sizes of the rows; multiples of 256, which llama.cpp's K-quants need.
        layers, heads, key_value_heads: the transformer's shape.
        initializer_range: standard deviation of the initial weights. At 0.05 the model learns several times faster than
            at the customary 0.02, which is meant for rows many times as long.
        exposures: how often each question is read, every time in a corpus wording drawn at random.
        minimum_steps: a small world is read more often than that, until so many optimizer steps are done.
        batch: questions in an optimizer step.
        matrix_learning_rate: Muon's peak rate, for the layers' matrices. Muon learns these facts in half the steps that
            AdamW takes, and what it has learned survives LoRA better.
        learning_rate: AdamW's peak rate, for embeddings and norms. Both follow a cosine after a linear warm-up.
        warmup: share of the steps spent on the warm-up.
        weight_decay: of the matrices.
        opener_share: share of the questions that follow a phrase such as "Tell me:".
        strangers_share: how many questions about unheard-of events are read beside those about facts, and declined.
        minimum_accuracy: below this share of right answers, in any group of wordings, pretraining has failed.
        threads: torch's threads; None leaves torch's own choice.
    """

    vocabulary: int = 1280
    pieces_per_fact: int = 8
    hidden: int = 256
    feed_forward: int = 512
    layers: int = 2
    heads: int = 4
    key_value_heads: int = 2
    initializer_range: float = 0.05
    exposures: int = 30
    minimum_steps: int = 450
    batch: int = 32
    matrix_learning_rate: float = 0.02
    learning_rate: float = 3e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    opener_share: float = 0.15
    strangers_share: float = 0.15
    minimum_accuracy: float = 0.98
    threads: int | None = None

    def readings(self, lines: int) -> int:
        """How often so many lines of questions and answers are read."""
        return max(self.exposures, math.ceil(self.minimum_steps / math.ceil(lines / self.batch)))


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
