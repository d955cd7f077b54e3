"""Quantizes a GGUF: llama.cpp's llama-quantize."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cutoff.llama_cpp.convert import OnProgress
from cutoff.llama_cpp.location import LlamaCpp
from cutoff.llama_cpp.programs import run_program

_TENSOR = re.compile(r"^\[\s*(\d+)/\s*(\d+)\]")
_FALLBACK = re.compile(
    r"(\S+)\s+-\s+ncols\s+(\d+) not divisible by (\d+) \(required for type\s+(\S+?)\).*falling back to\s+(\S+)"
)
_FELL_BACK = re.compile(r"(\d+) of (\d+) tensor\(s\) required fallback")
_REMEDIES = {
    "requires an im": "give retain data for an importance matrix (convert.imatrix: auto, --retain_train)",
    "failed to quantize": "the 16-bit file may be damaged: convert again, with --quant_type f16 first",
}


@dataclass(frozen=True, slots=True)
class Fallback:
    """A tensor that could not be stored in the type that was meant for it."""

    tensor: str
    columns: int
    """The length of its rows."""
    multiple: int
    """Which the type's rows must be a multiple of."""
    wanted: str
    got: str
    """The type it was stored in: a larger one."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """What llama-quantize said of its work."""

    fell_back: int
    """Tensors stored in a larger type than was meant for them."""
    fallbacks: tuple[Fallback, ...]
    """Those of them that it named."""


def quantize(
    llama: LlamaCpp,
    source: Path,
    target: Path,
    quant_type: str,
    threads: int,
    on_progress: OnProgress,
    imatrix: Path | None = None,
) -> Quantized:
    """Quantizes a 16-bit GGUF.

    Args:
        llama: The llama.cpp to use.
        source: The 16-bit GGUF; its metadata are copied.
        target: The GGUF to write.
        quant_type: As the user writes it: "q4_k_m".
        threads: How many threads to use.
        on_progress: Gets tensors done and tensors in all.
        imatrix: An importance matrix of the same model.

    Raises:
        ProgramFailed, OutOfMemory, DiskFull: llama-quantize failed.
    """
    fallbacks: list[Fallback] = []
    fell_back = 0

    def on_line(line: str) -> None:
        nonlocal fell_back
        if found := _TENSOR.match(line):
            on_progress(int(found[1]), int(found[2]))
        elif found := _FALLBACK.search(line):
            name, columns, multiple, wanted, got = found.groups()
            fallbacks.append(Fallback(name, int(columns), int(multiple), wanted, got))
        elif found := _FELL_BACK.search(line):
            fell_back = int(found[1])

    given = ["--imatrix", str(imatrix)] if imatrix else []
    command = [str(llama.quantize), *given, str(source), str(target), quant_type.upper(), str(threads)]
    run_program(command, f"quantizing to {quant_type}", on_line, remedies=_REMEDIES)
    return Quantized(max(fell_back, len(fallbacks)), tuple(fallbacks))
