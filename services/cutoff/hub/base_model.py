"""Where the base model's files are: a folder that is used in place, or a hub model that is fetched once.

A hub id is resolved to a commit, so that every stage of a job uses the same files. Only weights in safetensors,
configuration and tokenizer files are fetched: pickles could run code, and nothing here ever does.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutoff.artifacts import require_space
from cutoff.errors import Fault, InvalidInput, NotFound, Refused, Unavailable
from cutoff.hub.tokenizer_files import TOKENIZER_FILES, tokenizer_files

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

_INDEX = "model.safetensors.index.json"
_WEIGHTS = ("model.safetensors", "model-*.safetensors", _INDEX)
_FETCHED = (*_WEIGHTS, *TOKENIZER_FILES, "config.json", "generation_config.json", "LICENSE*")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_TIMEOUT = 20.0

Progress = Callable[[int, int], None]
"""Told (bytes that are there, bytes in all)."""


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model on this machine."""

    path: Path
    """The folder with its files."""
    name: str
    """As the user names it, without a revision: a hub id or a folder."""
    revision: str | None
    """The commit of a hub model."""


def resolve_base_model(name: str, on_bytes: Progress | None = None) -> BaseModel:
    """Finds a base model's files; fetches a hub model into the shared cache (HF_HOME) when they are not there.

    Args:
        name: A folder, or a hub id, optionally with @revision.
        on_bytes: Told how far the fetching is.

    Raises:
        NotFound: There is no such folder, model or revision.
        InvalidInput: The folder's or model's files cannot be used.
        Refused: The model is gated and HF_TOKEN gives no access.
        DiskFull: The cache's disk has no room for it.
        Unavailable: The hub does not answer, and the cache does not hold the model.
    """
    folder = Path(name).expanduser()
    if name.startswith(("/", "./", "../", "~")) or folder.is_dir():
        check_model_folder(folder)
        return BaseModel(folder.resolve(), str(folder.resolve()), None)
    hub_id, _, revision = name.partition("@")
    model = _fetch(hub_id, revision or None, on_bytes)
    check_model_folder(model.path)
    return model


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


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder: the one, or the shards its index names."""
    index = folder / _INDEX
    if index.is_file():
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        return [folder / name for name in names]
    single = folder / "model.safetensors"
    return [single] if single.is_file() else []


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
    yield from _architecture_faults(path, str(config["model_type"]))


def _architecture_faults(path: Path, model_type: str) -> Iterator[Fault]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        fix = "choose a causal language model transformers supports; code of a model's own is never executed"
        yield Fault(str(path), f"has model_type {model_type!r}, which is no causal language model", fix)


def _weight_faults(folder: Path) -> Iterator[Fault]:
    try:
        files = weight_files(folder)
    except (ValueError, KeyError, AttributeError):
        yield Fault(str(folder / _INDEX), "is not an index of weights", "fetch the file again")
        return
    if not files:
        pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
        if pickles:
            what = f"holds its weights as pickles only ({', '.join(pickles[:3])}), which can run code when read"
            yield Fault(str(folder), what, "use a version with safetensors weights")
        else:
            yield Fault(str(folder), "holds no safetensors weights", "put model.safetensors there")
    for path in files:
        problem = _safetensors_problem(path)
        if problem:
            yield Fault(str(path), problem, "fetch the file again")


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


def _fetch(hub_id: str, revision: str | None, on_bytes: Progress | None) -> BaseModel:
    """Fetches a hub model's files at one commit; uses the cache when the hub cannot be reached."""
    from httpx2 import HTTPError  # what huggingface_hub speaks through
    from huggingface_hub import HfApi, constants, errors, hf_hub_download

    with _hub_errors(hub_id, revision):
        try:
            info = HfApi().model_info(hub_id, revision=revision, files_metadata=True, timeout=_TIMEOUT)
        except errors.HfHubHTTPError:
            raise
        except (HTTPError, errors.OfflineModeIsEnabled) as error:
            return _cached(hub_id, revision, error)
        sizes = _wanted_files(info)
        _require_room(hub_id, sizes, str(info.sha), Path(constants.HF_HUB_CACHE))
        path = _download(hub_id, sizes, str(info.sha), on_bytes)
        # Asked by the revision's name, the cache remembers which commit that is: for a time without a network.
        hf_hub_download(hub_id, "config.json", revision=revision)
    return BaseModel(path, hub_id, str(info.sha))


def _wanted_files(info: ModelInfo) -> dict[str, int]:
    """The files to fetch, with their sizes in bytes.

    Raises:
        InvalidInput: The repository has no safetensors weights.
    """
    files = {entry.rfilename: entry.size or 0 for entry in info.siblings or []}
    if not any(fnmatch(name, pattern) for name in files for pattern in _WEIGHTS):
        what = "has no safetensors weights; pickles are not used, they can run code when read"
        raise InvalidInput([Fault(info.id, what, "choose a model or revision with safetensors")])
    return {
        name: size
        for name, size in files.items()
        if any(fnmatch(name, pattern) and name.count("/") == pattern.count("/") for pattern in _FETCHED)
    }


def _require_room(hub_id: str, sizes: dict[str, int], commit: str, cache: Path) -> None:
    from huggingface_hub import try_to_load_from_cache

    lacking = [
        size
        for name, size in sizes.items()
        if not isinstance(try_to_load_from_cache(hub_id, name, revision=commit), str)
    ]
    if lacking:
        require_space(cache, sum(lacking), f"fetching {hub_id}")


def _download(hub_id: str, sizes: dict[str, int], commit: str, on_bytes: Progress | None) -> Path:
    """Fetches file by file, the small ones first, so that what is wrong with a model shows early."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    done, total = 0, sum(sizes.values())
    folder = Path()
    for name, size in sorted(sizes.items(), key=lambda item: item[1]):
        folder = Path(hf_hub_download(hub_id, name, revision=commit)).parents[name.count("/")]
        done += size
        if on_bytes:
            on_bytes(done, total)
    return folder


def _cached(hub_id: str, revision: str | None, error: Exception) -> BaseModel:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(hub_id, "config.json", revision=revision)
    if not isinstance(config, str):
        raise Unavailable(
            f"{hub_id} is not in the cache, and the hub cannot be reached: {error}",
            "connect this machine to huggingface.co once, or give a folder with the model",
        ) from error
    path = Path(config).parent
    return BaseModel(path, hub_id, path.name)


@contextmanager
def _hub_errors(hub_id: str, revision: str | None) -> Iterator[None]:
    """Gives what the hub answers its name and its remedy."""
    from httpx2 import HTTPError
    from huggingface_hub import errors

    page = f"https://huggingface.co/{hub_id}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise Refused(
            f"{hub_id} is gated, and {_token_state()}",
            f"accept its terms on {page}, then set HF_TOKEN (in containers HF_TOKEN_FILE) to a token of that account",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise NotFound(f"{hub_id} has no revision {revision!r}", f"see {page}/commits/main") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise NotFound(
            f"there is no model {hub_id} on the hub that you may see ({_token_state()})",
            "check its spelling; for a private model set HF_TOKEN; begin a folder with ./ or /",
        ) from error
    except errors.HfHubHTTPError as error:
        raise Unavailable(
            f"the hub did not give {hub_id}: {error}", "try again later; HF_TOKEN must be valid"
        ) from error
    except (HTTPError, errors.LocalEntryNotFoundError) as error:
        raise Unavailable(f"the connection to the hub broke while fetching {hub_id}: {error}", "try again") from error


def _token_state() -> str:
    from huggingface_hub import get_token

    return "the token that is set gives no access" if get_token() else "HF_TOKEN is not set"
