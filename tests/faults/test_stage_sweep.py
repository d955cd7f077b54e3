"""kill -9 of each stage service before and after every event of its runs, one after the other."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from tests.faults.quick.audit import Audit
from tests.faults.quick.deaths import Death
from tests.faults.quick.renames import Appearances
from tests.faults.quick.stage import kind_of
from tests.faults.quick.system import System

pytestmark = pytest.mark.fault

SERVICE_OF = {"prepare": "trainer", "train": "trainer", "merge": "merger", "convert": "gguf-converter",
              "evaluate": "evaluator", "card": "gguf-converter", "install": "gguf-converter",
              "report": "evaluator"}  # fmt: skip
STEPS, INTERVAL = 24, 4
CHECKPOINTS = 2
"""Killed at so many of an attempt's checkpoints: the steps are to last for all attempts."""


def moments_of(system: System) -> list[str]:
    """What happens in a job's runs, in the order of a job that is left in peace: stage/kind/number."""
    name = system.submit(system.spec("reference", epochs=STEPS, save_steps=INTERVAL))
    system.wait_terminal(name)
    with system.client() as client:
        events = [event.run for event in client.watch(name) if event.HasField("run")]
    seen: Counter[str] = Counter()
    moments = []
    for run in events:
        what = f"{run.key.stage}/{kind_of(run.event)}"
        seen[what] += 1
        if not what.endswith("/checkpoint") or seen[what] <= CHECKPOINTS:
            moments.append(f"{what}/{seen[what]}")
    return moments


class Reaper:
    """Starts a service whenever it is gone, each time to die at its next moment."""

    def __init__(self, system: System, deaths: dict[str, list[Death]]) -> None:
        self._system = system
        self._deaths = deaths
        self.died: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Reaper:
        for name in self._system.services:
            self._system.services[name].start(self._next(name))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _next(self, name: str) -> Death | str:
        return self._deaths[name].pop(0) if self._deaths.get(name) else ""

    def _run(self) -> None:
        while not self._over.wait(0.05):
            for name, process in self._system.services.items():
                if not process.running:
                    self.died.append(name)
                    process.start(self._next(name))


def test_no_kill_of_a_stage_service_loses_or_doubles_anything(figures, stride):
    with System(ray_stays=True) as system:
        system.start()
        moments = moments_of(system)
        for process in system.services.values():
            process.stop()
        deaths: dict[str, list[Death]] = {name: [] for name in system.services}
        chosen = [Death(when, moment) for moment in moments for when in ("before", "after")][::stride]
        for death in chosen:
            deaths[SERVICE_OF[death.what.partition("/")[0].partition("-")[0]]].append(death)
        folder = system.roots.models / "local" / "quick"
        folder.mkdir(parents=True)
        appeared = Appearances(folder)
        with Reaper(system, deaths) as reaper:
            name = system.submit(system.spec(epochs=STEPS, save_steps=INTERVAL))
            system.wait_terminal(name, 60 + 20 * len(chosen))
            audit = Audit.of(system, name)
            time.sleep(0.5)  # what was killed last may yet do harm
        figures.hold(
            "kill -9 of each stage service before and after each event of a run", len(reaper.died),
            jobs_lost=audit.lost, jobs_stuck=audit.stuck, two_runs_on_one_device=audit.devices_taken_twice,
            results_recorded_twice=audit.results_recorded_twice, duplicate_installs=len(appeared.take()) - 1,
        )  # fmt: skip
        figures.hold("the same", len(reaper.died), limit=INTERVAL, training_steps_redone=audit.steps_redone)
        assert len(reaper.died) == len(chosen), f"never reached: {deaths}"
        assert [path.name for path in system.installed()].count("quick-Q4_K_M.gguf") == 1
        appeared.close()
