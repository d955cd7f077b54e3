"""What a quantized file's perplexity on validation text means, beside the 16-bit file's on the same text."""

from __future__ import annotations

import math
from pathlib import Path

from cutoff import llama_cpp
from cutoff.datasets import PromptTemplate
from cutoff.errors import CheckFailed
from cutoff.gguf_converter.checks import Check
from cutoff.gguf_converter.making import Workshop
from cutoff.llama_cpp import Perplexity
from cutoff.llama_cpp.imatrix import context_for
from cutoff.spec.quant_types import QuantType
from cutoff.spec.quantizations import QUANTIZATIONS

ENOUGH_TOKENS = 2000
"""On fewer the figure says little."""

_VERDICTS = (
    (1.01, "as good as 16 bit"),
    (1.03, "a slight loss"),
    (1.10, "a noticeable loss"),
    (1.50, "a heavy loss: compare its answers with those of a larger type"),
)
"""Ratios to the 16-bit file's perplexity up to which each is said. A K-quant of 4 bits usually stays below 1.03."""

_WORST = "a severe loss: expect wrong answers, take a larger type"
_NOTEWORTHY = 1.10
"""Above it the row is a warning."""

_DAMAGED = ((8.0, 1.2), (4.0, 5.0), (3.0, 20.0))
"""Usual bits per weight, and the ratio that no whole file of so many bits has."""


class Reading:
    """Measures perplexity on the validation text, the same chunks for every file.

    Args:
        workshop: What the files are made with.
        template: Tells the tokens of a text.
        longest: The longest text the model was trained for.
    """

    def __init__(self, workshop: Workshop, template: PromptTemplate, longest: int) -> None:
        self._workshop = workshop
        self._text = workshop.order.validation
        self._tokens = count_tokens(template, self._text)
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


def count_tokens(template: PromptTemplate, text: Path | None) -> int:
    """The tokens of a text's file; 0 without one."""
    return len(template.ids([text.read_text("utf-8")])[0]) if text else 0


def judge_whole(check: Check, measured: Perplexity, path: Path) -> None:
    """Fills the row of the 16-bit file, which all others are held against.

    Raises:
        CheckFailed: The model computes no number.
    """
    _require_number(measured, path)
    check.passed(_figure(measured), "what the other types are held against")
    _mark_short(check, measured)


def judge(check: Check, measured: Perplexity, whole: Perplexity, quant_type: QuantType, path: Path) -> None:
    """Fills the row of a quantized file.

    Raises:
        CheckFailed: The model computes no number, or is worse than any whole file of its type.
    """
    _require_number(measured, path)
    ratio = measured.value / whole.value
    figure = f"{_figure(measured)}, {ratio:.3f} of 16 bit"
    bits = QUANTIZATIONS[quant_type].usual_bits
    most = next((ratio for least, ratio in _DAMAGED if bits >= least), math.inf)
    if ratio > most:
        raise CheckFailed(
            f"{path.name} is damaged: its perplexity is {figure}, and no whole file of this type has more than {most}",
            "convert again; if it is so again, choose another type and report the model's architecture",
        )
    verdict = next((words for limit, words in _VERDICTS if ratio <= limit), _WORST)
    (check.passed if ratio <= _NOTEWORTHY else check.warned)(figure, verdict)
    _mark_short(check, measured)


def _figure(measured: Perplexity) -> str:
    return f"{measured.value:.4g} ± {measured.error:.2g} on {measured.tokens} tokens"


def _mark_short(check: Check, measured: Perplexity) -> None:
    if measured.tokens < ENOUGH_TOKENS:
        check.warned(check.figure, f"{check.verdict} (fewer than {ENOUGH_TOKENS} tokens: the data hold no more)")


def _require_number(measured: Perplexity, path: Path) -> None:
    if not math.isfinite(measured.value):
        raise CheckFailed(
            f"{path.name} computes no numbers: its perplexity is {measured.value}",
            "activations may leave the range of its type: convert to bf16 or f32, or take another type",
        )
