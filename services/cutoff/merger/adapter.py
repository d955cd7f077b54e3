"""What an adapter folder holds: told from its configuration and from headers, nothing is loaded."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cutoff.errors import Fault, InvalidInput, NotFound
from cutoff.merger.architecture import EMBEDDING, OUTPUT
from cutoff.merger.checkpoint import Stored, Tensors, read_file

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_FINAL = "give the final/ folder of a training run"
_PART = re.compile(
    r"(.+)\.(lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_embedding_A|lora_embedding_B|"
    r"lora_magnitude_vector)(?:\.weight)?"
)

_HANDLED = frozenset(
    (
        *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules", "modules_to_save"),
        *("use_dora", "lora_bias", "ensure_weight_tying", "bias"),
    )
)
"""Settings of adapter_config.json that the streaming merge follows."""

_NEUTRAL = frozenset(
    (
        *("peft_type", "task_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision"),
        *("inference_mode", "lora_dropout", "megatron_core", "qalora_group_size", "loftq_config", "eva_config"),
        *("exclude_modules", "layers_to_transform", "layers_pattern"),
    )
)
"""Settings that say where an adapter came from, or what its file shows: they do not change how it is merged."""

_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of init_lora_weights that leave the base model as it is; the others (pissa, olora, ...) change it."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter's configuration, and its tensors by what they do."""

    folder: Path
    config: Mapping[str, Any]
    pairs: Mapping[str, Mapping[str, Stored]]
    """By module: lora_A, lora_B, lora_B.bias, lora_embedding_A, lora_embedding_B, lora_magnitude_vector."""
    replaced: Mapping[str, Stored]
    """By the base model's tensor: what was trained as a whole (modules_to_save, biases) or is stored beside."""

    def rank(self, module: str) -> int:
        """The rank its configuration gives a module."""
        return int(self._of(module, "rank_pattern", "r"))

    def scale(self, module: str) -> float:
        """What the product of a module's matrices is multiplied with (arXiv 2106.09685; rsLoRA: 2312.03732)."""
        rank, alpha = self.rank(module), float(self._of(module, "alpha_pattern", "lora_alpha"))
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def _of(self, module: str, patterns: str, default: str) -> Any:
        """The value of the first pattern that the module's name ends with, as peft matches it."""
        for pattern, value in (self.config.get(patterns) or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        return self.config[default]


def read_adapter(folder: Path) -> Adapter:
    """Reads an adapter's configuration and headers.

    Raises:
        NotFound: There is no such folder.
        InvalidInput: It is no whole LoRA adapter.
    """
    if not folder.is_dir():
        raise NotFound(f"there is no adapter folder {folder}", _FINAL)
    config = _read_config(folder)
    pairs: dict[str, dict[str, Stored]] = {}
    replaced: Tensors = {}
    for key, stored in read_file(folder / WEIGHTS).items():
        name = key.removeprefix(_PREFIX)
        part = _PART.fullmatch(name)
        if part:
            pairs.setdefault(part[1], {})[part[2].removesuffix(".weight")] = stored
        else:
            replaced[name.replace(".base_layer.", ".")] = stored
    return Adapter(folder, config, pairs, replaced)


def strange_to_streaming(adapter: Adapter) -> Iterator[str]:
    """What the streaming merge does not know about an adapter, in words; empty where it knows everything."""
    config = adapter.config
    for name, value in sorted(config.items()):
        if name == "init_lora_weights":
            if value not in _PLAIN_STARTS:
                yield f"init_lora_weights: {value} changes the base model"
        elif name not in _HANDLED | _NEUTRAL and value not in (None, False, [], {}, ""):
            yield f"{name} is set"
    yield from (f"target_modules leave out {module}" for module in adapter.pairs if not _is_target(config, module))
    for name in adapter.replaced:
        if not (_is_saved(config, name) or _is_trained_bias(config, name) or _is_embedding(adapter, name)):
            yield f"it holds {name}, which no setting of it explains"


def _is_target(config: Mapping[str, Any], module: str) -> bool:
    if _is_kept_tied(config, f"{module}.weight"):
        return True
    targets = config.get("target_modules")
    if isinstance(targets, str):
        return targets == "all-linear" or re.fullmatch(targets, module) is not None
    return any(module == target or module.endswith(f".{target}") for target in targets or ())


def _is_kept_tied(config: Mapping[str, Any], name: str) -> bool:
    """Whether it is one of two embeddings that training kept the same: peft names one of them, and stores both."""
    return bool(config.get("ensure_weight_tying")) and name in (EMBEDDING, OUTPUT)


def _is_saved(config: Mapping[str, Any], name: str) -> bool:
    """Whether a tensor lies in a module that peft trained as a whole: one whose name ends with what was asked for."""
    if _is_kept_tied(config, name):
        return True
    steps = name.split(".")
    inside = [".".join(steps[:depth]) for depth in range(1, len(steps))]
    return any(module.endswith(saved) for saved in config.get("modules_to_save") or () for module in inside)


def _is_trained_bias(config: Mapping[str, Any], name: str) -> bool:
    return name.endswith(".bias") and config.get("bias", "none") != "none"


def _is_embedding(adapter: Adapter, name: str) -> bool:
    """Whether it is the weight below an adapter on an embedding, which peft stores beside it."""
    return name.removesuffix(".weight") in adapter.pairs


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise InvalidInput([Fault(str(folder), f"holds no {CONFIG}", _FINAL)]) from error
    except ValueError as error:
        raise InvalidInput([Fault(str(path), "is not JSON", _FINAL)]) from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise InvalidInput([Fault(str(path), "is not of a LoRA adapter", _FINAL)])
    if not (folder / WEIGHTS).is_file():
        what = f"holds no {WEIGHTS}; weights in pickles are not used, they can run code when read"
        raise InvalidInput([Fault(str(folder), what, _FINAL)])
    return config
