"""Training with several processes: the same adapter as one computes, and no rank left behind."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from cutoff.errors import TrainingDiverged
from cutoff.stage.report import silent
from cutoff.trainer import launch
from cutoff.trainer.checkpoints import checkpoints_in, problems, step_of
from tests.unit.trainer.conftest import Heard, MakePlan, base, datasets, few, heard, make_plan

__all__ = ["base", "datasets", "few", "heard", "make_plan"]

pytestmark = pytest.mark.integration

TWO = ("cpu", "cpu")


def test_two_ranks_compute_what_one_does(make_plan: MakePlan, heard: Heard) -> None:
    plan = make_plan(method="npo", lora_dropout=0, learning_rate=1e-3)
    alone = launch.train(plan, silent())
    wanted = load_file(alone.adapter / "adapter_model.safetensors")
    records = (plan.folder / "metrics.jsonl").read_text().splitlines()
    shutil.rmtree(plan.folder)
    plan.folder.mkdir()
    result = launch.train(replace(plan, devices=TWO), heard.reporter)
    assert (result.steps, result.tokens, result.best_checkpoint) == (alone.steps, alone.tokens, alone.best_checkpoint)
    assert result.eval_loss == pytest.approx(alone.eval_loss, rel=1e-4)
    for name, tensor in load_file(result.adapter / "adapter_model.safetensors").items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-3, atol=1e-5)
    assert len((plan.folder / "metrics.jsonl").read_text().splitlines()) == len(records)
    steps = [event.step for event in heard.of("progress")]
    assert (steps[0], steps[-1]) == (0, 12)
    assert len(set(steps)) == len(steps), "one rank reports"


def test_what_a_rank_fails_with_is_told_and_nothing_is_left(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    plan = make_plan(learning_rate=1.0, max_seq_length=64)
    poisoned = plan.model_path.parent / "poisoned"
    shutil.rmtree(poisoned, ignore_errors=True)
    shutil.copytree(plan.model_path, poisoned)
    from safetensors.torch import save_file

    weights = load_file(poisoned / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * float("nan")
    save_file(weights, poisoned / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingDiverged, match="at step 1"):
        launch.train(replace(plan, model_path=poisoned, devices=TWO), silent())
    assert not list(temporary.iterdir()), "torch leaves a pickle for each rank that failed"


PROGRAM = """
import pickle, sys
from cutoff.stage.report import silent
from cutoff.trainer import launch
if __name__ == "__main__":
    launch.train(pickle.load(open(sys.argv[1], "rb")), silent())
"""


SHORT_OF_MEMORY = """
import os, pickle, sys
import torch
from cutoff.stage.report import silent
from cutoff.trainer import launch, learner

real, calls = learner.Learner._logits, iter(range(1000))

def logits(trainer, batch):
    number = next(calls)
    if os.environ.get("RANK") == "1" and (number == 3 if "{error}" == "once" else number >= 3):
        raise torch.OutOfMemoryError("CUDA out of memory")
    return real(trainer, batch)

learner.Learner._logits = logits
if __name__ == "__main__":
    launch.train(pickle.load(open(sys.argv[1], "rb")), silent())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_ranks_leave_a_checkpoint_and_no_process(
    make_plan: MakePlan, tmp_path: Path, number: signal.Signals
) -> None:
    plan = replace(make_plan(epochs=500, save_steps=20, eval_steps=20), devices=TWO)
    (tmp_path / "plan").write_bytes(pickle.dumps(plan))
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, tmp_path / "program.py", tmp_path / "plan"], env=environment) as running:
        while not list(plan.folder.glob("checkpoint-*")):
            assert running.poll() is None
            time.sleep(0.1)
        ranks = psutil.Process(running.pid).children(recursive=True)
        listening = [
            connection.laddr.ip
            for process in (psutil.Process(running.pid), *ranks)
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        running.send_signal(number)
        running.wait(60)
    assert running.returncode == -number
    _, alive = psutil.wait_procs(ranks, timeout=20)
    assert alive == []
    assert set(listening) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, "nothing else may reach what ranks exchange"
    kept = checkpoints_in(plan.folder)
    assert kept
    assert all(problems(checkpoint) == [] for checkpoint in kept)
    if number == signal.SIGTERM:
        assert step_of(kept[0]) % 20 != 0, "it was written because of the signal"


def test_one_rank_out_of_memory_is_mended_by_that_rank(make_plan: MakePlan, tmp_path: Path) -> None:
    """The other, which has room, repeats the step as it was."""
    plan = replace(make_plan(lora_dropout=0), devices=TWO)
    (tmp_path / "plan").write_bytes(pickle.dumps(plan))
    (tmp_path / "program.py").write_text(SHORT_OF_MEMORY.format(error="once"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, tmp_path / "program.py", tmp_path / "plan"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (plan.folder / "final").is_dir()


def test_the_rank_that_failed_first_is_the_one_that_is_heard(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = replace(make_plan(), devices=TWO)
    (tmp_path / "plan").write_bytes(pickle.dumps(plan))
    (tmp_path / "program.py").write_text(SHORT_OF_MEMORY.format(error="always"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, tmp_path / "program.py", tmp_path / "plan"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "OutOfMemory: training does not fit" in done.stderr.splitlines()[-1]
