"""Whether a folder holds a complete causal language model with safe weights; told without loading it."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cutoff.artifacts import sha256_of
from cutoff.errors import Fault, InvalidInput, NotFound
from cutoff.hub.remote_code import ALLOW_LIST, brings_code, is_known, snapshot_name, trusts_remote_code
from cutoff.hub.tokenizer_files import tokenizer_files

INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.bin.index.json")


def check_model_folder(folder: Path) -> None:
    """Checks that a folder holds a complete causal language model with safe weights, without loading it.

    Raises:
        NotFound: It is not a folder.
        InvalidInput: With everything that lacks or is broken.
    """
    if not folder.is_dir():
        raise NotFound(f"there is no model folder {folder}", "give a hub id (owner/name) or an existing folder")
    faults = [*_config_faults(folder), *_weight_faults(folder)]
    if not tokenizer_files(folder):
        faults.append(Fault(str(folder), "holds no tokenizer", "put the model's tokenizer files beside its weights"))
    if faults:
        raise InvalidInput(faults)


def check_description(folder: Path) -> None:
    """Checks the small files of a model whose weights are yet to be fetched: what is wrong shows before gigabytes.

    Raises:
        InvalidInput: The configuration or the index of weights cannot be used.
    """
    faults = [*_config_faults(folder), *_index_faults(folder)]
    if faults:
        raise InvalidInput(faults)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder: the one, or the shards its index names."""
    index = folder / INDEX
    if index.is_file():
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        return [folder / name for name in names]
    single = folder / _SINGLE
    return [single] if single.is_file() else []


def weights_digest(folder: Path) -> str:
    """A SHA-256 of what a model computes: of its configuration and all its weights, wherever the folder lies."""
    digests = [sha256_of(path) for path in (folder / "config.json", *weight_files(folder))]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _config_faults(folder: Path) -> Iterator[Fault]:
    path = folder / "config.json"
    try:
        config: Any = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        yield Fault(str(folder), "holds no config.json", "give the folder of a Hugging Face model, not of a GGUF")
        return
    except ValueError:
        yield Fault(str(path), "is not JSON", "fetch the file again")
        return
    if not isinstance(config, dict) or not config.get("model_type"):
        yield Fault(str(path), "names no model_type", "give the folder of a Hugging Face model")
        return
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "some method")
        fix = "use the original 16-bit model: an adapter merged into packed weights is lost in their rounding"
        yield Fault(str(path), f"is of a model quantized with {method}", fix)
    yield from _architecture_faults(path, config)


def _architecture_faults(path: Path, config: dict[str, Any]) -> Iterator[Fault]:
    if is_known(config) or trusts_remote_code(path.parent):
        return
    if not brings_code(config):
        fix = "choose a causal language model transformers supports"
        yield Fault(str(path), f"has model_type {config['model_type']!r}, which is no causal language model", fix)
        return
    what = f"has model_type {config['model_type']!r}, which only code in its own repository can load"
    name = snapshot_name(path.parent)
    allow = f"read that code, then set {ALLOW_LIST}={name} where models are loaded; or " if name else ""
    yield Fault(str(path), what, f"{allow}choose a model that transformers supports by itself (docs/models.md)")


def _weight_faults(folder: Path) -> Iterator[Fault]:
    unusable = list(_index_faults(folder))
    if unusable:
        yield from unusable
        return
    files = weight_files(folder)
    if not files:
        pickles = sorted({path.name for pattern in _PICKLES for path in folder.glob(pattern)})
        if pickles:
            what = f"holds its weights as pickles only ({', '.join(pickles[:3])}), which can run code when read"
            yield Fault(str(folder), what, "use a version with safetensors weights")
        else:
            yield Fault(str(folder), "holds no safetensors weights", "put model.safetensors there")
    for path in files:
        problem = _safetensors_problem(path)
        if problem:
            yield Fault(str(path), problem, "fetch the file again")


def _index_faults(folder: Path) -> Iterator[Fault]:
    """What is wrong with the index of shards, where there is one: it must name safetensors files beside it."""
    path = folder / INDEX
    if not path.is_file():
        return
    try:
        names = sorted(set(json.loads(path.read_text("utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError):
        names = []
    if not names or not all(isinstance(name, str) for name in names):
        yield Fault(str(path), "is not an index of weights", "fetch the file again")
        return
    others = [name for name in names if Path(name).suffix != ".safetensors" or Path(name).name != name]
    if others:
        what = f"names {others[0]!r} as weights, which is no safetensors file beside it: pickles can run code when read"
        yield Fault(str(path), what, "use a version with safetensors weights")


def _safetensors_problem(path: Path) -> str:
    """What is wrong with a weights file, told from its header and size; empty when nothing is.

    Format: an 8-byte little-endian header length, the JSON header, then the tensors (safetensors' README).
    """
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, size)))
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "is not a safetensors file"
    wanted = 8 + length + end
    return "" if size == wanted else f"has {size} bytes where its header says {wanted}"
