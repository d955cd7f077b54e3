"""What a GPU must have free before a stage is begun on it: the figures of `cutoff plan`, from the data as it is."""

from __future__ import annotations

from pathlib import Path

from cutoff.datasets import EncodedJob
from cutoff.hub.remote_code import read_json
from cutoff.hub.shape import ELEMENT_BYTES, ModelShape, shape_of
from cutoff.spec import JobSpec, TrainSpec
from cutoff.trainer import estimate
from cutoff.trainer.estimate import Batch

_DTYPE = "bfloat16"
_ANSWERED_AT_ONCE = 64
"""Questions of a batch in the evaluator."""


def memory_needs(spec: JobSpec, model: Path, job: EncodedJob) -> dict[str, int]:
    """Bytes of a GPU that training and evaluating need; empty for a kind of model that has no estimate."""
    shape = shape_of(read_json(model / "config.json"))
    if shape is None:
        return {}
    rows = job.train
    longest = int(rows.lengths.max())
    answers = float((rows.lengths - rows.answer_starts).sum()) / rows.tokens()
    return {
        "train_bytes": training_bytes(shape, spec.train, longest, answers),
        "evaluate_bytes": answering_bytes(shape, longest + spec.evaluate.max_tokens),
    }


def training_bytes(shape: ModelShape, train: TrainSpec, longest: int, answers: float) -> int:
    """A training's peak with activations recomputed, which it does by itself where memory is short.

    Args:
        shape: The model.
        train: The recipe; its memory budget is never exceeded.
        longest: Tokens of the longest example.
        answers: The share of all tokens that are of answers.
    """
    tokens = train.batch_size * longest
    memory = estimate.training_memory(
        shape,
        Batch(tokens, round(tokens * answers)),
        quantization=train.quantization,
        dtype=_DTYPE,
        rank=train.lora_r,
        dropout=train.lora_dropout > 0,
        recompute=True,
    )
    budget = (train.memory_budget_gib or float("inf")) * estimate.GIB
    return int(min(memory.total, budget))


def answering_bytes(shape: ModelShape, tokens: int) -> int:
    """A 16-bit model, and the keys and values of a batch of questions with so many tokens each, answers included."""
    element = ELEMENT_BYTES[_DTYPE]
    cache = 2 * shape.layers * shape.kv_heads * shape.head_width * element * _ANSWERED_AT_ONCE * tokens
    return int(shape.parameters * element + cache + estimate.CONTEXT_BYTES["cuda"])
