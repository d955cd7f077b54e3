from __future__ import annotations

import pytest
import torch

from cutoff.errors import CheckFailed
from cutoff.merger.answers import TIE, Answer, count_equal


def answer(*scores: list[float]) -> Answer:
    table = torch.tensor(scores)
    return Answer([1], table.argmax(-1).tolist(), table)


SURE = answer([-0.1, -2.5], [-3.0, -0.05])


@pytest.mark.parametrize("dtype", TIE)
def test_the_same_answer_is_equal(dtype: str) -> None:
    assert count_equal([SURE, SURE], [SURE, answer([-0.2, -1.7], [-2.0, -0.2])], dtype) == 2


@pytest.mark.parametrize("dtype", TIE)
def test_another_token_than_a_sure_one_fails(dtype: str) -> None:
    other = Answer(SURE.prompt, SURE.tokens, torch.tensor([[-0.1, -2.5], [-0.6, -0.9]]))
    with pytest.raises(CheckFailed, match=r"token 2 of an answer is 0 instead of 1, which was ahead by 2\.95 nats"):
        count_equal([SURE], [other], dtype)


def test_where_the_source_is_undecided_rounding_may_choose() -> None:
    undecided = answer([-0.5, -0.9])
    turned = Answer(undecided.prompt, undecided.tokens, torch.tensor([[-0.8, -0.6]]))
    assert count_equal([undecided], [turned], "bfloat16") == 0
    with pytest.raises(CheckFailed):
        count_equal([undecided], [turned], "float16")


def test_no_numbers_fail() -> None:
    broken = Answer(SURE.prompt, SURE.tokens, torch.full((2, 2), float("nan")))
    with pytest.raises(CheckFailed):
        count_equal([broken], [SURE], "bfloat16")
