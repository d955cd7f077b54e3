"""Makes the files of an order: the 16-bit one from the model, all others from it, each timed and compared at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cutoff import llama_cpp
from cutoff.gguf_converter.checks import Checks
from cutoff.gguf_converter.metadata import general_metadata, own_metadata
from cutoff.gguf_converter.order import Order
from cutoff.gguf_converter.tensors import Compared, read_tensors
from cutoff.llama_cpp import LlamaCpp, Quantized
from cutoff.llama_cpp.imatrix import context_for
from cutoff.spec.quant_types import QuantType
from cutoff.spec.quantizations import FLOATS, QUANTIZATIONS
from cutoff.stage.report import Reporter

_SHOWN_FALLBACKS = 3
_LARGER = 1.15
"""Times a type's usual bits per weight above which its size is remarked upon."""


@dataclass(slots=True)
class Made:
    """One file, not yet published."""

    path: Path
    compared: Compared
    fell_back: int = 0
    """Tensors llama.cpp stored in a larger type than was meant for them."""


@dataclass(slots=True)
class Workshop:
    """What all files of one order are made with."""

    order: Order
    llama: LlamaCpp
    checks: Checks
    report: Reporter
    steps: dict[str, float] = field(default_factory=dict)
    """Seconds by what was made: "f16", "imatrix", "q4_k_m"."""

    @property
    def threads(self) -> int:
        """One per core this process may use."""
        return len(os.sched_getaffinity(0))

    def write_floats(self, quant_type: QuantType, path: Path, whole: Path | None = None) -> Made:
        """Writes the model as f32, f16 or bf16; compares it with the 16-bit file when there is one."""
        with self._step(quant_type), self.report.phase(f"converting to {quant_type}", "percent", 100) as counter:
            llama_cpp.convert(
                self.llama,
                self.order.model,
                path,
                self.order.name,
                lambda done, _: counter.at(done),
                self.report.warn,
                quant_type,  # type: ignore[arg-type]
                general_metadata(self.order.facts),
                own_metadata(self.order.facts, self.llama.version()),
            )
        return Made(path, self._compare(quant_type, path, whole))

    def importance(self, whole: Path, target: Path, tokens: int, longest: int) -> None:
        """Writes the importance matrix of the calibration text, which has so many tokens."""
        text = self.order.calibration
        assert text is not None  # require_possible saw to it
        context = context_for(tokens, longest)
        with self._step("imatrix"), self.report.phase("measuring importance", "chunk", tokens // context) as counter:
            on_chunk: Callable[[int, int], None] = lambda done, _: counter.at(done)  # noqa: E731
            llama_cpp.importance_matrix(self.llama, whole, text, target, context, self.threads, on_chunk)

    def quantize(self, quant_type: QuantType, whole: Path, path: Path, tensors: int, imatrix: Path | None) -> Made:
        """Quantizes the 16-bit file, and compares the two."""
        phase = f"quantizing to {quant_type}"
        with self._step(quant_type), self.report.phase(phase, "tensor", tensors) as counter:
            on_tensor: Callable[[int, int], None] = lambda done, _: counter.at(done)  # noqa: E731
            done = llama_cpp.quantize(self.llama, whole, path, quant_type, self.threads, on_tensor, imatrix)
        rate = whole.stat().st_size / self.steps[quant_type]
        self.report.metric("cutoff_convert_bytes_per_second", rate, quant_type=quant_type)
        made = Made(path, self._compare(quant_type, path, whole), done.fell_back)
        self._check_size(quant_type, made, done, whole)
        return made

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.steps[name] = time.monotonic() - started

    def _compare(self, quant_type: QuantType, path: Path, whole: Path | None) -> Compared:
        with (
            self.checks.row("tensors", quant_type) as row,
            self.report.phase(f"reading {quant_type} back", "tensor") as counter,
        ):
            compared = read_tensors(path, lambda done, _: counter.at(done), whole)
            types = ", ".join(f"{count} {name}" for name, count in compared.types.items())
            worst = f", worst {compared.worst} off by {compared.worst_error:.2%}" if compared.worst else ""
            row.passed(f"{compared.tensors} tensors ({types}){worst}", "all shapes right, all weights finite")
        return compared

    def _check_size(self, quant_type: QuantType, made: Made, done: Quantized, whole: Path) -> None:
        """Holds the size against what the document and llama.cpp lead to expect, and names what fell back."""
        with self.checks.row("size", quant_type) as row:
            expected = QUANTIZATIONS[quant_type]
            size, bits = made.path.stat().st_size, made.compared.bits_per_weight
            figure = (
                f"{size / 1e6:.1f} MB, {size / whole.stat().st_size:.0%} of 16 bit (expected {expected.size}), "
                f"{bits:.2f} bits a weight (usual {expected.usual_bits:.2f})"
            )
            if done.fell_back:
                row.warned(figure, _fallbacks(done, made.compared.tensors))
            elif bits > _LARGER * expected.usual_bits:
                row.passed(figure, "larger than usual: embeddings are a large share of so small a model")
            else:
                row.passed(figure, "as expected")


def is_float(quant_type: QuantType) -> bool:
    """Whether a type is written by the conversion itself."""
    return quant_type in FLOATS


def _fallbacks(done: Quantized, tensors: int) -> str:
    """Which tensors llama.cpp could not store as meant, and why."""
    shown = [
        f"{each.tensor} ({each.wanted} -> {each.got}: rows of {each.columns} are no multiple of {each.multiple})"
        for each in done.fallbacks[:_SHOWN_FALLBACKS]
    ]
    more = [f"and {done.fell_back - len(shown)} more"] if done.fell_back > len(shown) and shown else []
    named = f": {', '.join([*shown, *more])}" if shown else ""
    return f"llama.cpp stored {done.fell_back} of {tensors} tensors in larger types than asked for{named}"
