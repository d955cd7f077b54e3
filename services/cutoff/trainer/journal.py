"""What a run measured, kept beside its adapter: a line per step, the loss curve, and the trackers that were asked for.

metrics.jsonl has a line per optimizer step and evaluation; loss.png is drawn from it when the run ends. Trackers
(wandb, mlflow, tensorboard) are accelerate's; they are off unless the job names them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cutoff.artifacts import publishing

METRICS = "metrics.jsonl"
CURVE = "loss.png"
_PROJECT = "cutoff"

Record = dict[str, Any]


class Journal:
    """Writes records as they come.

    Args:
        folder: The run's; None writes nothing: another rank does.
        records: Of the steps before, when a run goes on.
        trackers: accelerate's, started.
    """

    def __init__(self, folder: Path | None, records: Sequence[Record], trackers: Sequence[Any]) -> None:
        self.records = list(records)
        self._trackers = trackers
        self._file = (folder / METRICS if folder else Path(os.devnull)).open("w", encoding="utf-8", buffering=1)
        for record in records:
            self._write(record)

    def add(self, record: Record) -> None:
        """Keeps one record; `step` is what trackers order by."""
        self.records.append(record)
        self._write(record)
        for tracker in self._trackers:
            tracker.log({name: value for name, value in record.items() if name != "step"}, step=record["step"])

    def close(self) -> None:
        """Ends file and trackers."""
        self._file.close()
        for tracker in self._trackers:
            tracker.finish()

    def _write(self, record: Record) -> None:
        self._file.write(json.dumps(record) + "\n")


@contextmanager
def journal(
    folder: Path | None, records: Sequence[Record], report_to: Sequence[str], name: str, options: dict[str, Any]
) -> Iterator[Journal]:
    """A journal for the length of a block.

    Args:
        folder: The run's; None writes nothing and tells no tracker: another rank does.
        records: Of the steps before, when a run goes on.
        report_to: Trackers.
        name: The run's, for trackers.
        options: The recipe, which trackers show beside the curves.
    """
    trackers = [_start(tracker, folder, name, options) for tracker in report_to] if folder else []
    opened = Journal(folder, records, trackers)
    try:
        yield opened
    finally:
        opened.close()


def draw(records: Sequence[Record], path: Path, title: str) -> None:
    """Draws training and validation loss as a PNG, a panel for each stage: their losses have no common scale."""
    from matplotlib.figure import Figure

    numbers = sorted({record["stage"] for record in records})
    stages = [[record for record in records if record["stage"] == number] for number in numbers]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, len(stages), squeeze=False, width_ratios=[len(stage) for stage in stages])[0]
    for axes, stage in zip(panels, stages, strict=True):
        for name, label, style in (("loss", "training", "-"), ("eval_loss", "validation", "o-")):
            points = [(record["step"], record[name]) for record in stage if name in record]
            if points:
                axes.plot(*zip(*points, strict=True), style, label=label, markersize=4, linewidth=1)
        axes.set(xlabel="optimizer step")
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="loss")
    panels[0].legend()
    with publishing(path) as partial:
        figure.savefig(partial, format="png")


def _start(tracker: str, folder: Path, name: str, options: dict[str, Any]) -> Any:
    """Starts one of accelerate's trackers; wandb and mlflow find their server and key in their own variables."""
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # the trackers ask it which process they are in
    arguments: dict[str, dict[str, str]] = {
        "wandb": {"run_name": _PROJECT, "name": name, "dir": str(folder)},
        "mlflow": {"experiment_name": _PROJECT, "run_name": name},
        "tensorboard": {"run_name": "tensorboard", "logging_dir": str(folder)},
    }
    started = LOGGER_TYPE_TO_CLASS[tracker](**arguments[tracker])
    started.start()
    started.store_init_configuration(_plain(options))
    return started


def _plain(options: dict[str, Any]) -> dict[str, str | float]:
    """Trackers take numbers and words only."""
    return {name: value if isinstance(value, int | float | str) else str(value) for name, value in options.items()}
