"""What a GPU must have free before a stage is begun on it."""

import pytest

from cutoff.hub.shape import ModelShape
from cutoff.spec import TrainSpec
from cutoff.trainer.estimate import GIB
from cutoff.trainer.needs import answering_bytes, training_bytes

QWEN = ModelShape("qwen2", 28, 1536, 8960, 12, 2, 128, 151936, tied=True)
"""Qwen2.5-1.5B."""


def need(**changes) -> float:
    return training_bytes(QWEN, TrainSpec(**changes), longest=512, answers=0.2) / GIB


def test_a_training_fits_where_the_document_says_it_does():
    assert 3 < need() < 16
    assert 1 < need(quantization="4bit") < 8


@pytest.mark.parametrize("change", [{"quantization": "4bit"}, {"batch_size": 1}, {"lora_r": 4}])
def test_less_is_needed_for_less(change):
    assert need(**change) < need()


def test_a_budget_is_never_exceeded():
    assert need(memory_budget_gib=2) == 2
    assert need(memory_budget_gib=1000) == need()


def test_answering_needs_the_model_and_the_keys_and_values_of_a_batch():
    model = 2 * QWEN.parameters
    cache = 64 * 768 * 28 * 2 * 2 * 128 * 2
    assert answering_bytes(QWEN, 768) == pytest.approx(model + cache, abs=GIB)
