"""Is this adapter whole, and is it this base model's? Told from configuration and headers, nothing is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from cutoff.errors import Fault, InvalidInput, NotFound
from cutoff.hub import BaseModel
from cutoff.hub.base_model import weight_files

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_SHOWN = 5
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a merged model will consist of."""

    parameters: int
    vocabulary: int | None
    """Rows of the input embedding, where its tensor is known by name."""


def stored_types(folder: Path) -> set[str]:
    """The types of a model's floating-point weights, as safetensors names them: BF16, F16, F32."""
    types: set[str] = set()
    for path in weight_files(folder):
        with safe_open(path, "pt") as file:
            types |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    return {name for name in types if name.startswith(("F", "BF"))}


def check_adapter(adapter: Path, base: BaseModel) -> Sizes:
    """Checks an adapter against the base model it is to be merged into.

    Raises:
        NotFound: There is no such folder.
        InvalidInput: It is no whole LoRA adapter, or one of another base model.
    """
    if not adapter.is_dir():
        raise NotFound(f"there is no adapter folder {adapter}", "give the final/ folder of a training run")
    config = _config(adapter)
    faults = [*_name_faults(config, adapter, base)]
    base_shapes = _shapes(weight_files(base.path))
    faults += _shape_faults(_shapes([adapter / _WEIGHTS]), base_shapes, adapter, base)
    if faults:
        raise InvalidInput(faults)
    embedding = next((shape for name, shape in base_shapes.items() if name.endswith("embed_tokens.weight")), None)
    return Sizes(sum(_count(shape) for shape in base_shapes.values()), embedding[0] if embedding else None)


def _config(adapter: Path) -> dict[str, Any]:
    path = adapter / _CONFIG
    fix = "give the final/ folder of a training run"
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise InvalidInput([Fault(str(adapter), f"holds no {_CONFIG}", fix)]) from error
    except ValueError as error:
        raise InvalidInput([Fault(str(path), "is not JSON", fix)]) from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise InvalidInput([Fault(str(path), "is not of a LoRA adapter", fix)])
    if not (adapter / _WEIGHTS).is_file():
        what = f"holds no {_WEIGHTS}; weights in pickles are not used, they can run code when read"
        raise InvalidInput([Fault(str(adapter), what, fix)])
    return config


def _name_faults(config: dict[str, Any], adapter: Path, base: BaseModel) -> Iterator[Fault]:
    """Two hub ids that differ are two models; of folders only the shapes can tell."""
    trained_on = config.get("base_model_name_or_path")
    if not isinstance(trained_on, str) or base.revision is None or "/" not in trained_on:
        return
    if Path(trained_on).is_absolute() or trained_on.lower() == base.name.lower():
        return
    yield Fault(str(adapter), f"was trained on {trained_on}, not on {base.name}", f"merge it into {trained_on}")


def _shape_faults(adapter_shapes: Shapes, base_shapes: Shapes, adapter: Path, base: BaseModel) -> Iterator[Fault]:
    """A LoRA pair A (r x in), B (out x r) belongs to a weight (out x in) of the same name."""
    wrong = []
    for name, a_shape in adapter_shapes.items():
        module, found, _ = name.removeprefix(_PREFIX).partition(".lora_A.")
        weight = base_shapes.get(f"{module}.weight")
        b_shape = adapter_shapes.get(name.replace(".lora_A.", ".lora_B."))
        if found and weight and b_shape and (b_shape[0], a_shape[-1]) != weight:
            wrong.append(f"{module} is {weight[0]} x {weight[-1]} there, {b_shape[0]} x {a_shape[-1]} here")
    known = any(f"{name.removeprefix(_PREFIX).partition('.lora_')[0]}.weight" in base_shapes for name in adapter_shapes)
    if not known:
        wrong.append("none of its layers is there")
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        what = f"does not fit {base.name}: {'; '.join(wrong[:_SHOWN])}{more}"
        yield Fault(str(adapter), what, "merge it into the model it was trained on")


def _shapes(files: list[Path]) -> Shapes:
    shapes: Shapes = {}
    for path in files:
        try:
            with safe_open(path, "pt") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise InvalidInput([Fault(str(path), f"is damaged: {error}", "make or fetch it again")]) from error
    return shapes


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
