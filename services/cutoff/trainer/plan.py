"""What a training run is told. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cutoff.datasets import SIDES, Side
from cutoff.hub import weights_digest
from cutoff.spec import DatasetSpec, TrainSpec

_NOT_PART_OF_THE_RECIPE = (
    *("batch_size", "gradient_accumulation_steps", "eval_steps", "save_steps", "report_to", "eval_limit"),
    *("resume_from_checkpoint", "memory_budget_gib", "attention", "early_stopping_patience"),
)
"""Options that may change when a run goes on: they do not change what a step is."""


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Everything a run is told."""

    model_path: Path
    """The base model's folder."""
    model_name: str
    """As the user names it; recorded in the adapter."""
    revision: str | None
    """The commit of a hub model."""
    dataset: DatasetSpec
    datasets_root: Path | None
    """What its paths are relative to; None takes them as they are."""
    spec: TrainSpec
    folder: Path
    """Where `checkpoint-N/`, `final/` and the result files go."""
    cache: Path
    """Where tokenized data is kept from stage to stage."""
    devices: tuple[str, ...] = ()
    """As torch names them; empty means the CPU."""
    resume_from: Path | None = None
    """A checkpoint to go on from."""
    sides: tuple[Side, ...] = SIDES
    """Which sides the data must have; relearning has no refusals."""
    name: str = ""
    """What trackers call the run; the folder's name by default."""

    def recipe(self) -> dict[str, Any]:
        """What must be the same for a run to go on from a checkpoint, beside the data; as JSON values."""
        base = {"base_model": self.model_name, "revision": self.revision}
        if self.revision is None:  # a folder: it may be moved, and what is in it may change
            base = {"base_model": weights_digest(self.model_path)}
        options = self.spec.model_dump(mode="json", exclude=set(_NOT_PART_OF_THE_RECIPE))
        return {
            **base,
            "examples_per_step": self.spec.batch_size * self.spec.gradient_accumulation_steps,
            **options,
        }
