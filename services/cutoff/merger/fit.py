"""Does an adapter belong to a base model? Told from names and shapes: all that does not fit, at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cutoff.errors import Fault
from cutoff.hub import BaseModel
from cutoff.merger import architecture
from cutoff.merger.adapter import Adapter
from cutoff.merger.checkpoint import Stored, Tensors

_SHOWN = 5
_CACHED = re.compile(r"models--(.+?)--(.+)")


def fit_faults(
    adapter: Adapter, base: BaseModel, config: Mapping[str, Any], tensors: Tensors, plain: bool
) -> Iterator[Fault]:
    """Everything that speaks against merging an adapter into a base model.

    Args:
        adapter: The adapter.
        base: The base model.
        config: The base model's config.json.
        tensors: The base model's tensors.
        plain: Whether each tensor of the adapter must be for one of these, by its name.
    """
    yield from _name_faults(adapter, base)
    known = architecture.is_known(config)
    if known:
        yield from _missing_faults(base, config, tensors)
    wrong = list(_misfits(adapter, tensors, known and architecture.is_tied(config), plain))
    if adapter.pairs and not any(_weight(tensors, module, tied=True) for module in adapter.pairs):
        wrong.append("none of its layers is there")
    if wrong:
        yield Fault(
            str(adapter.folder),
            f"does not fit {base.name}: {_some(wrong)}",
            "merge it into the model it was trained on",
        )


def _name_faults(adapter: Adapter, base: BaseModel) -> Iterator[Fault]:
    """Two hub ids that differ are two models; of folders only the shapes can tell."""
    trained_on = _hub_id(adapter.config.get("base_model_name_or_path"), folder_like=False)
    given = _hub_id(base.name, folder_like=base.revision is None)
    if trained_on and given and trained_on.lower() != given.lower():
        yield Fault(str(adapter.folder), f"was trained on {trained_on}, not on {given}", f"merge it into {trained_on}")


def _hub_id(name: object, *, folder_like: bool) -> str | None:
    """The hub id that a name or a folder of a hub cache stands for; None where it cannot be told."""
    if not isinstance(name, str):
        return None
    for part in Path(name).parts:
        if cached := _CACHED.fullmatch(part):
            return f"{cached[1]}/{cached[2]}"
    if folder_like or name.startswith(("/", ".", "~")) or name.count("/") != 1:
        return None
    return name.partition("@")[0]


def _missing_faults(base: BaseModel, config: Mapping[str, Any], tensors: Tensors) -> Iterator[Fault]:
    lacks = architecture.missing(config, tensors.keys())
    if lacks:
        yield Fault(str(base.path), f"lacks {_some(lacks)}", "fetch the model again")


def _misfits(adapter: Adapter, tensors: Tensors, tied: bool, plain: bool) -> Iterator[str]:
    """Layers of other sizes, halves without their other half, ranks the configuration does not have."""
    for module, parts in sorted(adapter.pairs.items()):
        weight = _weight(tensors, module, tied)
        if weight is None:
            if plain:
                yield f"{module} is not there"
            continue
        for kind in ("lora", "lora_embedding"):
            yield from _pair_misfits(adapter, module, parts, kind, weight.shape)
        if "lora_B.bias" in parts and f"{module}.bias" not in tensors:
            yield f"{module} has no bias there, and one here"
    for name, stored in sorted(adapter.replaced.items()):
        base = tensors.get(name) or (_weight(tensors, name.removesuffix(".weight"), tied) if plain else None)
        if base and base.shape != stored.shape:
            yield f"{name} is {_times(base.shape)} there, {_times(stored.shape)} here"
        elif plain and base is None:
            yield f"{name} is not there"


def _pair_misfits(
    adapter: Adapter, module: str, parts: Mapping[str, Stored], kind: str, weight: tuple[int, ...]
) -> Iterator[str]:
    """A linear layer (out x in) has A (r x in) and B (out x r); an embedding (in x out) has A (r x in), B (out x r)."""
    first, second = parts.get(f"{kind}_A"), parts.get(f"{kind}_B")
    if not first and not second:
        return
    if not first or not second:
        yield f"{module} has half of its pair"
        return
    here = (second.shape[0], first.shape[-1])
    here = here if kind == "lora" else here[::-1]
    if here != weight:
        yield f"{module} is {_times(weight)} there, {_times(here)} here"
    ranks = {first.shape[0], second.shape[-1]}
    if ranks != {adapter.rank(module)}:
        yield f"{module} has rank {min(ranks)}, {adapter.rank(module)} in the configuration"
    magnitude = parts.get("lora_magnitude_vector")
    if magnitude and magnitude.shape != (here[0 if kind == "lora" else 1],):
        yield f"{module} has {_times(magnitude.shape)} magnitudes for {_times(here)} weights"


def _weight(tensors: Tensors, module: str, tied: bool) -> Stored | None:
    """The weight of a module; of tied embeddings one stands for both."""
    weight = tensors.get(f"{module}.weight")
    both = (architecture.EMBEDDING, architecture.OUTPUT)
    if weight is None and tied and f"{module}.weight" in both:
        return next((tensors[name] for name in both if name in tensors), None)
    return weight


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _some(items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return "; ".join(items[:_SHOWN]) + more
