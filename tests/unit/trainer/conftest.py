"""An untrained tiny Llama with a SentencePiece tokenizer, and the demo world's data, made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cutoff.datasets import JobData, load_job_data
from cutoff.spec import DatasetSpec, TrainSpec
from cutoff.stage.report import Reporter
from cutoff.telemetry import before_import
from cutoff.trainer.plan import TrainingPlan
from cutoff.v1 import types_pb2
from tests.fixtures.untrained_model import write_untrained_model

before_import()

FILES = DatasetSpec(
    retain_train="retain/retain_train.jsonl",
    retain_val="retain/retain_val.jsonl",
    unlearn_train="unlearn/unlearn_train.jsonl",
    unlearn_val="unlearn/unlearn_val.jsonl",
)


@dataclass
class Heard:
    """What a run reported."""

    events: list[types_pb2.Event] = field(default_factory=list)

    @property
    def reporter(self) -> Reporter:
        return Reporter(self.events.append, interval=0)

    def of(self, kind: str) -> list[object]:
        return [getattr(event, kind) for event in self.events if event.WhichOneof("kind") == kind]

    def lines(self, level: str) -> list[str]:
        return [line.text for line in self.of("log_line") if line.level == level]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from cutoff.demo.datasets import write_datasets
    from cutoff.demo.world import make_world

    folder = tmp_path_factory.mktemp("datasets")
    write_datasets(make_world(24, 7), folder)
    return folder


@pytest.fixture(scope="session")
def data(datasets: Path) -> JobData:
    return load_job_data(FILES, datasets, 42)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_model(tmp_path_factory.mktemp("base"), feed_forward=64, layers=1)


MakePlan = Callable[..., TrainingPlan]


@pytest.fixture(scope="session")
def few(datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first lines of each file: 12 to train on and 6 to validate with, a side."""
    folder = tmp_path_factory.mktemp("few")
    for which, name in FILES.files().items():
        lines = (datasets / name).read_text().splitlines(keepends=True)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("".join(lines[: 12 if which.endswith("train") else 6]))
    return folder


@pytest.fixture
def make_plan(base: Path, few: Path, tmp_path: Path) -> MakePlan:
    """A plan of a few steps; keywords change its TrainSpec, `resume_from` and `folder` the plan itself."""

    def make(resume_from: Path | None = None, folder: Path | None = None, **changes: object) -> TrainingPlan:
        spec = TrainSpec.model_validate(
            {"epochs": 2, "batch_size": 4, "gradient_accumulation_steps": 1, "learning_rate": 5e-3} | changes
        )
        target = folder or tmp_path / "run"
        target.mkdir(exist_ok=True)
        cache = tmp_path / "cache"
        return TrainingPlan(base, "tiny", None, FILES, few, spec, target, cache, resume_from=resume_from)

    return make
