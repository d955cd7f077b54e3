"""What a model makes of a text: its perplexity, and which inputs of its weights matter (llama-imatrix does both)."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cutoff.errors import CheckFailed
from cutoff.llama_cpp.convert import OnProgress
from cutoff.llama_cpp.location import LlamaCpp
from cutoff.llama_cpp.programs import run_program

CONTEXT = 512
"""Tokens of a chunk. Chunks are read apart from each other."""

_TRIES = 3
"""llama-imatrix ends without waiting for the thread that prints its last lines: on a busy machine one run in forty
says no result (measured)."""

_CHUNKS = re.compile(r"computing over (\d+) chunks, n_ctx=(\d+)")
_DONE = re.compile(r"\[(\d+)\][^\[\s]*,")
"""A chunk that is done, with the perplexity so far: many stand in one line, which ends after every tenth only."""

_FINAL = re.compile(r"Final estimate: PPL = (\S+) \+/- (\S+)")
_REMEDIES = {
    "failed to load": "the GGUF may be damaged, or made for another version of llama.cpp: convert again",
    "you need at least": "give a longer text",
}


@dataclass(frozen=True, slots=True)
class Perplexity:
    """How surprised a model is by a text: the exponential of its mean negative log likelihood per token."""

    value: float
    """Not a number when the model computes none."""
    error: float
    """One standard error of the estimate."""
    tokens: int
    """Tokens read, in whole chunks."""


def context_for(tokens: int, longest: int) -> int:
    """The chunk size for a text of so many tokens: llama-imatrix wants two chunks at least.

    Args:
        tokens: The text's.
        longest: What the model was trained for; 0 when that is not known.
    """
    size = min(CONTEXT, longest or CONTEXT)
    while size > 1 and 2 * size > tokens:
        size //= 2
    return size


def perplexity(
    llama: LlamaCpp, gguf: Path, text: Path, context: int, threads: int, on_progress: OnProgress
) -> Perplexity:
    """Measures the perplexity of a text.

    llama-imatrix measures it on the way to its matrix, over every token of each chunk but the first. Special tokens
    in the text are read as such.

    Args:
        llama: The llama.cpp to use.
        gguf: The model.
        text: A text of at least two chunks.
        context: Tokens of a chunk.
        threads: How many threads to use.
        on_progress: Gets chunks done and chunks in all.

    Raises:
        CheckFailed: It ended without a result.
        ProgramFailed, OutOfMemory: llama-imatrix failed.
    """
    with tempfile.TemporaryDirectory(prefix="cutoff-") as scratch:
        for _ in range(_TRIES):
            found = _run(llama, gguf, text, Path(scratch) / "imatrix.gguf", context, threads, on_progress)
            if found is not None:
                return found
    raise CheckFailed(f"llama-imatrix measured no perplexity of {gguf.name}", "convert again")


def importance_matrix(
    llama: LlamaCpp, gguf: Path, text: Path, target: Path, context: int, threads: int, on_progress: OnProgress
) -> None:
    """Writes the importance matrix of a model for a text: how strongly each input of each weight is used.

    Args:
        llama: The llama.cpp to use.
        gguf: The model, in 16 bit.
        text: A text of at least two chunks.
        target: The matrix to write.
        context: Tokens of a chunk.
        threads: How many threads to use.
        on_progress: Gets chunks done and chunks in all.

    Raises:
        ProgramFailed, OutOfMemory, DiskFull: llama-imatrix failed.
        CheckFailed: It wrote nothing.
    """
    # Its perplexity is measured on the way, because llama-imatrix tells how far it is with that only.
    _run(llama, gguf, text, target, context, threads, on_progress)
    if not target.is_file():
        raise CheckFailed(f"llama-imatrix wrote no importance matrix of {gguf.name}", "give a longer text")


def _run(
    llama: LlamaCpp,
    gguf: Path,
    text: Path,
    target: Path,
    context: int,
    threads: int,
    on_progress: OnProgress,
) -> Perplexity | None:
    chunks, size = 0, context
    result: Perplexity | None = None

    def on_line(line: str) -> None:
        nonlocal chunks, size, result
        if found := _CHUNKS.search(line):
            chunks, size = int(found[1]), int(found[2])
        elif found := _FINAL.search(line):
            result = Perplexity(float(found[1]), float(found[2]), chunks * size)
        else:
            on_part(line)

    def on_part(line: str) -> None:
        if line.startswith("[") and chunks and (done := _DONE.findall(line)):
            on_progress(min(int(done[-1]), chunks), chunks)

    command = [
        *(str(llama.imatrix), "--model", str(gguf), "--file", str(text), "--output-file", str(target)),
        *("--ctx-size", str(context), "--batch-size", str(context), "--threads", str(threads), "--parse-special"),
        *("--poll", "0", "--device", "none", "--offline"),
    ]
    run_program(command, f"reading {text.name} with {gguf.name}", on_line, None, _REMEDIES, on_part)
    return result
