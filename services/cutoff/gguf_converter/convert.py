"""From a merged model to GGUF files: one 16-bit pass, then llama-quantize for each type, checked, then published."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from cutoff import llama_cpp
from cutoff.artifacts import Published, describe, publishing, require_space
from cutoff.datasets import PromptTemplate, load_template
from cutoff.errors import CheckFailed
from cutoff.gguf_converter.gguf_file import GgufFacts, read_gguf
from cutoff.gguf_converter.parity import check_parity
from cutoff.gguf_converter.quant_types import size_at_most
from cutoff.gguf_converter.weights import count_parameters
from cutoff.llama_cpp import LlamaCpp, serve
from cutoff.spec.quant_types import QuantType
from cutoff.stage.report import Reporter

_PARITY_CONTEXT = 512
"""Tokens; nothing is generated, /tokenize takes any length."""


_ANY_LENGTH = 1 << 30


@dataclass(frozen=True, slots=True)
class Converted:
    """The GGUF files of one model."""

    files: Mapping[QuantType, Published]
    parameters: int
    probes: int
    """Prompts whose tokens were compared."""
    seconds: float


def convert_model(
    model: Path,
    outputs: Mapping[QuantType, Path],
    model_name: str,
    llama: LlamaCpp,
    report: Reporter,
    questions: Sequence[str] = (),
) -> Converted:
    """Makes, checks and publishes one GGUF per quantization type.

    Nothing is published before all files are made and checked. They then get their names one after another: what
    stops that in between (a kill, a disk that fails) leaves the first ones published, each of them whole.

    Args:
        model: A merged Hugging Face model with its tokenizer.
        outputs: The file of each type, all in one folder; an existing one is replaced.
        model_name: The model's name inside the files.
        llama: The llama.cpp to use.
        report: Hears of progress and of each published file (artifact kind "gguf").
        questions: Questions whose prompts' tokens are compared beside the built-in ones.

    Raises:
        NotFound, Refused: The model's folder is not complete.
        DiskFull: Before anything is written, or by llama.cpp.
        CheckFailed: A file does not read back, or its tokens differ from the tokenizer's.
        ProgramFailed, OutOfMemory: A program of llama.cpp failed.
    """
    started = time.monotonic()
    parameters = count_parameters(model)
    template = load_template(model)
    template.tokenizer.model_max_length = _ANY_LENGTH  # no warning for the long probe
    folder = next(iter(outputs.values())).parent
    sizes = [size_at_most(parameters, quant_type) for quant_type in {"f16": None, **outputs}]
    require_space(folder, sum(sizes), f"converting {model.name} to {', '.join(outputs)}")
    with ExitStack() as stack:
        partials = {quant_type: stack.enter_context(publishing(path)) for quant_type, path in outputs.items()}
        f16 = partials.get("f16") or stack.enter_context(_Scratch(folder / f".{model_name}-F16.gguf.partial"))
        _make(model, model_name, f16, partials, llama, report)
        _check_files(f16, partials, report)
        probes = _check_tokens(llama, template, partials, questions, report)
    files = {quant_type: describe(path) for quant_type, path in outputs.items()}
    for quant_type, published in files.items():
        report.artifact("gguf", published, quant_type=quant_type)
    return Converted(files, parameters, probes, time.monotonic() - started)


class _Scratch:
    """A file that is gone when its block ends."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Path:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self._path

    def __exit__(self, *_: object) -> None:
        self._path.unlink(missing_ok=True)


def _make(
    model: Path, name: str, f16: Path, partials: Mapping[QuantType, Path], llama: LlamaCpp, report: Reporter
) -> None:
    with report.phase("converting to f16", "percent", 100) as counter:
        llama_cpp.convert(llama, model, f16, name, lambda done, _: counter.at(done), report.warn)
    threads = len(os.sched_getaffinity(0))
    tensors = read_gguf(f16).tensors
    for quant_type, path in partials.items():
        if path == f16:
            continue
        started = time.monotonic()
        with report.phase(f"quantizing to {quant_type}", "tensor", tensors) as counter:
            llama_cpp.quantize(llama, f16, path, quant_type, threads, lambda done, _: counter.at(done), report.log)
        rate = f16.stat().st_size / (time.monotonic() - started)
        report.metric("cutoff_convert_bytes_per_second", rate, quant_type=quant_type)


def _check_files(f16: Path, partials: Mapping[QuantType, Path], report: Reporter) -> None:
    """Reads every file back; all must have the tensors and vocabulary of the 16-bit one."""
    whole = read_gguf(f16)
    for quant_type, path in partials.items():
        facts = read_gguf(path)
        if _shape(facts) != _shape(whole):
            raise CheckFailed(
                f"the {quant_type} file has {_shape(facts)}, the f16 file {_shape(whole)}", "convert again"
            )
        share = facts.size_bytes / whole.size_bytes
        report.log(f"{quant_type}: {facts.size_bytes / 1e6:.1f} MB, {share:.0%} of 16 bit, {facts.tensors} tensors")


def _shape(facts: GgufFacts) -> tuple[str, int, int, bool]:
    return facts.architecture, facts.tensors, facts.vocabulary, facts.has_template


def _check_tokens(
    llama: LlamaCpp,
    template: PromptTemplate,
    partials: Mapping[QuantType, Path],
    questions: Sequence[str],
    report: Reporter,
) -> int:
    """Asks the smallest file: the vocabulary is the same in all of them."""
    smallest = min(partials.values(), key=lambda path: path.stat().st_size)
    with serve(llama, smallest, _PARITY_CONTEXT, threads=1) as server:
        probes = check_parity(template, server, questions)
    report.log(f"tokens of {probes} prompts are the same in transformers and llama.cpp")
    return probes
