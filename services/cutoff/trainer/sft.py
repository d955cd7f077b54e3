"""TRL's SFTTrainer with this project's order of examples, whole checkpoints and reports."""

from __future__ import annotations

import copy
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers.trainer_utils import rotate_checkpoints
from trl.trainer.sft_trainer import SFTTrainer

from cutoff.artifacts import describe, publishing_folder
from cutoff.errors import TrainingDiverged
from cutoff.stage.report import Counter, Reporter
from cutoff.trainer.flops import computing_parameters, utilisation
from cutoff.trainer.order import StepOrder

_METRIC_INTERVAL = 1.0
"""Seconds between two reports of a metric."""


class AdapterTrainer(SFTTrainer):
    """An SFTTrainer that draws examples in `order`, tells `report`, and names checkpoints by a rename.

    Args:
        folder: Where checkpoints go, transformers' output_dir.
        order: Of the training examples.
        report: Hears of losses, evaluations and checkpoints.
        steps: Counts optimizer steps.
    """

    def __init__(self, *, folder: Path, order: StepOrder, report: Reporter, steps: Counter, **kwargs: Any) -> None:
        self._folder = folder
        self._order = order
        self._report = report
        self._steps = steps
        self._told = -math.inf
        self._counted = (time.monotonic(), 0.0)
        """When tokens were counted last, and how many there were."""
        super().__init__(**kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Takes what is known after a step.

        Raises:
            TrainingDiverged: The loss or its gradient is not a number.
        """
        super().log(logs, start_time)
        if "loss" not in logs:
            return
        step = self.state.global_step
        if not (math.isfinite(logs["loss"]) and math.isfinite(logs.get("grad_norm", 0.0))):
            raise TrainingDiverged(
                f"the loss is {logs['loss']} and its gradient's norm {logs.get('grad_norm')} at step {step}",
                "lower the learning rate (--learning_rate), and look for strange lines in the data",
            )
        self._steps.at(step, logs["loss"])
        now = time.monotonic()
        if now - self._told >= _METRIC_INTERVAL or step == self.state.max_steps:
            self._told = now
            self._report.metric("cutoff_train_loss", logs["loss"])
            self._report.metric("cutoff_train_learning_rate", logs["learning_rate"])
            self._tell_speed(now, logs["num_tokens"])

    def _tell_speed(self, now: float, tokens: float) -> None:
        """Tells the speed since the last report, and what the device gives for it."""
        then, before = self._counted
        self._counted = (now, tokens)
        speed = (tokens - before) / (now - then)
        self._report.metric("cutoff_train_tokens_per_second", speed)
        device = self.args.device
        if device.type == "cpu":
            return
        used = torch.cuda.memory_reserved(device)
        self._report.metric("cutoff_device_memory_used_bytes", used, device=_name_on_host(device))
        achieved = utilisation(speed, computing_parameters(self.model), torch.cuda.get_device_name(device))
        if achieved is not None:
            self._report.metric("cutoff_train_mfu_ratio", achieved)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluates, and tells the validation loss."""
        metrics = super().evaluate(*args, **kwargs)
        self._report.log(f"step {self.state.global_step}: validation loss {metrics['eval_loss']:.4f}")
        self._report.metric("cutoff_train_eval_loss", metrics["eval_loss"])
        return metrics

    def _get_train_sampler(self, *_: Any, **__: Any) -> torch.utils.data.Sampler[int]:
        return self._order

    def _save_checkpoint(self, *_: Any, **__: Any) -> None:
        """Writes adapter, optimizer, schedule, random state and trainer state; replaces transformers' own.

        That one writes under the final name, so that a process killed meanwhile leaves half a checkpoint.
        """
        step = self.state.global_step
        target = self._folder / f"checkpoint-{step}"
        self.store_flos()
        if self.state.best_global_step == step:
            self.state.best_model_checkpoint = str(target)
        shutil.rmtree(target, ignore_errors=True)  # a damaged one, which the run did not go on from
        with publishing_folder(target) as partial:
            save_adapter(self.model, partial)
            self._save_optimizer_and_scheduler(str(partial))
            self._save_scaler(str(partial))
            self._save_rng_state(str(partial))
            self.state.save_to_json(str(partial / "trainer_state.json"))
        self._report.artifact("checkpoint", describe(target), step=str(step))
        self._report.metric("cutoff_train_checkpoint_timestamp_seconds", time.time())
        rotate_checkpoints(str(self._folder), self.args.save_total_limit, self.state.best_model_checkpoint)


def _name_on_host(device: torch.device) -> str:
    """A device by the number that the host knows it by: this process sees only its own, counted from 0."""
    visible = [number for number in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if number]
    number = device.index or 0
    return f"cuda:{visible[number]}" if number < len(visible) else f"cuda:{number}"


def save_adapter(model: Any, folder: Path) -> None:
    """Writes adapter_model.safetensors and adapter_config.json, the same bytes for the same adapter.

    peft's own save_pretrained also fills a model card template, which takes longer than all the rest, and lists
    the layers in an order that changes from process to process.
    """
    weights = folder / "adapter_model.safetensors"
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, weights, metadata={"format": "pt"})
    config = copy.copy(model.peft_config["default"])
    config.target_modules = sorted(config.target_modules)
    config.inference_mode = True
    config.save_pretrained(str(folder))
