"""What a run tells while it goes on, under the names of docs/metrics.md."""

from __future__ import annotations

import math
import os
import time
from typing import Any

import torch

from cutoff.stage.report import Reporter
from cutoff.trainer.flops import computing_parameters, utilisation
from cutoff.trainer.learner import StepResult

_INTERVAL = 1.0
"""Seconds between two reports."""


class Measures:
    """Reports losses, speed and memory.

    Args:
        report: Who is told.
        model: What is trained.
        device: What it is on.
        total: Steps of the run.
    """

    def __init__(self, report: Reporter, model: Any, device: torch.device, total: int) -> None:
        self._report = report
        self._device = device
        self._total = total
        self._parameters = computing_parameters(model)
        self._told = -math.inf
        self._since: tuple[float, int, int] | None = None
        """When speed was told last, and the steps and tokens until then."""

    def step(self, number: int, result: StepResult, learning_rate: float, tokens: int) -> None:
        """Reports a step, at most once a second and at the end."""
        now = time.monotonic()
        if self._since is None:
            self._since = (now, number, tokens)
        if now - self._told < _INTERVAL and number < self._total:
            return
        self._told = now
        self._report.metric("cutoff_train_step", number)
        self._report.metric("cutoff_train_loss", result.loss)
        self._report.metric("cutoff_train_learning_rate", learning_rate)
        self._speed(now, number, tokens)

    def _speed(self, now: float, number: int, tokens: int) -> None:
        assert self._since is not None
        then, steps_before, tokens_before = self._since
        if number == steps_before:
            return
        self._since = (now, number, tokens)
        speed = (tokens - tokens_before) / (now - then)
        self._report.metric("cutoff_train_tokens_per_second", speed)
        left = (self._total - number) * (now - then) / (number - steps_before)
        self._report.metric("cutoff_train_remaining_seconds", left)
        if self._device.type == "cpu":
            return
        used = torch.cuda.memory_reserved(self._device)
        self._report.metric("cutoff_device_memory_used_bytes", used, device=_name_on_host(self._device))
        achieved = utilisation(speed, self._parameters, torch.cuda.get_device_name(self._device))
        if achieved is not None:
            self._report.metric("cutoff_train_mfu_ratio", achieved)

    def evaluated(self, loss: float) -> None:
        """Reports a validation loss."""
        self._report.metric("cutoff_train_eval_loss", loss)

    def saved(self) -> None:
        """Reports a checkpoint."""
        self._report.metric("cutoff_train_checkpoint_timestamp_seconds", time.time())


def _name_on_host(device: torch.device) -> str:
    """A device by the number that the host knows it by: this process sees only its own, counted from 0."""
    visible = [number for number in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if number]
    number = device.index or 0
    return f"cuda:{visible[number]}" if number < len(visible) else f"cuda:{number}"
