"""From a merged model to GGUF files: one 16-bit pass, every type from it, all checked, then all published."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path

from cutoff.artifacts import Published, publishing, sha256_of
from cutoff.datasets import PromptTemplate, load_template
from cutoff.gguf_converter.checks import Checks
from cutoff.gguf_converter.gguf_file import read_gguf
from cutoff.gguf_converter.making import Made, Workshop, is_float
from cutoff.gguf_converter.order import Order, require_possible
from cutoff.gguf_converter.perplexity import Reading, count_tokens
from cutoff.gguf_converter.record import Converted, write_manifest
from cutoff.gguf_converter.serving import check_answer, check_whole
from cutoff.gguf_converter.weights import Weights, count_parameters, measure_weights
from cutoff.llama_cpp import LlamaCpp
from cutoff.spec.quant_types import QuantType
from cutoff.stage.report import Reporter

_ANY_LENGTH = 1 << 30


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
        published = {path: _hash(path, partial, checks) for path, partial in finals.items()}
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
    write_manifest(order, llama, converted)
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
    with nullcontext(whole) if whole else order.scratch("16-bit.gguf") as sixteen:
        made: dict[QuantType, Made] = {weights.sixteen_bit: workshop.write_floats(weights.sixteen_bit, sixteen)}
        facts = read_gguf(sixteen)
        probes = check_whole(
            workshop.llama,
            sixteen,
            weights.sixteen_bit,
            order.model,
            template,
            order.questions,
            facts.context,
            checks,
        )
        reading = Reading(workshop, template, facts.context)
        baseline = reading.whole(weights.sixteen_bit, sixteen)
        with order.scratch("imatrix.gguf") as imatrix:
            if order.with_imatrix:
                tokens = count_tokens(template, order.calibration)
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


def _hash(path: Path, partial: Path, checks: Checks) -> Published:
    """What a file will be under its final name."""
    with checks.row("sha256", path.name) as row:
        file = Published(path, partial.stat().st_size, sha256_of(partial))
        row.passed(file.sha256, "in the manifest")
    return file
