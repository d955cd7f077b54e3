"""What the stages do here: as good as nothing, but with the files, events and results of the real ones.

Only installing is the real thing. A training takes `train.epochs` steps and leaves a checkpoint every
`train.save_steps`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

from cutoff.artifacts import describe, inside, publishing, publishing_folder
from cutoff.stage.context import RunContext
from tests.faults.quick.ledger import Ledger

STEP_SECONDS = 0.1


def prepare(request: Any, run: RunContext) -> Mapping[str, Any]:
    with _at_work(run):
        return {"model_path": request.spec.base_model, "probe_questions": ["Who?"], "data": []}


def train(request: Any, run: RunContext) -> Mapping[str, Any]:
    with _at_work(run) as ledger:
        for step in range(1 + _step_of(request.resume_from, run), 1 + round(request.spec.train.epochs)):
            time.sleep(STEP_SECONDS)
            ledger.write(what="step", step=step, **_about(run))
            if step % request.spec.train.save_steps == 0:
                _publish_folder(run, f"checkpoint-{step}", "checkpoint")
        return {"adapter": _publish_folder(run, "final", "adapter")}


def merge(_request: Any, run: RunContext) -> Mapping[str, Any]:
    with _at_work(run):
        return {"path": _publish_folder(run, "merged", "merged")}


def convert(request: Any, run: RunContext) -> Mapping[str, Any]:
    from tests.fixtures.gguf_files import write_gguf

    with _at_work(run):
        files = []
        for quant_type in request.spec.quant_types:
            path = run.folder / f"{request.model_name}-{quant_type}.gguf"
            with publishing(path) as partial:
                write_gguf(partial, seed=crc32(run.key.job.encode()))
            made = describe(path)
            run.report.artifact("gguf", made, quant_type=quant_type)
            files.append(
                {"quant_type": quant_type, "path": _relative(path, run), "sha256": made.sha256,
                 "size_bytes": made.size_bytes}
            )  # fmt: skip
        return {"files": files}


def evaluate(_request: Any, run: RunContext) -> Mapping[str, Any]:
    with _at_work(run):
        return {"sets": {"validation": {"questions": 1}}}


def write_card(_request: Any, run: RunContext) -> Mapping[str, Any]:
    with _at_work(run):
        return {"path": _publish(run, "card.md", "card")}


def install(request: Any, run: RunContext) -> Mapping[str, Any]:
    """The real one; a run that is held has copied the file and not yet given it its name."""
    from cutoff.gguf_converter import install as real
    from cutoff.gguf_converter import work

    place: Callable[..., Any] = real.place

    def placed(*arguments: Any, **options: Any) -> Any:
        how = place(*arguments, **options)
        Ledger.of_environment().wait(**_about(run))
        return how

    real.place = placed
    with _at_work(run, hold=False):
        return work.install(request, run)


def write_report(_request: Any, run: RunContext) -> Mapping[str, Any]:
    with _at_work(run):
        return {"path": _publish(run, "report.json", "report")}


@contextmanager
def _at_work(run: RunContext, hold: bool = True) -> Iterator[Ledger]:
    ledger = Ledger.of_environment()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    with ledger.alone(visible.split(",") if run.devices else [], **_about(run)):
        ledger.write(what="begun", pid=os.getpid(), **_about(run))
        if hold:
            ledger.wait(**_about(run))
        time.sleep(STEP_SECONDS)
        yield ledger
        ledger.write(what="done", **_about(run))


def _about(run: RunContext) -> dict[str, Any]:
    return {"job": run.key.job, "stage": run.key.stage, "attempt": run.key.attempt}


def _step_of(checkpoint: str, run: RunContext) -> int:
    return int((inside(run.roots.artifacts, checkpoint) / "step").read_text()) if checkpoint else 0


def _publish_folder(run: RunContext, name: str, kind: str) -> str:
    path = run.folder / name
    with publishing_folder(path) as partial:
        (partial / "step").write_text(name.rpartition("-")[2])
    run.report.artifact(kind, describe(path))
    return _relative(path, run)


def _publish(run: RunContext, name: str, kind: str) -> str:
    path = run.folder / name
    with publishing(path) as partial:
        partial.write_text("{}")
    run.report.artifact(kind, describe(path))
    return _relative(path, run)


def _relative(path: Path, run: RunContext) -> str:
    return str(path.resolve().relative_to(run.roots.artifacts.resolve()))
