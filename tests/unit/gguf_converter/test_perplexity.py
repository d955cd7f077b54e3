from pathlib import Path

import pytest

from cutoff.errors import CheckFailed
from cutoff.gguf_converter.checks import Check
from cutoff.gguf_converter.perplexity import judge, judge_whole
from cutoff.llama_cpp import Perplexity
from cutoff.spec.quant_types import QuantType

WHOLE = Perplexity(10.0, 0.5, 2560)
FILE = Path("x.gguf")


def judged(value: float, quant_type: QuantType, tokens: int = 2560) -> Check:
    check = Check("perplexity", quant_type)
    judge(check, Perplexity(value, 0.5, tokens), WHOLE, quant_type, FILE)
    return check


@pytest.mark.parametrize(
    ("value", "state", "words"),
    [
        (9.9, "passed", "as good as 16 bit"),
        (10.2, "passed", "a slight loss"),
        (10.9, "passed", "a noticeable loss"),
        (14.0, "warned", "a heavy loss"),
        (40.0, "warned", "a severe loss"),
    ],
)
def test_the_verdict_is_in_words(value: float, state: str, words: str) -> None:
    check = judged(value, "q4_k_m")
    assert check.state == state
    assert check.verdict.startswith(words)
    assert f"{value / 10:.3f} of 16 bit" in check.figure


@pytest.mark.parametrize(("value", "quant_type"), [(12.5, "q8_0"), (12.5, "bf16"), (51.0, "q4_k_m"), (201.0, "q3_k_s")])
def test_what_no_whole_file_has_is_damage(value: float, quant_type: QuantType) -> None:
    with pytest.raises(CheckFailed, match="is damaged"):
        judged(value, quant_type)


def test_one_bit_may_lose_much() -> None:
    assert judged(500.0, "iq1_s").state == "warned"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_number_is_damage(value: float) -> None:
    with pytest.raises(CheckFailed, match="computes no numbers"):
        judged(value, "iq1_s")
    with pytest.raises(CheckFailed, match="computes no numbers"):
        judge_whole(Check("perplexity", "f16"), Perplexity(value, 0, 2560), FILE)


def test_few_tokens_are_said() -> None:
    check = judged(10.0, "q8_0", tokens=1024)
    assert check.state == "warned"
    assert "fewer than 2000 tokens" in check.verdict
