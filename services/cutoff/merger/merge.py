"""Puts a LoRA adapter into its base model and publishes the result as a model of its own.

Never into packed 4-bit weights: the rounding erases weak adapters. What is written to the disk is read again and
compared with base plus adapter before it gets its name.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from cutoff.artifacts import describe, publishing_folder, require_space, size_on_disk
from cutoff.datasets import PromptTemplate
from cutoff.errors import AlreadyExists, CheckFailed, Fault, InvalidInput, OutOfMemory, Refused
from cutoff.hub import BaseModel, TrainedOn, check_model_folder
from cutoff.merger import architecture
from cutoff.merger.adapter import Adapter, read_adapter
from cutoff.merger.checkpoint import OpenFiles, Tensors, read_checkpoint
from cutoff.merger.fit import fit_faults
from cutoff.merger.settings import carry_generation_config, write_config
from cutoff.merger.shards import TYPES
from cutoff.merger.streaming import plan_stream, reasons_against, stream
from cutoff.merger.tokenizer import Tokenizer, load_merged_tokenizer, write_tokenizer
from cutoff.merger.verified import Verified
from cutoff.stage.report import Reporter
from cutoff.telemetry import quiet_libraries

Dtype = Literal["float16", "bfloat16", "float32"]
Into = Literal["original", "dequantized"]
_STORED = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
"""What safetensors calls them."""


@dataclass(frozen=True, slots=True)
class MergePlan:
    """What is merged into what."""

    base: BaseModel
    adapter: Path
    output: Path
    """The folder to publish; it must not exist."""
    dtype: Dtype = "bfloat16"
    verify: bool = True
    into: Into = "original"
    """The base's weights as they are stored, or as training on packed weights saw them."""
    device: str = "cpu"
    """Where the merged model is compared with its source; merging itself is the processor's work."""


@dataclass(frozen=True, slots=True)
class MergeResult:
    """A published merged model."""

    path: Path
    dtype: str
    size_bytes: int
    seconds: float
    method: Literal["streaming", "peft"]
    """Tensor by tensor, or by peft with the whole model in memory."""
    peft_because: list[str]
    """What the streaming merge does not know, where peft merged."""
    verified: Verified | None


@dataclass(frozen=True, slots=True)
class _Parts:
    """What was read and found to belong together."""

    config: Mapping[str, Any]
    tensors: Tensors
    adapter: Adapter
    peft_because: list[str]
    trained_on: TrainedOn


def merge(plan: MergePlan, report: Reporter, say: Callable[[str], None] | None = None) -> MergeResult:
    """Merges, checks and publishes.

    Args:
        plan: What is merged into what.
        report: Hears of the progress.
        say: Gets the document's lines about the check; `report` by default.

    Raises:
        AlreadyExists: The output folder is there.
        NotFound: There is no such adapter or base model.
        InvalidInput: Adapter, tokenizer and base model do not belong together.
        DiskFull: The output's disk has no room.
        CheckFailed: The merged model is not base plus adapter; nothing was published.
        OutOfMemory: The model does not fit into memory.
    """
    started = time.monotonic()
    if plan.output.exists():
        raise AlreadyExists(f"{plan.output} is there already", "choose another output folder, or remove it")
    hashed: dict[str, str] = {}
    try:
        with ThreadPoolExecutor(1) as beside:
            # Both need transformers, whose import takes as long as merging a gigabyte: they are done beside that.
            checking = beside.submit(check_model_folder, plan.base.path)
            loading = beside.submit(load_merged_tokenizer, plan.adapter, plan.base.path)
            parts = _read(plan, checking, loading)
            with publishing_folder(plan.output, hashed) as partial:
                hashed |= _write_weights(partial, plan, parts, loading, report)
                checking.result()
                tokenizer = loading.result()
                _complete(partial, plan, tokenizer, report)
                with _keeping_what_fails(partial, plan.output):
                    verified = _verify(partial, plan, parts, tokenizer.template, report, say or report.log)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(f"{plan.base.name} does not fit into memory", "merge on a machine with more of it") from error
    published = describe(plan.output)
    report.artifact("merged", published, dtype=plan.dtype)
    method: Literal["streaming", "peft"] = "peft" if parts.peft_because else "streaming"
    seconds = round(time.monotonic() - started, 2)
    return MergeResult(plan.output, plan.dtype, published.size_bytes, seconds, method, parts.peft_because, verified)


@contextmanager
def _keeping_what_fails(partial: Path, output: Path) -> Iterator[None]:
    """Keeps what a check refused beside the place it would have had, for whoever wants to look at it."""
    try:
        yield
    except CheckFailed as error:
        kept = output.with_name(f"{output.name}.rejected")
        shutil.rmtree(kept, ignore_errors=True)
        partial.rename(kept)
        raise CheckFailed(f"{error.message}; what was written is kept in {kept}", error.remedy) from error


def _read(plan: MergePlan, folder_check: Future[None], tokenizer: Future[Tokenizer]) -> _Parts:
    """Reads headers, and refuses what does not belong together or has no room.

    Raises:
        InvalidInput: With all faults, those of the tokenizer too.
    """
    faults: list[Fault] = []
    try:
        config = json.loads((plan.base.path / "config.json").read_text("utf-8"))
        tensors = read_checkpoint(plan.base.path)
        adapter = read_adapter(plan.adapter)
        because = reasons_against(adapter, config, tensors)
        faults += fit_faults(adapter, plan.base, config, tensors, plain=not because)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        folder_check.result()  # names what is wrong with the folder's files
        raise
    except InvalidInput as error:
        folder_check.result()
        faults += error.faults
    if faults:
        raise InvalidInput([*_faults_of(tokenizer), *faults])
    trained_on = _trained_on(plan, because)
    needed = sum(stored.parameters for stored in tensors.values()) * TYPES[_STORED[plan.dtype]].itemsize
    require_space(plan.output.parent, needed, f"merging into {plan.base.name}")
    return _Parts(config, tensors, adapter, because, trained_on)


def _trained_on(plan: MergePlan, peft_because: Sequence[str]) -> TrainedOn:
    """What the adapter was trained on.

    Raises:
        InvalidInput: It was not trained on packed weights, and is to be merged into what they unpack to.
        Refused: Only peft can merge it, and it knows no such base.
    """
    found = TrainedOn.read(plan.adapter)
    if plan.into == "original":
        return found or TrainedOn()
    if not found or found.quantization == "none":
        what = "was not trained on packed weights" if found else "does not say what it was trained on"
        fix = "merge into the original (merge.base: original)"
        raise InvalidInput([Fault(str(plan.adapter), f"{what}: there is nothing to dequantize", fix)])
    if peft_because:
        what = f"only peft can merge this adapter, and not into a dequantized base: {'; '.join(peft_because)}"
        raise Refused(what, "merge into the original (merge.base: original)")
    return found


def _faults_of(tokenizer: Future[Tokenizer]) -> tuple[Fault, ...]:
    """The faults that ended it, if it ended in faults."""
    error = tokenizer.exception()
    if isinstance(error, InvalidInput):
        return error.faults
    if error:
        raise error
    return ()


def _write_weights(
    folder: Path, plan: MergePlan, parts: _Parts, loading: Future[Tokenizer], report: Reporter
) -> dict[str, str]:
    """Writes weights and configuration; returns the SHA-256 of files by name, where they are known."""
    started = time.monotonic()
    hashed: dict[str, str] = {}
    if parts.peft_because:
        from cutoff.merger.with_peft import merge_with_peft

        report.warn(f"peft merges, with the whole model in memory: {'; '.join(parts.peft_because)}")
        working = working_type(parts.tensors, plan.dtype)
        with report.phase("merging", "model", 1) as models, quiet_libraries(lambda line: report.log(line, "DEBUG")):
            merge_with_peft(plan.base.path, plan.adapter, folder, working, TYPES[_STORED[plan.dtype]])
            models.at(1)
    else:
        files = OpenFiles()
        streamed = plan_stream(
            parts.adapter,
            parts.config,
            parts.tensors,
            files,
            parts.trained_on if plan.into == "dequantized" else None,
        )
        with report.phase("merging", "tensor", len(streamed.sources)) as tensors:

            def done(count: int) -> None:
                tensors.at(count)
                if loading.done():
                    loading.result()  # nothing more is written when it cannot be published

            hashed = stream(streamed, folder, _STORED[plan.dtype], files, done)
        if not streamed.tied and architecture.is_tied(parts.config):
            report.log("input and output embeddings are two now: training separated them")
        write_config(folder, parts.config, plan.dtype, streamed.tied)
    report.metric("cutoff_merge_bytes_per_second", size_on_disk(folder) / (time.monotonic() - started))
    return hashed


def _complete(folder: Path, plan: MergePlan, tokenizer: Tokenizer, report: Reporter) -> None:
    """Writes what stands beside the weights."""
    for note in tokenizer.notes:
        report.warn(note)
    carry_generation_config(plan.base.path, folder, tokenizer.template.stop_id)
    write_tokenizer(tokenizer, folder)


def working_type(tensors: Tensors, dtype: Dtype) -> torch.dtype:
    """What a model is loaded in: the type its weights have and keep; float32 where they change it."""
    types = {stored.dtype for stored in tensors.values()}
    return TYPES[_STORED[dtype]] if types == {_STORED[dtype]} else torch.float32


def _verify(
    merged: Path,
    plan: MergePlan,
    parts: _Parts,
    template: PromptTemplate,
    report: Reporter,
    say: Callable[[str], None],
) -> Verified | None:
    """Compares what is on the disk with base and adapter, if asked to; says what the document's script says."""
    if not plan.verify:
        return None
    from cutoff.merger.verify import Comparison, tell, verify

    say("Verifying merged model...")
    comparison = Comparison(
        plan.base.path,
        plan.adapter,
        merged,
        plan.dtype,
        working_type(parts.tensors, plan.dtype),
        plan.device,
        parts.trained_on,
        dequantized=plan.into == "dequantized",
    )
    with (
        report.phase("verifying", "model", comparison.models) as models,
        quiet_libraries(lambda line: report.log(line, "DEBUG")),
    ):
        verified = verify(comparison, template, models)
    report.log(
        f"{verified.prompts} prompts: KL {verified.kl:.2g} nats per token from base and adapter "
        f"(the base alone: {verified.adapter_kl:.2g}), logits within {verified.max_logit_difference:.2g}; "
        f"{verified.equal_answers} of {verified.answers} greedy answers the same word for word"
    )
    if verified.packed_kl is not None:
        report.log(
            f"KL {verified.packed_kl:.2g} nats per token from the adapter on the {parts.trained_on.quantization} "
            f"weights it was trained on (merge.base: {plan.into})"
        )
    if verified.kl > verified.adapter_kl / 2:
        report.warn(f"rounding to {plan.dtype} hides most of what this adapter changes; try --dtype float32")
    tell(verified, say)
    return verified
