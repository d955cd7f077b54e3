"""The base models of the user's document: their numbers, who may fetch them, and what is special about each.

Numbers are those of each model's published config.json; `published` is what the hub counts in its safetensors files.
A test builds every one of them from its numbers and compares.
"""

from __future__ import annotations

from dataclasses import dataclass

from cutoff.hub.shape import ModelShape


@dataclass(frozen=True, slots=True)
class Candidate:
    """A base model of the document's two tables."""

    hub_id: str
    size: str
    """As the document says it."""
    published: int
    """Parameters, as published."""
    shape: ModelShape
    licence: str
    gated: bool
    """Whether an account must accept terms, and HF_TOKEN must be its token."""
    document_time: str
    """The document's estimate of the training time."""
    notes: tuple[str, ...] = ()
    """What is special about it, for whoever trains it."""


def _shape(
    model_type: str, layers: int, hidden: int, ffn: int, heads: tuple[int, int, int], vocabulary: int, tied: bool
) -> ModelShape:
    return ModelShape(model_type, layers, hidden, ffn, *heads, vocabulary, tied)


_LLAMA_TERMS = "Llama 3.2 Community License"

CANDIDATES: tuple[Candidate, ...] = (
    Candidate(
        hub_id="Qwen/Qwen2.5-0.5B-Instruct",
        size="0.5B",
        published=494_032_768,
        shape=_shape("qwen2", 24, 896, 4864, (14, 2, 64), 151_936, tied=True),
        licence="Apache 2.0",
        gated=False,
        document_time="~30 min",
        notes=("its template puts in a system message of its own; training, evaluation and GGUF all do",),
    ),
    Candidate(
        hub_id="Qwen/Qwen2.5-1.5B-Instruct",
        size="1.5B",
        published=1_543_714_304,
        shape=_shape("qwen2", 28, 1536, 8960, (12, 2, 128), 151_936, tied=True),
        licence="Apache 2.0",
        gated=False,
        document_time="~1-2 hours",
        notes=("its template puts in a system message of its own; training, evaluation and GGUF all do",),
    ),
    Candidate(
        hub_id="meta-llama/Llama-3.2-1B-Instruct",
        size="1B",
        published=1_235_814_400,
        shape=_shape("llama", 16, 2048, 8192, (32, 8, 64), 128_256, tied=True),
        licence=_LLAMA_TERMS,
        gated=True,
        document_time="~1-2 hours",
        notes=("its template writes a system message with today's date: the date of a run is in what it learns",),
    ),
    Candidate(
        hub_id="microsoft/Phi-3-mini-4k-instruct",
        size="3.8B",
        published=3_821_079_552,
        shape=_shape("phi3", 32, 3072, 8192, (32, 32, 96), 32_064, tied=False),
        licence="MIT",
        gated=False,
        document_time="~3-4 hours",
        notes=(
            "query, key and value are one layer (qkv_proj), gate and up another (gate_up_proj); adapters find both",
            "its repository brings code; transformers' own implementation is used, and that code never runs",
        ),
    ),
    Candidate(
        hub_id="meta-llama/Llama-3.2-3B-Instruct",
        size="3B",
        published=3_212_749_824,
        shape=_shape("llama", 28, 3072, 8192, (24, 8, 128), 128_256, tied=True),
        licence=_LLAMA_TERMS,
        gated=True,
        document_time="~4-6 hours",
        notes=("its template writes a system message with today's date: the date of a run is in what it learns",),
    ),
    Candidate(
        hub_id="mistralai/Mistral-7B-Instruct-v0.3",
        size="7B",
        published=7_248_023_552,
        shape=_shape("mistral", 32, 4096, 14_336, (32, 8, 128), 32_768, tied=False),
        licence="Apache 2.0",
        gated=True,
        document_time="~8-12 hours",
        notes=("its repository also holds all weights once more (consolidated.safetensors); those are not fetched",),
    ),
    Candidate(
        hub_id="google/gemma-2-2b-it",
        size="2B",
        published=2_614_341_888,
        shape=_shape("gemma2", 26, 2304, 9216, (8, 4, 256), 256_000, tied=True),
        licence="Gemma Terms of Use",
        gated=True,
        document_time="~2-3 hours",
        notes=(
            "attention and final logits are soft-capped; attention is written out, since fused kernels do not cap",
            "its template knows no system role; prompts here have a user turn only",
            "a vocabulary of 256,000: logits take more memory than anything else",
        ),
    ),
)


def candidate(base_model: str) -> Candidate | None:
    """The entry of a hub id (a revision after @ does not matter), whatever its case; None for other models."""
    name = base_model.partition("@")[0].lower()
    return next((each for each in CANDIDATES if each.hub_id.lower() == name), None)
