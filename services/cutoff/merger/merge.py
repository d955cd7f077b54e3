"""Puts a LoRA adapter into its base model and publishes the result as a model of its own.

Never into packed 4-bit weights: the rounding erases weak adapters. What is written to the disk is read again and
compared with base plus adapter before it gets its name.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from cutoff.artifacts import describe, publishing_folder, require_space, size_on_disk
from cutoff.datasets import PromptTemplate, load_template
from cutoff.errors import AlreadyExists, Fault, InvalidInput, OutOfMemory
from cutoff.hub import BaseModel, carry_tokenizer, check_model_folder, load_tokenizer, tokenizer_files
from cutoff.merger import architecture
from cutoff.merger.adapter import Adapter, read_adapter
from cutoff.merger.checkpoint import OpenFiles, Tensors, read_checkpoint
from cutoff.merger.fit import fit_faults
from cutoff.merger.settings import carry_generation_config, write_config
from cutoff.merger.shards import TYPES
from cutoff.merger.streaming import plan_stream, reasons_against, stream
from cutoff.merger.verified import Verified
from cutoff.stage.report import Reporter
from cutoff.telemetry import quiet_libraries

Dtype = Literal["float16", "bfloat16", "float32"]
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
    template: PromptTemplate
    tokenizer_folder: Path


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
    parts = _read(plan, report)
    try:
        with (
            quiet_libraries(lambda line: report.log(line, "DEBUG")),
            publishing_folder(plan.output) as partial,
        ):
            _merge_into(partial, plan, parts, report)
            verified = _verify(partial, plan, parts, report, say or report.log) if plan.verify else None
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(f"{plan.base.name} does not fit into memory", "merge on a machine with more of it") from error
    published = describe(plan.output)
    report.artifact("merged", published, dtype=plan.dtype)
    method: Literal["streaming", "peft"] = "peft" if parts.peft_because else "streaming"
    seconds = round(time.monotonic() - started, 2)
    return MergeResult(plan.output, plan.dtype, published.size_bytes, seconds, method, parts.peft_because, verified)


def _read(plan: MergePlan, report: Reporter) -> _Parts:
    """Reads headers and tokenizer, and refuses what does not belong together or has no room."""
    check_model_folder(plan.base.path)
    config = json.loads((plan.base.path / "config.json").read_text("utf-8"))
    tensors = read_checkpoint(plan.base.path)
    adapter = read_adapter(plan.adapter)
    because = reasons_against(adapter, config, tensors)
    faults = list(fit_faults(adapter, plan.base, config, tensors, plain=not because))
    if faults:
        raise InvalidInput(faults)
    template, folder = _tokenizer(plan, tensors, report)
    needed = sum(stored.parameters for stored in tensors.values()) * TYPES[_STORED[plan.dtype]].itemsize
    require_space(plan.output.parent, needed, f"merging into {plan.base.name}")
    return _Parts(config, tensors, adapter, because, template, folder)


def _merge_into(folder: Path, plan: MergePlan, parts: _Parts, report: Reporter) -> None:
    """Fills a folder with weights, configuration and tokenizer."""
    started = time.monotonic()
    if parts.peft_because:
        from cutoff.merger.with_peft import merge_with_peft

        report.warn(f"peft merges, with the whole model in memory: {'; '.join(parts.peft_because)}")
        with report.phase("merging", "model", 1) as models:
            merge_with_peft(
                plan.base.path,
                plan.adapter,
                folder,
                working_type(parts.tensors, plan.dtype),
                TYPES[_STORED[plan.dtype]],
            )
            models.at(1)
    else:
        files = OpenFiles()
        streamed = plan_stream(parts.adapter, parts.config, parts.tensors, _STORED[plan.dtype], files)
        with report.phase("merging", "tensor", len(streamed.sources)) as tensors:
            stream(streamed, folder, _STORED[plan.dtype], files, tensors.at)
        if not streamed.tied and architecture.is_tied(parts.config):
            report.log("input and output embeddings are two now: training separated them")
        write_config(folder, parts.config, plan.dtype, streamed.tied)
    report.metric("cutoff_merge_bytes_per_second", size_on_disk(folder) / (time.monotonic() - started))
    carry_generation_config(plan.base.path, folder, parts.template.stop_id)
    carry_tokenizer(parts.tokenizer_folder, folder, parts.template.tokenizer)


def working_type(tensors: Tensors, dtype: Dtype) -> torch.dtype:
    """What a model is loaded in: the type its weights have and keep; float32 where they change it."""
    types = {stored.dtype for stored in tensors.values()}
    return TYPES[_STORED[dtype]] if types == {_STORED[dtype]} else torch.float32


def _verify(merged: Path, plan: MergePlan, parts: _Parts, report: Reporter, say: Callable[[str], None]) -> Verified:
    """Compares what is on the disk with base and adapter; says what the document's script says."""
    from cutoff.merger.verify import tell, verify

    say("Verifying merged model...")
    working = working_type(parts.tensors, plan.dtype)
    with report.phase("verifying", "model", 2) as models:
        verified = verify(
            plan.base.path, plan.adapter, merged, parts.template, plan.dtype, working, plan.device, models
        )
    report.log(
        f"{verified.prompts} prompts: KL {verified.kl:.2g} nats per token from base and adapter "
        f"(the base alone: {verified.adapter_kl:.2g}), logits within {verified.max_logit_difference:.2g}"
    )
    if verified.kl > verified.adapter_kl / 2:
        report.warn(f"rounding to {plan.dtype} hides most of what this adapter changes; try --dtype float32")
    tell(verified, say)
    return verified


def _tokenizer(plan: MergePlan, tensors: Tensors, report: Reporter) -> tuple[PromptTemplate, Path]:
    """The tokenizer training used, from the adapter's folder; the base's where the adapter has none.

    Raises:
        InvalidInput: It has more tokens than the model has embedding rows.
    """
    folder = plan.adapter if tokenizer_files(plan.adapter) else plan.base.path
    tokenizer = load_tokenizer(folder)
    embedding = next((stored for name, stored in tensors.items() if name.endswith("embed_tokens.weight")), None)
    if embedding and len(tokenizer) > embedding.shape[0]:
        what = f"has {len(tokenizer)} tokens, the embedding of {plan.base.name} has {embedding.shape[0]} rows"
        raise InvalidInput([Fault(str(folder), what, "merge into the model this tokenizer belongs to")])
    if tokenizer.chat_template:
        return load_template(folder), folder
    report.warn(f"the tokenizer in {folder} has no chat template; the merged model gets the Alpaca one")
    return load_template(folder, "alpaca"), folder
