from __future__ import annotations

import math
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cutoff.errors import Refused
from cutoff.spec import TrainSpec
from cutoff.trainer import model
from cutoff.trainer.memory import MicroBatch, counting_saved, fitting
from cutoff.trainer.model import Hardware, hardware
from cutoff.trainer.platforms import platform_of
from cutoff.trainer.schedule import Intervals, Schedule, intervals

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


usable_lines = st.lists(st.integers(0, 10_000), min_size=1, max_size=60, unique=True)


def schedule(lines: list[int], per_step: int = 4, seed: int = 1, **train: object) -> Schedule:
    spec = TrainSpec.model_validate(
        {"batch_size": per_step, "gradient_accumulation_steps": 1, "seed": seed, "epochs": 2} | train
    )
    return Schedule(spec, [np.array(lines)] * len(spec.stages))


@given(lines=usable_lines, per_step=st.integers(1, 16), seed=st.integers(0, 2**32 - 1))
def test_each_epoch_sees_every_line_once(lines: list[int], per_step: int, seed: int) -> None:
    steps = schedule(lines, per_step, seed)
    for epoch in range(2):
        seen = [step for number in range(steps.total) if (step := steps.step(number)).epoch == epoch]
        assert sorted(line for step in seen for line in step.examples) == sorted(lines)
        assert all(len(step.examples) == per_step for step in seen[:-1])
    assert steps.epochs_at(steps.total) == 2


def test_epochs_seeds_and_stages_differ_and_nothing_else_matters() -> None:
    lines = list(range(50))
    first = schedule(lines)
    again = schedule(lines)
    assert first.step(3) == again.step(3)  # whatever was asked before
    assert [first.step(number) for number in range(first.total)] == [again.step(n) for n in range(again.total)]
    assert first.step(0).examples != first.step(first.total // 2).examples
    assert first.step(0).examples != schedule(lines, seed=2).step(0).examples


def test_the_learning_rate_rises_and_falls_in_each_stage() -> None:
    steps = schedule(list(range(40)), 4, epochs=2, learning_rate=1e-3, then=[{"method": "npo", "learning_rate": 1e-4}])
    rates = [steps.step(number).learning_rate for number in range(steps.total)]
    assert steps.total == 30
    assert rates[0] == pytest.approx(5e-4)
    assert rates[1] == pytest.approx(1e-3)
    assert rates[11] == pytest.approx(1e-3 * 0.5 * (1 + math.cos(math.pi * 9 / 18)))
    assert 0 < rates[19] < 1e-5
    assert max(rates[20:]) == pytest.approx(1e-4)
    assert [steps.step(number).stage for number in (19, 20)] == [0, 1]


def test_half_an_epoch_is_half_its_steps() -> None:
    assert schedule(list(range(40)), 4, epochs=0.5).total == 5


def test_a_micro_batch_takes_what_the_budget_leaves() -> None:
    fits = fitting(budget=6e6, token=1000, layers=10, layer_input=10, longest=100, device="cuda")
    assert fits == MicroBatch(4000, recompute=False)
    assert fitting(6e12, 1000, 10, 10, 100, "cpu").most_tokens == 4096, "a processor's caches hold no more"
    tight = fitting(budget=1e5, token=1000, layers=10, layer_input=10, longest=100, device="cuda")
    assert tight == MicroBatch(333, recompute=True)
    assert fitting(0, 1000, 10, 10, 100, "cuda") == MicroBatch(1, recompute=True), "one example is always tried"


def test_what_autograd_keeps_is_counted_once_and_weights_not_at_all() -> None:
    learnt, frozen = torch.nn.Linear(100, 50), torch.nn.Linear(50, 2000).requires_grad_(requires_grad=False)
    model = torch.nn.Sequential(learnt, frozen)
    values = torch.randn(10, 100)
    with counting_saved(model) as saved:
        hidden = learnt(values)
        kept = frozen((hidden * hidden).exp()).exp()  # the frozen layer keeps its weight, transposed
    assert saved() == 4 * (values.numel() + 2 * hidden.numel() + kept.numel())


@pytest.mark.parametrize(
    ("visible", "device", "chosen"), [("", "cuda:1", "1"), ("4,7", "cuda:1", "7"), ("4,7", "cuda:0", "4")]
)
def test_other_accelerators_are_hidden(monkeypatch: pytest.MonkeyPatch, visible: str, device: str, chosen: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    hopper = platform_of("cuda", capability=(9, 0))
    monkeypatch.setattr(model, "detect", lambda devices: hopper)
    assert hardware((device,)) == Hardware(torch.device("cuda:0"), torch.bfloat16, hopper)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == chosen


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(Refused, match="there is no device cuda:1"):
        hardware(("cuda:1",))
    assert hardware(()).on_cpu
