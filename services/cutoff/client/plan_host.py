"""What this machine has: the model's files, the device a job would train on, room on its disks."""

from __future__ import annotations

import difflib
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cutoff.errors import Fault, InvalidInput, NotFound, Refused
from cutoff.hub.candidates import candidate
from cutoff.hub.model_folder import check_model_folder
from cutoff.hub.remote_code import read_json
from cutoff.hub.shape import ModelShape, shape_of
from cutoff.hub.snapshot import cached_snapshot
from cutoff.spec import JobSpec
from cutoff.trainer.flops import PEAK_FLOPS, peak_of
from cutoff.trainer.platforms import CPU, Platform, detect, platform_of_name

_FALLBACK_CORE_FLOPS = 40e9
"""Of one core, in float32, where numpy is not installed to measure it."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The base model, as far as it is known without fetching it."""

    name: str
    shape: ModelShape
    where: str
    """Where its numbers are from, in words."""
    folder: Path | None
    """Its files, if they are here."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What a job would train on."""

    kind: str
    """cpu or cuda (ROCm too)."""
    name: str
    memory_bytes: int | None
    peak_flops: float | None
    """FLOPs per second; on the CPU as measured."""
    platform: Platform | None
    """Its row in the table of platforms, where it is known."""


def model_facts(spec: JobSpec) -> ModelFacts:
    """Finds a model's numbers: in its folder, in the cache, or in the table of candidates; asks no server.

    Raises:
        NotFound: It is in none of them.
        Refused: It is not built as those that can be planned.
        InvalidInput: Its folder is not complete.
    """
    known = candidate(spec.base_model)
    notes = known.notes if known else ()
    if spec.base_model_is_folder:
        folder = Path(spec.base_model).expanduser()
        with suppress(ImportError):  # a client alone has no transformers to know architectures by
            check_model_folder(folder)
        return ModelFacts(spec.base_model, _shape_in(folder), "its folder", folder, notes)
    hub_id, _, revision = spec.base_model.partition("@")
    snapshot = _cached(hub_id, revision or None)
    if snapshot is not None:
        return ModelFacts(spec.base_model, _shape_in(snapshot), "the cache", snapshot, notes)
    if known is not None:
        gated = (f"gated ({known.licence}): HF_TOKEN must have access",) if known.gated else ()
        return ModelFacts(
            spec.base_model, known.shape, "cutoff's table; it is still to be fetched", None, gated + notes
        )
    raise NotFound(
        f"{spec.base_model} is neither in the cache of this machine nor among the models cutoff knows (docs/models.md)",
        "plan where it was fetched already, or give a folder with the model",
    )


def _cached(hub_id: str, revision: str | None) -> Path | None:
    """A complete snapshot in the cache; None where there is none, or no huggingface_hub to keep one."""
    try:
        snapshot = cached_snapshot(hub_id, revision)
        if snapshot is None or snapshot.lacking(snapshot.wanted() or {}):
            return None
    except ImportError:
        return None
    return snapshot.folder


def _shape_in(folder: Path) -> ModelShape:
    config = read_json(folder / "config.json")
    shape = shape_of(config)
    if shape is None:
        what = f"a model of type {config.get('model_type')!r} is not built as those whose memory can be planned"
        raise Refused(what, "train it with memory_budget_gib set: the trainer measures what fits")
    return shape


def cpu() -> DeviceFacts:
    """This machine's processor: its memory, and the speed of its matrix products, measured for half a second."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return DeviceFacts("cpu", f"CPU, {_cores()} cores", memory, matrix_speed(), CPU)


def gpu(name: str | None, memory_gib: float | None) -> DeviceFacts | None:
    """The GPU that was described, or this machine's first; None where there is neither.

    Args:
        name: As vendors call it, "RTX 4090" say.
        memory_gib: Its memory.

    Raises:
        InvalidInput: Nothing is known under that name: the speed could not be told.
    """
    found = None if name or memory_gib else _first_gpu()
    if found is not None:
        return found
    if not name and not memory_gib:
        return None
    memory = int(memory_gib * (1 << 30)) if memory_gib else None
    if not name:
        return DeviceFacts("cuda", "a GPU", memory, None, None)
    peak, platform = peak_of(name), platform_of_name(name)
    if peak is None and platform is None:
        raise InvalidInput([_unknown_gpu(name)])
    return DeviceFacts("cuda", name, memory, peak, platform)


def _unknown_gpu(name: str) -> Fault:
    plain = {_plain(each): each for each in PEAK_FLOPS}
    within = [each for each in plain if _plain(name) in each or each in _plain(name)]
    nearest = within or difflib.get_close_matches(_plain(name), plain, n=3, cutoff=0.5)
    offered = f"did you mean {' or '.join(plain[each] for each in nearest)}?"
    if not nearest:
        offered = f"known are {', '.join(PEAK_FLOPS)}."
    fix = f"{offered} For any other, give only its memory: --gpu-memory-gib 24"
    return Fault("--gpu", f"{name!r} is no GPU cutoff knows", fix)


def _plain(name: str) -> str:
    """A name as it is compared: in lower case, letters and digits only."""
    return "".join(char for char in name.casefold() if char.isalnum())


def _first_gpu() -> DeviceFacts | None:
    try:
        import torch
    except ImportError:
        return None
    if torch.cuda.device_count() == 0:
        return None
    properties = torch.cuda.get_device_properties(0)
    name = str(properties.name)
    return DeviceFacts("cuda", name, int(properties.total_memory), peak_of(name), detect(("cuda:0",)))


def matrix_speed(seconds: float = 0.5) -> float:
    """FLOPs per second of float32 matrix products on this processor."""
    try:
        import numpy
    except ImportError:
        return _FALLBACK_CORE_FLOPS * _cores()
    width, products = 768, 0
    left = numpy.ones((width, width), numpy.float32)
    left @ left  # the first starts the library's threads
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        left @ left
        products += 1
    return 2 * width**3 * products / (time.perf_counter() - started)


def hub_cache() -> Path:
    """Where hub models are kept."""
    try:
        from huggingface_hub import constants
    except ImportError:
        return Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser() / "hub"
    return Path(constants.HF_HUB_CACHE)


def _cores() -> int:
    return len(os.sched_getaffinity(0))
