"""`cutoff plan`: what a job will take in memory, on the disks and of time, before anything is fetched or started.

The arithmetic is `cutoff.trainer.estimate`'s; here it is filled with a job's numbers and held against this machine.
Nothing is asked of a server or of the hub.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from cutoff.artifacts import DiskNeed, FileSystem, Roots, file_systems
from cutoff.client.plan_data import DataSize, measure
from cutoff.client.plan_host import DeviceFacts, ModelFacts, cpu, gpu, hub_cache, model_facts
from cutoff.hub.disk_needs import ModelSize, job_needs
from cutoff.hub.shape import ELEMENT_BYTES
from cutoff.spec import JobSpec, TrainSpec
from cutoff.spec.job import StageSpec
from cutoff.spec.quantizations import FLOATS, size_at_most
from cutoff.trainer import estimate
from cutoff.trainer.estimate import GIB, Batch, TrainingMemory

_USABLE = 0.95
"""Of a device's memory: the rest is the system's and what the allocator cannot use."""

_NEEDS_REFERENCE = ("npo", "dpo")
_LEAST_EVALUATIONS = 4
"""A short run is evaluated about so often while it trains."""

_FOLDERS = ("base", "control", "adapter", "merged", "relearned")
"""Targets that transformers answers for."""

_GENERATED_AT_ONCE = {"transformers": 64, "llama.cpp": 8}
_BYTES_PER_SECOND = {"cpu": 20e9, "cuda": 400e9}
"""Of memory, assumed: what generating tokens is bound by."""
_FETCHED_PER_SECOND = 12.5e6
"""100 Mbit/s."""
_MERGE_SECONDS_PER_GB = 12.2
_F16_SECONDS_PER_GB = 10.3
_QUANTIZE_SECONDS_PER_GB = {"q8_0": 3.5, "q6_k": 12.2}
_OTHER_QUANTS_SECONDS_PER_GB = 21.3
"""Per GB of the 16-bit model, measured once on two cores; q4_k_m's stands for its likes."""
_COPIED_PER_SECOND = 300e6
_CARD_SECONDS, _REPORT_SECONDS = 1.0, 3.0
"""Of the demo's job; the report's grows with its failing questions, of which a page shows 1,000."""
_ATTACKED = 100
"""Questions an attack asks at most."""
_START_SECONDS = 4.0
"""Of each stage: a process, its libraries, a model of no size."""
_PREPARED_PER_SECOND = 2000.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Device memory of the training."""

    kept: TrainingMemory
    """Bytes with activations kept."""
    recomputed: TrainingMemory
    """Bytes with activations recomputed (gradient checkpointing)."""
    document_gb: int | None
    """The document's figure for a model of this size; None where its table has none."""
    available_bytes: int | None
    """Of the device, or the job's budget if that is less."""
    verdict: str


@dataclass(frozen=True, slots=True)
class StageTime:
    """How long a stage is expected to take."""

    stage: str
    seconds: float | None
    """None where the device's speed is not known."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job will take."""

    model: ModelFacts
    data: DataSize
    device: DeviceFacts | None
    memory: Memory
    disk: tuple[DiskNeed, ...]
    file_systems: tuple[FileSystem, ...]
    time: tuple[StageTime, ...]
    warnings: tuple[str, ...]


def make_plan(spec: JobSpec, roots: Roots, gpu_name: str | None = None, gpu_memory_gib: float | None = None) -> Plan:
    """Computes a job's plan for this machine, or for a GPU that is described.

    Raises:
        InvalidInput: The data or the model's folder cannot be used, or the GPU's name is not known.
        NotFound: The model is not here and not known.
        Refused: The model is not of a kind that can be planned.
    """
    here = cpu()
    device = gpu(gpu_name, gpu_memory_gib) if spec.resources.gpus or gpu_name or gpu_memory_gib else here
    model = model_facts(spec)
    data = measure(spec, roots.datasets, model.folder)
    disk = disk_needs(spec, model, roots)
    memory = memory_of(spec, model, data, device)
    return Plan(
        model=model,
        data=data,
        device=device,
        memory=memory,
        disk=disk,
        file_systems=file_systems(disk),
        time=times(spec, model, data, device, here, recompute=_recomputes(memory)),
        warnings=_warnings(spec, model, device),
    )


def memory_of(spec: JobSpec, model: ModelFacts, data: DataSize, device: DeviceFacts | None) -> Memory:
    """The training's device memory, for micro-batches of the longest examples."""
    train = spec.train
    share = data.mean_answer_tokens / data.mean_tokens
    tokens = train.batch_size * data.longest_tokens
    batch = Batch(tokens, round(tokens * share))

    def total(quantization: str, recompute: bool) -> TrainingMemory:
        return estimate.training_memory(
            model.shape,
            batch,
            quantization=quantization,
            dtype=_dtype(device),
            rank=train.lora_r,
            dropout=train.lora_dropout > 0,
            recompute=recompute,
            device=device.kind if device else "cuda",
        )

    kept, recomputed = total(train.quantization, recompute=False), total(train.quantization, recompute=True)
    limits = [device.memory_bytes * _USABLE] if device and device.memory_bytes else []
    limits += [train.memory_budget_gib * GIB] if train.memory_budget_gib else []
    available = int(min(limits)) if limits else None
    packed = total("4bit", recompute=True)
    document = estimate.document_vram_gb(model.shape.parameters, train.quantization)
    return Memory(kept, recomputed, document, available, _verdict(kept, recomputed, packed, available))


def _verdict(kept: TrainingMemory, recomputed: TrainingMemory, packed: TrainingMemory, available: int | None) -> str:
    if available is None:
        return "no device to hold it against: give --gpu-memory-gib"
    if kept.total <= available:
        return "fits"
    if recomputed.total <= available:
        return "fits with activations recomputed, which the trainer does by itself"
    if packed.total <= available:
        return "does not fit; with quantization: 4bit it does"
    return "does not fit; take a smaller batch_size or max_seq_length, or a smaller model"


def _recomputes(memory: Memory) -> bool:
    return memory.available_bytes is not None and memory.kept.total > memory.available_bytes


def disk_needs(spec: JobSpec, model: ModelFacts, roots: Roots) -> tuple[DiskNeed, ...]:
    """Everything a job writes: what it is refused for where there is no room."""
    size = ModelSize.of_shape(model.shape)
    fetched = None
    if model.folder is None:
        fetched = DiskNeed("base model", hub_cache(), size.parameters * ELEMENT_BYTES["bfloat16"])
    return tuple(job_needs(spec, size, roots, fetched))


def times(
    spec: JobSpec, model: ModelFacts, data: DataSize, device: DeviceFacts | None, here: DeviceFacts, recompute: bool
) -> tuple[StageTime, ...]:
    """How long each stage is expected to take.

    Args:
        spec: The job.
        model: Its base model.
        data: Its data.
        device: What it trains and answers on; None where that is not known.
        here: This machine's processor, on which llama.cpp converts and answers.
        recompute: Whether the training recomputes activations.
    """
    parameters = model.shape.parameters
    size_gb = 2 * parameters / 1e9
    fetching = 0.0 if model.folder else 2 * parameters / _FETCHED_PER_SECOND
    preparing = (data.training + data.validation) / _PREPARED_PER_SECOND
    converting = size_gb * (_F16_SECONDS_PER_GB + sum(map(_quantizing, spec.convert.quant_types)))
    found = [
        StageTime("prepare", preparing + fetching, "fetching at 100 Mbit/s included" if fetching else ""),
        StageTime("train", training_seconds(spec, model, data, device, recompute), _steps(spec, data)),
        StageTime("merge", size_gb * _MERGE_SECONDS_PER_GB * ELEMENT_BYTES[spec.merge.dtype] / 2),
        StageTime("convert", converting),
        *([StageTime("relearn", _relearning(spec, model, data, device, recompute))] if spec.evaluate.relearn else []),
        *(
            StageTime(f"evaluate {target}", _answering(spec, model, data, on, target))
            for target, on in _targets(spec, device, here)
        ),
    ]
    found.append(StageTime("card", _CARD_SECONDS))
    if spec.install.enabled:
        copied = size_at_most(parameters, spec.convert.quant_types[0])
        found.append(StageTime("install", copied / _COPIED_PER_SECOND))
    found.append(StageTime("report", _REPORT_SECONDS))
    return tuple(
        replace(each, seconds=None if each.seconds is None else each.seconds + _START_SECONDS) for each in found
    )


def training_seconds(
    spec: JobSpec, model: ModelFacts, data: DataSize, device: DeviceFacts | None, recompute: bool
) -> float | None:
    """All training stages of a job, and the evaluations between their steps."""
    if device is None or device.peak_flops is None:
        return None
    train = spec.train
    parameters = model.shape.computing_parameters
    flops = 0.0
    for stage in _stages(spec):
        tokens = stage.epochs * data.training * data.mean_tokens
        reference = stage.method in _NEEDS_REFERENCE or (stage.retain_loss or train.retain_loss) == "kl"
        flops += estimate.training_flops(parameters, tokens, recompute, reference)
    total = _total_steps(spec, data)
    rounds = max(_LEAST_EVALUATIONS, total / min(train.eval_steps, train.save_steps))
    flops += 2 * parameters * rounds * data.validation * data.mean_tokens
    return estimate.seconds_for(flops, device.peak_flops, device.kind, train.quantization)


def _relearning(
    spec: JobSpec, model: ModelFacts, data: DataSize, device: DeviceFacts | None, recompute: bool
) -> float | None:
    """The short training on unrelated data (evaluate.relearn)."""
    relearn = spec.evaluate.relearn
    if relearn is None or device is None or device.peak_flops is None:
        return None
    tokens = relearn.epochs * relearn.examples * data.mean_tokens
    flops = estimate.training_flops(model.shape.computing_parameters, tokens, recompute, reference=False)
    return estimate.seconds_for(flops, device.peak_flops, device.kind, spec.train.quantization)


def _total_steps(spec: JobSpec, data: DataSize) -> int:
    per_step = spec.train.batch_size * spec.train.gradient_accumulation_steps
    return sum(estimate.optimizer_steps(data.training, per_step, stage.epochs) for stage in _stages(spec))


def _stages(spec: JobSpec) -> tuple[TrainSpec | StageSpec, ...]:
    return (spec.train, *spec.train.then)


def _steps(spec: JobSpec, data: DataSize) -> str:
    return f"{_total_steps(spec, data)} steps"


def _quantizing(quant_type: str) -> float:
    if quant_type == "f16":
        return 0.0
    if quant_type in FLOATS:
        return _F16_SECONDS_PER_GB
    return _QUANTIZE_SECONDS_PER_GB.get(quant_type, _OTHER_QUANTS_SECONDS_PER_GB)


def _targets(spec: JobSpec, device: DeviceFacts | None, here: DeviceFacts) -> list[tuple[str, DeviceFacts | None]]:
    """What is evaluated, on what: GGUF files by llama.cpp on the processor, the rest where training was."""
    asked = (*spec.evaluate.targets, *(["control"] if spec.evaluate.control else []))
    asked = (*asked, *(["relearned"] if spec.evaluate.relearn else []))
    folders: list[tuple[str, DeviceFacts | None]] = [(target, device) for target in _FOLDERS if target in asked]
    quants = spec.convert.quant_types if "gguf" in spec.evaluate.targets else ()
    return [*folders, *((quant_type, here) for quant_type in quants)]


def _answering(
    spec: JobSpec, model: ModelFacts, data: DataSize, device: DeviceFacts | None, target: str
) -> float | None:
    """Reading prompts is bound by arithmetic; writing tokens by reading all weights once for each batch."""
    if device is None or device.peak_flops is None:
        return None
    folder = target in _FOLDERS
    parameters = model.shape.computing_parameters
    questions = min(data.validation, 2 * spec.evaluate.limit) + _ATTACKED * len(spec.evaluate.attacks)
    reading = estimate.seconds_for(2 * parameters * questions * data.mean_tokens, device.peak_flops, device.kind)
    batch = _GENERATED_AT_ONCE["transformers" if folder else "llama.cpp"]
    weights = 2 * parameters if folder else size_at_most(parameters, target)  # type: ignore[arg-type]
    steps = questions / batch * min(spec.evaluate.max_tokens, max(1.0, data.mean_answer_tokens))
    return reading + steps * weights / _BYTES_PER_SECOND[device.kind]


def _dtype(device: DeviceFacts | None) -> str:
    if device is None or device.platform is None:
        return "bfloat16" if device is None or device.kind == "cuda" else "float32"
    return device.platform.dtype


def _warnings(spec: JobSpec, model: ModelFacts, device: DeviceFacts | None) -> tuple[str, ...]:
    platform = device.platform if device else None
    of_device = platform.warnings_for(spec.train.quantization) if platform else ()
    return (*model.notes, *of_device)


def as_json(plan: Plan) -> dict[str, Any]:
    """A plan as JSON values: bytes and seconds, nothing rounded into words."""
    memory, device = plan.memory, plan.device
    shape = plan.model.shape
    return {
        "model": {
            "name": plan.model.name,
            "parameters": shape.parameters,
            "known_from": plan.model.where,
            "here": plan.model.folder is not None,
        },
        "data": {
            "training_examples": plan.data.training,
            "validation_examples": plan.data.validation,
            "mean_tokens": round(plan.data.mean_tokens, 1),
            "longest_tokens": plan.data.longest_tokens,
            "tokens": plan.data.how,
        },
        "device": {"name": device.name, "memory_bytes": device.memory_bytes} if device else None,
        "memory": {
            "activations_kept_bytes": round(memory.kept.total),
            "activations_recomputed_bytes": round(memory.recomputed.total),
            "weights_bytes": round(memory.kept.weights),
            "adapter_bytes": round(memory.kept.adapter),
            "document_gb": memory.document_gb,
            "available_bytes": memory.available_bytes,
            "verdict": memory.verdict,
        },
        "disk": [{"what": need.what, "folder": str(need.folder), "size_bytes": need.size_bytes} for need in plan.disk],
        "file_systems": [
            {
                "path": str(each.path),
                "needed_bytes": each.needed_bytes,
                "free_bytes": each.free_bytes,
                "suffices": each.suffices,
            }
            for each in plan.file_systems
        ],
        "time": [{"stage": each.stage, "seconds": each.seconds, "note": each.note} for each in plan.time],
        "warnings": list(plan.warnings),
    }
