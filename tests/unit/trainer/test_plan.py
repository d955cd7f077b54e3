from __future__ import annotations

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cutoff.errors import Refused
from cutoff.trainer.model import Hardware, hardware
from cutoff.trainer.order import StepOrder
from cutoff.trainer.plan import Batches, Intervals, intervals

counts = st.integers(1, 5000)


@given(total=counts, evaluate=counts, save=counts)
def test_intervals_fit_the_run_and_the_best_checkpoint_is_one_that_was_evaluated(
    total: int, evaluate: int, save: int
) -> None:
    found = intervals(total, evaluate, save)
    assert found.save % found.evaluate == 0
    assert found.evaluate <= evaluate
    assert found.save <= save
    if total >= 3:
        assert total / found.save >= 3 or total < 6
    assert (total // found.evaluate) + (total % found.evaluate > 0) >= min(total, 3)


def test_a_long_run_keeps_the_documents_intervals() -> None:
    assert intervals(8000, 100, 500) == Intervals(100, 500)
    assert intervals(24, 100, 500) == Intervals(6, 6)


@given(size=st.integers(1, 64), accumulation=st.integers(1, 64))
def test_halving_keeps_the_examples_in_a_step_and_ends_at_one(size: int, accumulation: int) -> None:
    batches = Batches(size, accumulation)
    seen = [batches]
    while (smaller := seen[-1].halved()) is not None:
        assert smaller.per_step == batches.per_step
        assert smaller.size <= seen[-1].size / 2
        seen.append(smaller)
    assert seen[-1].size == 1
    assert len(seen) <= 7


@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=60),
    per_step=st.integers(1, 16),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 9),
)
def test_each_epoch_sees_every_example_once_in_steps_the_seed_decides(
    lengths: list[int], per_step: int, seed: int, epoch: int
) -> None:
    def steps(these: list[int]) -> list[list[int]]:
        order = StepOrder(these, per_step, seed)
        order.set_epoch(epoch)
        drawn = list(order)
        assert sorted(drawn) == list(range(len(these)))
        return [drawn[start : start + per_step] for start in range(0, len(drawn), per_step)]

    sorted_steps, unsorted_steps = steps(lengths), steps([1] * len(lengths))
    assert [set(step) for step in sorted_steps] == [set(step) for step in unsorted_steps]
    assert all([lengths[i] for i in step] == sorted(lengths[i] for i in step) for step in sorted_steps)


def test_epochs_differ() -> None:
    order = StepOrder([1] * 50, 5, 42)
    first = list(order)
    order.set_epoch(1)
    assert list(order) != first


@pytest.mark.parametrize(
    ("visible", "device", "chosen"), [("", "cuda:1", "1"), ("4,7", "cuda:1", "7"), ("4,7", "cuda:0", "4")]
)
def test_other_accelerators_are_hidden(monkeypatch: pytest.MonkeyPatch, visible: str, device: str, chosen: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert hardware((device,)) == Hardware(torch.device("cuda:0"), torch.bfloat16)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == chosen


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(Refused, match="there is no device cuda:1"):
        hardware(("cuda:1",))
    assert hardware(()).on_cpu
