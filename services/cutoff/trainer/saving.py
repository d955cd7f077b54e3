"""What is inside a checkpoint, and the adapter: safetensors and JSON, no pickles.

A checkpoint holds the adapter, the optimizer's moments and what was measured so far. The order of the data, the
learning rate and dropout follow from the step's number (`cutoff.trainer.schedule`), so that a run which goes on
from here computes what it would have computed.
"""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from cutoff.artifacts import publishing_folder
from cutoff.trainer.checkpoints import ADAPTER, OPTIMIZER, STATE


@dataclass(slots=True)
class Progress:
    """How far a run is, and what it measured."""

    step: int = 0
    """Optimizer steps done."""
    tokens: int = 0
    """Trained on, prompts included."""
    summed_loss: float = 0.0
    """Over all steps."""
    best_step: int | None = None
    """The step of the best checkpoint of the last stage so far."""
    best_loss: float | None = None
    """Its validation loss, the lowest of the stage."""
    without_gain: int = 0
    """Evaluations since then."""
    seconds: float = 0.0
    """Of all attempts together."""
    micro_batch_tokens: int | None = None
    """The most tokens in a forward pass: dropout's draws follow from it, so that a run which goes on keeps it."""
    recompute: bool = False
    """Whether activations are recomputed."""
    loss_scale: float | None = None
    """Of float16."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What a checkpoint says beside its tensors."""

    progress: Progress
    records: list[dict[str, Any]] = field(default_factory=list)
    """One a step and evaluation, as in metrics.jsonl."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """What must be the same for a run to go on from here."""


def save_checkpoint(target: Path, model: PeftModel, optimizer: torch.optim.Optimizer, saved: Saved) -> None:
    """Writes a checkpoint and gives it its name when it is whole. A damaged one of that name is replaced."""
    shutil.rmtree(target, ignore_errors=True)
    with publishing_folder(target) as partial:
        save_adapter(model, partial)
        moments = {
            f"{number}.{name}": tensor.contiguous()
            for number, state in optimizer.state_dict()["state"].items()
            for name, tensor in state.items()
        }
        save_file(moments, partial / OPTIMIZER)
        (partial / STATE).write_text(json.dumps(asdict(saved)) + "\n", encoding="utf-8")


def load_checkpoint(source: Path, model: PeftModel, optimizer: torch.optim.Optimizer) -> Saved:
    """Puts a checkpoint's tensors in place and returns the rest."""
    load_adapter(source, model)
    states: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(source / OPTIMIZER).items():
        number, _, name = key.partition(".")
        states.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    content: dict[str, Any] = json.loads((source / STATE).read_text("utf-8"))
    return Saved(Progress(**content["progress"]), content["records"], content["recipe"])


def load_adapter(source: Path, model: PeftModel) -> None:
    """Puts an adapter's weights in place."""
    set_peft_model_state_dict(model, load_file(source / ADAPTER))


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Writes adapter_model.safetensors and adapter_config.json, the same bytes for the same adapter.

    peft's own save_pretrained also fills a model card template, which takes longer than all the rest, and lists
    the layers in an order that changes from process to process.
    """
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / ADAPTER, metadata={"format": "pt"})
    config: Any = copy.copy(model.peft_config["default"])
    config.target_modules = sorted(config.target_modules)
    config.inference_mode = True
    config.save_pretrained(str(folder))
