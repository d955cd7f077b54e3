"""Puts a LoRA adapter into its base model and publishes the result as a model of its own.

Never into packed 4-bit weights: the rounding erases weak adapters. What is written to the disk is read again and
compared with base plus adapter before it gets its name.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from cutoff.artifacts import describe, publishing_folder, require_space, size_on_disk
from cutoff.datasets import PromptTemplate, load_template
from cutoff.errors import AlreadyExists, CheckFailed, Fault, InvalidInput, OutOfMemory, Refused
from cutoff.hub import (
    BaseModel,
    carry_tokenizer,
    check_model_folder,
    load_tokenizer,
    tokenizer_files,
    trusts_remote_code,
)
from cutoff.merger.adapter import check_adapter, stored_types
from cutoff.merger.verify import Verified, compare, divergence, last_logits, probe_prompts, respond, tell
from cutoff.stage.report import Reporter
from cutoff.telemetry import quiet_libraries

Dtype = Literal["float16", "bfloat16", "float32"]
_TORCH: dict[str, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
_STORED = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
"""The same in safetensors."""

_SHARD = "5GB"


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


@dataclass(frozen=True, slots=True)
class MergeResult:
    """A published merged model."""

    path: Path
    dtype: str
    size_bytes: int
    seconds: float
    verified: Verified | None


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
    check_model_folder(plan.base.path)
    sizes = check_adapter(plan.adapter, plan.base)
    template, tokenizer_folder = _tokenizer(plan, sizes.vocabulary, report)
    needed = sizes.parameters * _TORCH[plan.dtype].itemsize
    require_space(plan.output.parent, needed, f"merging into {plan.base.name}")
    try:
        with (
            quiet_libraries(lambda line: report.log(line, "DEBUG")),
            publishing_folder(plan.output) as partial,
        ):
            verified = _merge_into(partial, plan, template, tokenizer_folder, report, say or report.log)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(f"{plan.base.name} does not fit into memory", "merge on a machine with more of it") from error
    published = describe(plan.output)
    report.artifact("merged", published, dtype=plan.dtype)
    seconds = round(time.monotonic() - started, 2)
    return MergeResult(plan.output, plan.dtype, published.size_bytes, seconds, verified)


def _merge_into(
    partial: Path,
    plan: MergePlan,
    template: PromptTemplate,
    tokenizer_folder: Path,
    report: Reporter,
    say: Callable[[str], None],
) -> Verified | None:
    """Fills the folder that will be published; what it returns was read from that folder.

    All logits are computed in the type that is merged in: they differ by the rounding of the weights alone.
    """
    working = _working_type(plan)
    with report.phase("merging", "step", 4 if plan.verify else 3) as steps:
        model: Any = PeftModel.from_pretrained(_load(plan.base.path, plan, working), str(plan.adapter))
        model.eval()
        steps.at(1)
        prompts = [template.prompt_ids(question) for question in probe_prompts(plan.adapter)] if plan.verify else []
        wanted = last_logits(model, prompts)
        with model.disable_adapter():
            untrained = last_logits(model, prompts)
        merged = _merged(model, plan.dtype)
        steps.at(2)
        saving = time.monotonic()
        _save(merged, partial, plan, template, tokenizer_folder)
        report.metric("cutoff_merge_bytes_per_second", size_on_disk(partial) / (time.monotonic() - saving))
        steps.at(3)
        del model, merged
        if not plan.verify:
            return None
        say("Verifying merged model...")
        reloaded = _load(partial, plan, working)
        difference, kl = compare(wanted, last_logits(reloaded, prompts), plan.dtype)
        effect = divergence(wanted, untrained)
        verified = Verified(len(prompts), difference, kl, effect, respond(reloaded, template))
        steps.at(4)
    report.log(
        f"{len(prompts)} prompts: KL {kl:.2g} nats per token from base and adapter (the base alone: {effect:.2g}), "
        f"logits within {difference:.2g}"
    )
    if kl > effect / 2:
        report.warn(f"rounding to {plan.dtype} hides most of what this adapter changes; try --dtype float32")
    tell(verified, say)
    return verified


def _tokenizer(plan: MergePlan, vocabulary: int | None, report: Reporter) -> tuple[PromptTemplate, Path]:
    """The tokenizer training used, from the adapter's folder; the base's where the adapter has none.

    Raises:
        InvalidInput: It has more tokens than the model has embedding rows.
    """
    folder = plan.adapter if tokenizer_files(plan.adapter) else plan.base.path
    tokenizer = load_tokenizer(folder)
    if vocabulary is not None and len(tokenizer) > vocabulary:
        what = f"has {len(tokenizer)} tokens, the embedding of {plan.base.name} has {vocabulary} rows"
        raise InvalidInput([Fault(str(folder), what, "merge into the model this tokenizer belongs to")])
    if tokenizer.chat_template:
        return load_template(folder), folder
    report.warn(f"the tokenizer in {folder} has no chat template; the merged model gets the Alpaca one")
    return load_template(folder, "alpaca"), folder


def _working_type(plan: MergePlan) -> torch.dtype:
    """What is merged in: the type the weights have and keep; float32 where they change it, to round only once."""
    return _TORCH[plan.dtype] if stored_types(plan.base.path) == {_STORED[plan.dtype]} else torch.float32


def _merged(model: Any, dtype: Dtype) -> Any:
    """The base with the adapter in it, in the type that was asked for.

    Raises:
        CheckFailed: It holds numbers that are none, or too large for that type.
    """
    wider = "merge with --dtype bfloat16 (merge.dtype: bfloat16), which holds larger numbers"
    remedy = wider if dtype == "float16" else "train the adapter again with a lower learning rate"
    try:
        merged = model.merge_and_unload(safe_merge=True)
    except ValueError as error:  # peft's name for weights that are no numbers
        raise CheckFailed(f"base and adapter cannot be added: {error}", remedy) from error
    merged = merged.to(_TORCH[dtype])
    for name, weights in merged.named_parameters():
        if not torch.isfinite(weights).all():
            raise CheckFailed(f"{name} holds numbers that {dtype} cannot hold; nothing was published", remedy)
    return merged


def _load(folder: Path, plan: MergePlan, dtype: torch.dtype) -> PreTrainedModel:
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=trusts_remote_code(folder),
            local_files_only=True,
        )
    except (OSError, ValueError, ImportError) as error:
        first = str(error).strip().partition("\n")[0]
        raise Refused(f"the model in {folder} cannot be loaded: {first}", "check the folder's files") from error
    model.to(torch.device(plan.device))  # type: ignore[arg-type]
    model.eval()
    return model


def _save(model: Any, partial: Path, plan: MergePlan, template: PromptTemplate, tokenizer_folder: Path) -> None:
    model.generation_config = GenerationConfig.from_model_config(model.config)
    model.save_pretrained(str(partial), max_shard_size=_SHARD)
    _carry_generation_config(plan.base.path, partial, template.stop_id)
    carry_tokenizer(tokenizer_folder, partial, template.tokenizer)


def _carry_generation_config(base: Path, partial: Path, stop_id: int) -> None:
    """Takes the base's settings as they are, and lets generation stop where training taught the model to stop."""
    target = partial / "generation_config.json"
    if (base / target.name).is_file():
        shutil.copyfile(base / target.name, target)
    config = json.loads(target.read_text("utf-8"))
    ends = config.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if stop_id not in ends:
        config["eos_token_id"] = [*ends, stop_id]
        target.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
