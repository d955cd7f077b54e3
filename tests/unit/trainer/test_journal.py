"""What a run writes down, and what trackers are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import accelerate.tracking
import pytest

from cutoff.trainer.journal import draw, journal


class Tracker:
    """Stands for one of accelerate's trackers."""

    made: list[Tracker]

    def __init__(self, **options: str) -> None:
        self.options = options
        self.told: list[tuple[Any, ...]] = []
        type(self).made.append(self)

    def start(self) -> None:
        self.told.append(("start",))

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.told.append(("options", values))

    def log(self, values: dict[str, Any], step: int) -> None:
        self.told.append(("log", step, values))

    def finish(self) -> None:
        self.told.append(("finish",))


RECORDS = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}, {"step": 2, "eval_loss": 1.7}]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("wandb", {"run_name": "cutoff", "name": "job-1"}),
        ("mlflow", {"experiment_name": "cutoff", "run_name": "job-1"}),
        ("tensorboard", {"run_name": "tensorboard"}),
    ],
)
def test_a_tracker_hears_recipe_and_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, str]
) -> None:
    Tracker.made = []
    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, name, Tracker)
    with journal(tmp_path, [], [name], "job-1", {"method": "sft", "then": [], "lora_r": 16}) as kept:
        for record in RECORDS:
            kept.add(record)
    (tracker,) = Tracker.made
    assert options.items() <= tracker.options.items()
    assert tracker.told == [
        ("start",),
        ("options", {"method": "sft", "then": "[]", "lora_r": 16}),
        ("log", 1, {"loss": 2.0}),
        ("log", 2, {"loss": 1.5}),
        ("log", 2, {"eval_loss": 1.7}),
        ("finish",),
    ]


def test_every_record_is_on_the_disk_at_once(tmp_path: Path) -> None:
    with journal(tmp_path, RECORDS[:1], [], "job-1", {}) as kept:
        kept.add(RECORDS[1])
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == RECORDS[:2]
        assert kept.records == RECORDS[:2]


def test_the_curve_is_a_picture(tmp_path: Path) -> None:
    draw(
        [*({"stage": 0, **record} for record in RECORDS), {"step": 3, "stage": 1, "loss": 40.0}],
        tmp_path / "loss.png",
        "job-1",
    )
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["loss.png"]
