"""Compares what the 16-bit file predicts with what the merged model does, token by token.

A conversion can be wrong and still write finite weights that answer something: heads whose rotary halves were mixed up,
a norm without its offset, positions scaled otherwise. Both sides therefore read the same ids: llama-server goes on
greedily from each text and says how likely it finds the next tokens, and transformers is asked the same at the same
places.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cutoff.datasets import DOCUMENT_QUESTIONS, PromptTemplate
from cutoff.errors import CheckFailed
from cutoff.gguf_converter.checks import Check
from cutoff.hub import load_causal_lm
from cutoff.llama_cpp import LlamaServer

LIMIT = 0.25
"""Nats. Measured on a tiny taught model: 0.0009 of a faithful file, 2 to 10 of wrong ones. transformers computes in the
type the model is stored in, and bfloat16 rounds logits to eighths: that is the room left."""

_TEXTS = 4
_LONG = 256
"""Tokens of a further text: what is wrong with far positions shows in a long one only."""

_NEW = 16
_CANDIDATES = 10
"""Most likely next tokens compared at each place."""


@dataclass(frozen=True, slots=True)
class Continued:
    """A text as ids, and what a GGUF predicts after it."""

    ids: Sequence[int]
    """The text's, and then those it was continued with."""
    predicted: Sequence[Mapping[int, float]]
    """Log probabilities (nats) of the most likely next tokens by id; one mapping for each new token, maybe empty."""


def continue_texts(
    template: PromptTemplate, server: LlamaServer, questions: Sequence[str], longest: int
) -> list[Continued]:
    """Has the GGUF go on from a few prompts and from one long text of them all.

    Args:
        template: Renders and tokenizes the prompts.
        server: Serves the 16-bit file.
        questions: Of the job's data; the document's are asked too.
        longest: Tokens that a text and its continuation may have.

    Raises:
        RequestFailed, ProgramFailed, OutOfMemory: As `LlamaServer.predict`.
    """
    texts = template.ids(template.prompts([*questions[:_TEXTS], *DOCUMENT_QUESTIONS][:_TEXTS]))
    together = [token for ids in texts for token in ids]
    long = (together * (1 + _LONG // len(together)))[:_LONG]
    continued = []
    for ids in [*texts, long]:
        begun = ids[: max(1, longest - _NEW)]
        steps = server.predict(begun, _NEW, _CANDIDATES)
        continued.append(Continued([*begun, *(step.token for step in steps)], [step.logprobs for step in steps]))
    return continued


def check_predictions(check: Check, model: Path, texts: Sequence[Continued], gguf: Path) -> None:
    """Fills the row: how far the two sides' log probabilities lie apart, in the text where they differ most.

    Args:
        check: The row.
        model: The merged model; it is loaded here, as it is stored, and freed again.
        texts: What the GGUF made of them.
        gguf: Its file.

    Raises:
        Refused: transformers cannot load the model.
        CheckFailed: The GGUF predicts something else.
    """
    loaded = load_causal_lm(model, "auto")
    differences = [_difference(loaded, text) for text in texts if any(text.predicted)]
    places = sum(bool(each) for text in texts for each in text.predicted)
    if not differences:
        raise CheckFailed(f"{gguf.name} predicts nothing after {len(texts)} texts", "convert again")
    worst = max(differences, key=lambda nats: math.inf if math.isnan(nats) else nats)
    figure = f"{worst:.2g} nats apart in the worst of {len(differences)} texts, {places} tokens predicted"
    if not worst <= LIMIT:  # not a number is no agreement either
        raise CheckFailed(
            f"{gguf.name} predicts other tokens than {model.name}, which it was made from: {figure}, "
            f"and rounding makes less than {LIMIT}",
            "llama.cpp converts this architecture, or a setting of its config.json (rope scaling, norms), wrongly: "
            "give a newer llama.cpp (--llama_cpp_path, convert.llama_cpp_path in job.yaml), or take another base model",
        )
    check.passed(figure, "the merged model's predictions")


def _difference(model: Any, text: Continued) -> float:
    """Mean difference of log probabilities (nats), each weighted by how likely the GGUF finds the token."""
    import torch

    count = len(text.predicted)
    ids = torch.tensor([text.ids[:-1]])  # what follows the last new token was not predicted
    with torch.inference_mode():
        expected = model(input_ids=ids, use_cache=False).logits[0, -count:].float().log_softmax(-1)
    apart = []
    for row, predicted in zip(expected, text.predicted, strict=True):
        if not predicted:
            continue
        got = torch.tensor(list(predicted.values()))
        weights = got.softmax(0)
        apart.append(float((weights * (got - row[list(predicted)]).abs()).sum()))
    return sum(apart) / len(apart)
