"""From a merged model to GGUF files: one 16-bit pass, every type from it, all checked, then all published."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cutoff import llama_cpp
from cutoff.artifacts import Published, publishing, sha256_of
from cutoff.datasets import PromptTemplate, load_template
from cutoff.gguf_converter.checks import Check, Checks
from cutoff.gguf_converter.gguf_file import read_gguf
from cutoff.gguf_converter.making import Made, Workshop, is_float
from cutoff.gguf_converter.order import Order, require_possible
from cutoff.gguf_converter.perplexity import judge, judge_whole
from cutoff.gguf_converter.serving import check_answer, check_tokens_and_answer
from cutoff.gguf_converter.weights import Weights, count_parameters, measure_weights
from cutoff.llama_cpp import LlamaCpp, Perplexity
from cutoff.llama_cpp.imatrix import context_for
from cutoff.spec.quant_types import QuantType
from cutoff.stage.report import Reporter

MANIFEST = "convert.json"
"""The record of a job's conversion, beside its files."""

_ANY_LENGTH = 1 << 30


@dataclass(frozen=True, slots=True)
class Converted:
    """The GGUF files of one model, and what was found about them."""

    files: Mapping[QuantType, Published]
    made: Mapping[QuantType, Made]
    kept: Published | None
    """The 16-bit file, where it was asked for beside the others."""
    sixteen_bit: str
    """The type of the 16-bit file: f16 or bf16."""
    parameters: int
    probes: int
    """Prompts whose tokens were compared."""
    checks: tuple[Check, ...]
    steps: Mapping[str, float]
    """Seconds by what was made."""
    seconds: float

    def summary(self, root: Path) -> dict[str, Any]:
        """As JSON; paths are relative to a root.

        files (quant_type, path, size_bytes, sha256, bits_per_weight, tensor_types, fell_back), kept, sixteen_bit,
        parameters, probes, checks (name, target, figure, verdict, state, seconds), steps, seconds.
        """
        return {
            "files": [
                {
                    "quant_type": quant_type,
                    **_described(file, root),
                    "bits_per_weight": round(self.made[quant_type].compared.bits_per_weight, 3),
                    "tensor_types": self.made[quant_type].compared.types,
                    "fell_back": self.made[quant_type].fell_back,
                }
                for quant_type, file in self.files.items()
            ],
            "kept": _described(self.kept, root) if self.kept else None,
            "sixteen_bit": self.sixteen_bit,
            "parameters": self.parameters,
            "probes": self.probes,
            "checks": [asdict(check) for check in self.checks],
            "steps": dict(self.steps),
            "seconds": self.seconds,
        }


def convert_model(order: Order, llama: LlamaCpp, report: Reporter) -> Converted:
    """Makes, checks and publishes one GGUF per quantization type, and the manifest beside them.

    Nothing is published before all files are made and checked. They then get their names one after another: what
    stops that in between (a kill, a disk that fails) leaves the first ones published, each of them whole.

    Args:
        order: What to make.
        llama: The llama.cpp to use.
        report: Hears of progress, of each check, and of each published file (artifact kinds "gguf", "gguf-f16").

    Raises:
        NotFound, InvalidInput, Refused: The model's folder is not complete, or a type cannot be made of it.
        DiskFull: Before anything is written, or by llama.cpp.
        CheckFailed: A file is not what it was made from; the message says in what.
        ProgramFailed, OutOfMemory: A program of llama.cpp failed.
    """
    started = time.monotonic()
    checks = Checks(report)
    count_parameters(order.model)
    weights = _weights(order, checks)
    require_possible(order, weights)
    template = load_template(order.model)
    template.tokenizer.model_max_length = _ANY_LENGTH  # no warning for long texts
    workshop = Workshop(order, llama, checks, report)
    with ExitStack() as stack:
        partials = {quant_type: stack.enter_context(publishing(path)) for quant_type, path in order.outputs.items()}
        kept = order.kept(weights.sixteen_bit)
        whole = partials.get(weights.sixteen_bit) or (stack.enter_context(publishing(kept)) if kept else None)
        made, probes = _make(workshop, weights, template, partials, whole)
        finals = {path: partials[quant_type] for quant_type, path in order.outputs.items()}
        finals |= {kept: whole} if kept and whole else {}
        published = {path: _describe(path, partial, checks) for path, partial in finals.items()}
    files = {quant_type: published[path] for quant_type, path in order.outputs.items()}
    converted = Converted(
        files=files,
        made=made,
        kept=published[kept] if kept else None,
        sixteen_bit=weights.sixteen_bit,
        parameters=weights.parameters,
        probes=probes,
        checks=tuple(checks.rows),
        steps=workshop.steps,
        seconds=time.monotonic() - started,
    )
    _write_manifest(order, llama, converted)
    for quant_type, file in files.items():
        report.artifact("gguf", file, quant_type=quant_type)
    if converted.kept:
        report.artifact("gguf-f16", converted.kept, quant_type=weights.sixteen_bit)
    return converted


def _weights(order: Order, checks: Checks) -> Weights:
    with checks.row("weights") as row:
        weights = measure_weights(order.model)
        row.passed(
            f"{weights.parameters:,} weights, the largest {weights.largest:.3g}",
            f"all finite; {weights.sixteen_bit} holds them",
        )
    return weights


def _make(
    workshop: Workshop,
    weights: Weights,
    template: PromptTemplate,
    partials: Mapping[QuantType, Path],
    whole: Path | None,
) -> tuple[dict[QuantType, Made], int]:
    """Makes and checks all files; a 16-bit one that nobody asked for is gone once the last type is made of it."""
    order, checks = workshop.order, workshop.checks
    with _scratch(order.folder / f".{order.name}.16-bit.partial", whole) as sixteen:
        made: dict[QuantType, Made] = {weights.sixteen_bit: workshop.write_floats(weights.sixteen_bit, sixteen)}
        facts = read_gguf(sixteen)
        probes = check_tokens_and_answer(
            workshop.llama, sixteen, weights.sixteen_bit, template, order.questions, checks
        )
        reading = _Reading(workshop, template, facts.context)
        baseline = reading.whole(weights.sixteen_bit, sixteen)
        with _scratch(order.folder / f".{order.name}.imatrix.gguf.partial") as imatrix:
            if order.with_imatrix:
                tokens = _count(template, order.calibration)
                workshop.importance(sixteen, imatrix, tokens, facts.context)
            for quant_type, path in partials.items():
                if quant_type == weights.sixteen_bit:
                    continue
                if is_float(quant_type):
                    made[quant_type] = workshop.write_floats(quant_type, path, sixteen)
                else:
                    own = imatrix if quant_type in order.with_imatrix else None
                    made[quant_type] = workshop.quantize(quant_type, sixteen, path, facts.tensors, own)
    for quant_type, path in partials.items():
        if quant_type != weights.sixteen_bit:
            reading.quantized(quant_type, path, baseline)
            check_answer(workshop.llama, path, quant_type, order.questions, checks)
    return {quant_type: made[quant_type] for quant_type in partials}, probes


class _Reading:
    """Measures perplexity on the validation text, the same chunks for every file.

    Args:
        workshop: What the files are made with.
        template: Tells the tokens of a text.
        longest: The longest text the model was trained for.
    """

    def __init__(self, workshop: Workshop, template: PromptTemplate, longest: int) -> None:
        self._workshop = workshop
        self._text = workshop.order.validation
        self._tokens = _count(template, self._text)
        self._context = context_for(self._tokens, longest)

    def whole(self, target: str, path: Path) -> Perplexity | None:
        """Measures the 16-bit file; None without a text."""
        with self._workshop.checks.row("perplexity", target) as row:
            measured = self._measure(target, path)
            if measured is None:
                row.skipped("not measured: there is no validation text (--retain_val)")
            else:
                judge_whole(row, measured, path)
        return measured

    def quantized(self, quant_type: QuantType, path: Path, baseline: Perplexity | None) -> None:
        """Measures a quantized file and judges it against the 16-bit one."""
        if baseline is None:
            return  # said once, of the 16-bit file
        with self._workshop.checks.row("perplexity", quant_type) as row:
            measured = self._measure(quant_type, path)
            assert measured is not None  # the same text as the 16-bit file's
            judge(row, measured, baseline, quant_type, path)

    def _measure(self, target: str, path: Path) -> Perplexity | None:
        if self._text is None or self._tokens < 2:
            return None
        workshop, chunks = self._workshop, self._tokens // self._context
        with workshop.report.phase(f"measuring the perplexity of {target}", "chunk", chunks) as counter:
            return llama_cpp.perplexity(
                workshop.llama, path, self._text, self._context, workshop.threads, lambda done, _: counter.at(done)
            )


def _count(template: PromptTemplate, text: Path | None) -> int:
    """The tokens of a text's file; 0 without one."""
    return len(template.ids([text.read_text("utf-8")])[0]) if text else 0


@contextmanager
def _scratch(path: Path, lasting: Path | None = None) -> Iterator[Path]:
    """A file that is gone when the block ends; `lasting` is taken instead where it is given, and stays."""
    if lasting is not None:
        yield lasting
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _describe(path: Path, partial: Path, checks: Checks) -> Published:
    """What a file will be under its final name."""
    with checks.row("sha256", path.name) as row:
        file = Published(path, partial.stat().st_size, sha256_of(partial))
        row.passed(file.sha256, "in the manifest")
    return file


def _described(file: Published, root: Path) -> dict[str, Any]:
    path = file.path.resolve()
    shown = path.relative_to(root.resolve()) if path.is_relative_to(root.resolve()) else path
    return {"path": str(shown), "size_bytes": file.size_bytes, "sha256": file.sha256}


def _write_manifest(order: Order, llama: LlamaCpp, converted: Converted) -> None:
    record = {
        "model": order.name,
        "llama_cpp": llama.version(),
        "facts": asdict(order.facts),
        **converted.summary(order.folder),
    }
    with publishing(order.manifest) as partial:
        partial.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
