"""Makes GGUF files: convert_hf_to_gguf.py for the 16-bit one, llama-quantize for the others."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from cutoff.llama_cpp.location import LlamaCpp
from cutoff.llama_cpp.programs import run_program

OnProgress = Callable[[int, int], None]
"""Told (units done, units in all)."""

OnNote = Callable[[str], None]
"""Told a line a person may want to read."""

_WRITTEN = re.compile(r"Writing:\s+(\d+)%")
_TENSOR = re.compile(r"^\[\s*(\d+)/\s*(\d+)\]")
_NO_SCALING = "Unknown RoPE type: default"
"""What the script says of every model transformers 5 saved: it scales no positions, which is what is meant."""

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
_NO_CODE = {"HF_MODULES_CACHE": os.devnull}
"""The script trusts any code beside a tokenizer; transformers must copy it here first, and cannot."""

_UPDATE = "or give a newer llama.cpp by --llama_cpp_path (convert.llama_cpp_path in job.yaml)"
_CONVERT_REMEDIES = {
    "BPE pre-tokenizer was not": f"llama.cpp does not know this tokenizer: take another base model, {_UPDATE}",
    "is not supported": f"llama.cpp does not know this architecture: take another base model, {_UPDATE}",
    "No such file or directory": "check that all files of the model are in its folder",
    "SafetensorError": "a weight file is damaged: merge again",
    "FileNotFoundError": "check that all files of the model, its tokenizer too, are in its folder",
}


def _ignore(line: str) -> None:
    del line


def convert(
    llama: LlamaCpp, model: Path, target: Path, name: str, on_progress: OnProgress, on_note: OnNote = _ignore
) -> None:
    """Writes a Hugging Face model as one f16 GGUF. Nothing is fetched: the model's folder must be complete.

    Args:
        llama: The llama.cpp to use.
        model: A folder with config.json, safetensors and tokenizer files.
        target: The GGUF to write.
        name: The model's name inside the GGUF.
        on_progress: Gets percent written and 100.
        on_note: Gets the script's warnings.

    Raises:
        ProgramFailed, OutOfMemory, DiskFull: The script failed.
    """

    def on_line(line: str) -> None:
        if found := _WRITTEN.search(line):
            on_progress(int(found[1]), 100)
        elif line.startswith("WARNING") and _NO_SCALING not in line:
            on_note(line)

    # A checkout of the user's own imports its own gguf-py, which may be newer than the one installed here.
    environment = {**_OFFLINE, **_NO_CODE, "PYTHONPATH": str(llama.folder / "gguf-py")}
    script = [sys.executable, str(llama.convert_script), str(model), "--outfile", str(target), "--outtype", "f16"]
    what = f"converting {model} to GGUF"
    run_program([*script, "--model-name", name], what, on_line, environment, _CONVERT_REMEDIES)


def quantize(
    llama: LlamaCpp,
    source: Path,
    target: Path,
    quant_type: str,
    threads: int,
    on_progress: OnProgress,
    on_note: OnNote = _ignore,
) -> None:
    """Quantizes a 16-bit GGUF.

    Args:
        llama: The llama.cpp to use.
        source: The 16-bit GGUF.
        target: The GGUF to write.
        quant_type: As the user writes it: "q4_k_m".
        threads: How many threads to use.
        on_progress: Gets tensors done and tensors in all.
        on_note: Gets a line for each tensor that could not be stored in the type asked for (its rows are no
            multiple of 256, say) and was stored in a larger one.

    Raises:
        ProgramFailed, OutOfMemory, DiskFull: llama-quantize failed.
    """

    def on_line(line: str) -> None:
        if found := _TENSOR.match(line):
            on_progress(int(found[1]), int(found[2]))
        if "fallback" in line:
            on_note(line)

    command = [str(llama.quantize), str(source), str(target), quant_type.upper(), str(threads)]
    remedies = {"failed to quantize": "the 16-bit file may be damaged: convert again, with --quant_type f16 first"}
    run_program(command, f"quantizing to {quant_type}", on_line, remedies=remedies)
