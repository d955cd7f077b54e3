"""A stage service: the real server, runs and servicer, with other work, a shorter grace and a death of its own.

python -m tests.faults.quick.stage trainer
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from typing import Any

from cutoff.stage import server
from cutoff.stage.runs import Limits, Runs
from tests.faults.quick.deaths import Death

SERVICES = ("trainer", "merger", "gguf-converter", "evaluator")

_WORK = {
    "cutoff.trainer.work:prepare": "prepare",
    "cutoff.trainer.work:train": "train",
    "cutoff.merger.work:merge": "merge",
    "cutoff.gguf_converter.work:convert": "convert",
    "cutoff.gguf_converter.work:write_card": "write_card",
    "cutoff.gguf_converter.work:install": "install",
    "cutoff.evaluator.work:evaluate": "evaluate",
    "cutoff.evaluator.job_report.work:write": "write_report",
}


class QuickRuns(Runs):
    """Runs of `work.py`, in a service that dies around the event that FAULTS_DEATH names (stage/kind/number)."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "limits": Limits(grace=5.0)})
        self._death = Death.of_environment()

    def run(self, request: Any, target: str) -> Any:
        return super().run(request, f"tests.faults.quick.work:{_WORK[target]}")

    async def _add(self, run: Any, event: Any, last: bool = False) -> None:
        if self._death is None:
            await super()._add(run, event, last)
            return
        kind = kind_of(event)
        number = 1 + sum(kind_of(earlier) == kind for earlier in run.events)
        moment = f"{run.key.stage}/{kind}/{number}"
        self._death.come("before", moment)
        await super()._add(run, event, last)
        self._death.come("after", moment)


def kind_of(event: Any) -> str:
    """What an event is: of an artifact, what it is one of."""
    kind = event.WhichOneof("kind")
    return event.artifact.kind if kind == "artifact" else kind


def main(name: str) -> int:
    service = importlib.import_module(f"cutoff.{name.replace('-', '_')}.service").SERVICE
    server.Runs = QuickRuns
    more = ("cutoff.gguf_converter.work",) if name == "gguf-converter" else ()
    return server.main(replace(service, preload=("cutoff.stage.child", "tests.faults.quick.work", *more)), [])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
