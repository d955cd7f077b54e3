"""The commit that prepare found is the one that is trained, whatever the hub says later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from cutoff.artifacts import Roots
from cutoff.spec import parse_job, spec_to_proto
from cutoff.stage.context import RunContext
from cutoff.trainer import recipe, work
from cutoff.trainer.plan import TrainingPlan
from cutoff.v1 import trainer_pb2, types_pb2
from tests.fixtures.hub_server import Hub
from tests.unit.trainer.conftest import FILES, Heard

ID = "owner/model"


def test_training_uses_the_prepared_commit_and_asks_nobody(
    hub: Hub, base: Path, datasets: Path, tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {path.name: path.read_bytes() for path in base.iterdir() if path.is_file()}
    commit = hub.add(ID, files)
    spec = spec_to_proto(parse_job({"name": "j", "base_model": ID, "dataset": FILES.model_dump()}))
    key = types_pb2.RunKey(job="j", stage="prepare", attempt=1)
    roots = Roots(datasets, tmp_path, tmp_path / "models", tmp_path / "own-cache")
    run = RunContext(key, tmp_path, roots, (), heard.reporter)

    prepared = work.prepare(trainer_pb2.PrepareRequest(spec=spec), run)
    assert prepared["revision"] == commit
    assert Path(prepared["model_path"]) == Path(constants.HF_HUB_CACHE, "models--owner--model", "snapshots", commit)

    fetched = [event.step for event in heard.of("progress") if event.unit == "byte"]
    assert fetched[-1] == sum(map(len, files.values()))

    hub.add(ID, {**files, "LICENSE": b"another commit"})
    asked = len(hub.requests)
    plans: list[TrainingPlan] = []

    class Stop(Exception):
        pass

    def train(plan: TrainingPlan, *_: Any) -> None:
        plans.append(plan)
        raise Stop

    monkeypatch.setattr(recipe, "train", train)
    with pytest.raises(Stop):
        work.train(trainer_pb2.TrainRequest(spec=spec, model_path=prepared["model_path"]), run)
    assert (plans[0].model_name, plans[0].revision) == (ID, commit)
    assert plans[0].model_path == Path(prepared["model_path"])
    assert len(hub.requests) == asked
