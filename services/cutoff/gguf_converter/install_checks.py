"""Whether a model could be installed under its name: said at once, before hours of work, and writing nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from cutoff.artifacts import Roots, require_makeable
from cutoff.errors import AlreadyExists, Fault, InvalidInput, Refused
from cutoff.gguf_converter.install_records import RECORDS, Record
from cutoff.llama_cpp import LlamaCpp
from cutoff.spec import ConvertSpec, InstallSpec
from cutoff.spec.quant_types import QuantType
from cutoff.spec.quantizations import file_name
from cutoff.v1 import gguf_converter_pb2, job_pb2

ANOTHER_FOLDER = (
    "set LMSTUDIO_MODELS (--lmstudio_models) to LM Studio's models folder, "
    "and make it writable for the user cutoff runs as: sudo chown UID:GID FOLDER (in containers CUTOFF_UID, CUTOFF_GID)"
)
_REPLACE = (
    "set install.replace: true (--replace) to put the new model in its place, "
    "or choose another install.model_name (--model_name)"
)
_MOVE_IT = "move it away, or choose another install.model_name (--model_name)"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be installed, as far as it is known."""

    quant_type: QuantType
    sha256: str = ""
    """Empty before the file was made: then nothing that is there can be the same."""


def install_spec(publisher: str, model_name: str, replace: bool = False) -> InstallSpec:
    """Where to install, checked.

    Raises:
        InvalidInput: A name is no plain name.
    """
    try:
        return InstallSpec(publisher=publisher, model_name=model_name, replace=replace)
    except ValidationError as error:
        fix = "begin with a letter or digit; use letters, digits, '.', '_' and '-'"
        faults = [Fault(str(one["loc"][0]), f"{one['input']!r} is not a plain name", fix) for one in error.errors()]
        raise InvalidInput(faults) from error


def requested_spec(spec: job_pb2.InstallSpec) -> InstallSpec:
    """Where a request wants to install, checked; what it leaves out has the specification's default.

    Raises:
        InvalidInput: A name is no plain name.
    """
    defaults = InstallSpec()
    return install_spec(spec.publisher or defaults.publisher, spec.model_name or defaults.model_name, spec.replace)


def requested_type(quant_type: str) -> QuantType:
    """The quantization type a request names; the specification's default when it names none.

    Raises:
        InvalidInput: There is no such type.
    """
    return requested_conversion({"quant_types": [quant_type]} if quant_type else {}).quant_types[0]


def requested_conversion(fields: Mapping[str, Any]) -> ConvertSpec:
    """What a request wants converted, checked.

    Raises:
        InvalidInput: A field holds what it may not.
    """
    try:
        return ConvertSpec.model_validate(fields)
    except ValidationError as error:
        faults = [Fault(".".join(map(str, one["loc"])) or "spec", one["msg"], "") for one in error.errors()]
        raise InvalidInput(faults) from error


def check_install(roots: Roots, request: gguf_converter_pb2.CheckInstallRequest) -> Path:
    """`check_folder` for the service: answers CheckInstall. A missing llama.cpp is noticed here too: it is early.

    Raises:
        InvalidInput: A name is no plain name.
        NotFound: The llama.cpp the job asks for is not there.
        Refused, AlreadyExists: As `check_folder`.
    """
    wanted = Wanted(requested_type(request.quant_type), request.sha256)
    folder = check_folder(roots.models, requested_spec(request.spec), wanted, roots.artifacts / RECORDS)
    LlamaCpp.of_job(roots.cache, request.llama_cpp_path)
    return folder


def check_folder(models_root: Path, spec: InstallSpec, wanted: Wanted, records: Path) -> Path:
    """Says whether a model could be installed under this name.

    Args:
        models_root: LM Studio's models folder; it need not exist yet.
        spec: Publisher and model name, and whether another model of that name may be replaced.
        wanted: What is to be installed.
        records: Where it is written down what cutoff installed.

    Returns:
        The folder the model would be installed in.

    Raises:
        Refused: The folder cannot be made or written, or is reached through a symbolic link.
        AlreadyExists: It holds another GGUF, which is not to be replaced.
    """
    folder = model_folder(models_root, spec)
    require_makeable(folder, ANOTHER_FOLDER)
    if folder.is_dir():
        to_replace(folder, spec, wanted, Record.of(folder, records))
    return folder


def model_folder(models_root: Path, spec: InstallSpec) -> Path:
    """The folder of a model. The models folder itself may be a symbolic link; nothing below it may.

    Raises:
        Refused: The publisher's or the model's folder is one: it would lead the installation elsewhere.
    """
    publisher = models_root / spec.publisher
    folder = publisher / spec.model_name
    for path in (publisher, folder):
        if path.is_symlink():
            where = path.readlink()
            raise Refused(f"{path} is a symbolic link to {where}", "make it a real folder, or choose another name")
    return folder


def to_replace(folder: Path, spec: InstallSpec, wanted: Wanted, record: Record) -> set[Path]:
    """The GGUF files that have to go when another one is installed; the same content stays as it is.

    A model folder holds one GGUF. With install.replace, what cutoff put there and what bears the new file's very
    name give way; a file that somebody else put there under another name never does. Where the new file is there
    already, what cutoff put beside it was left by a replacement that was killed, and gives way too.

    Raises:
        AlreadyExists: There is one that may not be replaced.
    """
    target = folder / file_name(spec.model_name, wanted.quant_type)
    found = {path for path in folder.iterdir() if path.suffix.lower() == ".gguf"}
    others = {path for path in found if not (path == target and _is_wanted(path, wanted, record))}
    ours = {folder / file_name(spec.model_name, name) for name in get_args(QuantType)}
    leftovers = ours if target in found - others and record.has(target) else set()
    for path in sorted(others):
        own = record.has(path)
        owner = "was installed by cutoff" if own else "was not installed by cutoff, or was changed since"
        if path.is_dir() or not (own or path == target):
            raise AlreadyExists(f"{path} {owner}; it stays as it is", _MOVE_IT)
        if not (spec.replace or path in leftovers):
            raise AlreadyExists(f"{path} is there already; it {owner}, and stays as it is", _REPLACE)
    return others


def _is_wanted(path: Path, wanted: Wanted, record: Record) -> bool:
    """Whether a file, a real one, has the content that is to be installed."""
    if not wanted.sha256 or path.is_symlink() or not path.is_file():
        return False
    return record.sha256_of(path) == wanted.sha256
