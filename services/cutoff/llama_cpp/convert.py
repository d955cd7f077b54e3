"""A Hugging Face model as one GGUF of whole floats: llama.cpp's convert_hf_to_gguf.py."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from cutoff.errors import ProgramFailed, Refused
from cutoff.hub.remote_code import read_json
from cutoff.llama_cpp.location import LlamaCpp
from cutoff.llama_cpp.programs import run_program

OutType = Literal["f32", "f16", "bf16", "q8_0"]
"""What the script writes by itself."""

OnProgress = Callable[[int, int], None]
"""Told (units done, units in all)."""

OnNote = Callable[[str], None]
"""Told a line a person may want to read."""

_WITH_METADATA = Path(__file__).with_name("script_with_metadata.py")
_WRITTEN = re.compile(r"Writing:\s+(\d+)%")
_NO_SCALING = "Unknown RoPE type: default"
"""What the script says of every model transformers 5 saved: it scales no positions, which is what is meant."""

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
_NO_CODE = {"HF_MODULES_CACHE": os.devnull}
"""The script trusts any code beside a tokenizer; transformers must copy it here first, and cannot."""

_UPDATE = "or give a newer llama.cpp by --llama_cpp_path (convert.llama_cpp_path in job.yaml)"
_REMEDIES = {
    "BPE pre-tokenizer was not": f"llama.cpp does not know this tokenizer: take another base model, {_UPDATE}",
    "is not supported": f"llama.cpp does not know this architecture: take another base model, {_UPDATE}",
    "No such file or directory": "check that all files of the model are in its folder",
    "SafetensorError": "a weight file is damaged: merge again",
    "FileNotFoundError": "check that all files of the model, its tokenizer too, are in its folder",
}

_UNKNOWN = (
    (re.compile(r"BPE pre-tokenizer was not recognized"), "tokenizer"),
    (re.compile(r"Model (\S+) is not supported"), "architecture"),
    (re.compile(r"FileNotFoundError: (?:File not found: |Cannot find )(.+)"), "tokenizer"),
)
"""What the script says of a model that it cannot convert, whatever its weights."""
_FINGERPRINT = re.compile(r"chkhsh:\s+(\w+)")
"""How it names a pre-tokenizer: the SHA-256 of the ids of a fixed text (get_vocab_base_pre)."""


def ignore(line: str) -> None:
    """Hears a note and does nothing."""
    del line


def convert(
    llama: LlamaCpp,
    model: Path,
    target: Path,
    name: str,
    on_progress: OnProgress,
    on_note: OnNote = ignore,
    out_type: OutType = "f16",
    general: Mapping[str, Any] | None = None,
    own: Mapping[str, str] | None = None,
) -> None:
    """Writes a Hugging Face model as one GGUF. Nothing is fetched: the model's folder must be complete.

    Args:
        llama: The llama.cpp to use.
        model: A folder with config.json, safetensors and tokenizer files.
        target: The GGUF to write.
        name: The model's name inside the GGUF.
        on_progress: Gets percent of the bytes written, tensor by tensor, and 100.
        on_note: Gets the script's warnings.
        out_type: What its weights become; vectors stay f32.
        general: Metadata with keys of `general.*`, in the form of the script's --metadata.
        own: Further keys, whose values are texts.

    Raises:
        ProgramFailed, OutOfMemory, DiskFull: The script failed.
    """

    def on_line(line: str) -> None:
        if found := _WRITTEN.search(line):
            on_progress(int(found[1]), 100)
        elif line.startswith("WARNING") and _NO_SCALING not in line:
            on_note(line)

    with tempfile.TemporaryDirectory(prefix="cutoff-") as scratch:
        for file, values in (("general.json", general), ("own.json", own)):
            (Path(scratch) / file).write_text(json.dumps(dict(values or {})), encoding="utf-8")
        command = [
            *(sys.executable, "-P", str(_WITH_METADATA), f"{scratch}/own.json"),
            *(str(llama.convert_script), str(model), "--outfile", str(target), "--outtype", out_type),
            *("--model-name", name, "--metadata", f"{scratch}/general.json"),
        ]
        run_program(command, f"converting {model} to GGUF", on_line, _environment(llama), _REMEDIES)


def require_known(llama: LlamaCpp, folder: Path, name: str) -> None:
    """Refuses a model whose tokenizer or architecture llama.cpp does not know, without its weights and in seconds.

    The script's own conversion of the vocabulary decides (--vocab-only): a BPE tokenizer is known by the ids that it
    makes of a fixed text, a SentencePiece one by its file, an architecture by its name in config.json.

    Args:
        llama: The llama.cpp that is to convert it.
        folder: Its config.json and tokenizer files.
        name: What the user calls it.

    Raises:
        Refused: It is not known; the message says what of it, the remedy what to do.
        OutOfMemory, DiskFull: As `run_program`.
        ProgramFailed: The script failed otherwise: that may be for want of the weights.
    """
    said: list[str] = []
    with tempfile.TemporaryDirectory(prefix="cutoff-") as scratch:
        (Path(scratch) / "own.json").write_text("{}", encoding="utf-8")
        command = [
            *(sys.executable, "-P", str(_WITH_METADATA), f"{scratch}/own.json"),
            *(str(llama.convert_script), str(folder), "--outfile", f"{scratch}/vocabulary.gguf", "--vocab-only"),
        ]
        try:
            run_program(command, f"reading the vocabulary of {name}", said.append, _environment(llama), _REMEDIES)
        except ProgramFailed as error:
            refused = _unknown("\n".join(said), folder, name, llama.version())
            if refused is None:
                raise
            raise refused from error


def _unknown(said: str, folder: Path, name: str, version: str) -> Refused | None:
    """What the script does not know of a model; None where it failed in another way."""
    what = next((what for words, what in _UNKNOWN if words.search(said)), None)
    if what is None:
        return None
    if what == "architecture":
        named = ", ".join(map(str, read_json(folder / "config.json").get("architectures") or []))
    else:
        fingerprint = _FINGERPRINT.search(said)
        named = str(read_json(folder / "tokenizer_config.json").get("tokenizer_class") or "of no named class")
        named += f", pre-tokenizer {fingerprint[1][:12]}..." if fingerprint else ""
    return Refused(
        f"llama.cpp {version} does not know the {what} of {name} ({named}): it could be trained, and not converted",
        f"take another base model (docs/models.md), {_UPDATE}",
    )


def _environment(llama: LlamaCpp) -> dict[str, str]:
    """A checkout of the user's own imports its own gguf-py, which may be newer than the one installed here."""
    return {**_OFFLINE, **_NO_CODE, "PYTHONPATH": str(llama.folder / "gguf-py")}
