"""A model below its bar: it has a card, is installed by hand through the running system, and taken away again."""

from __future__ import annotations

import pytest

from cutoff.client import Outcome, outcome_of
from cutoff.client.api import require_installed
from cutoff.errors import AlreadyExists, InvalidInput

pytestmark = pytest.mark.integration

NAME = "by-hand"


def to_the_end(client, job):
    for _ in client.watch(job.name, job.last_sequence):
        pass
    return client.get(job.name)


def test_a_job_whose_gate_said_no_is_installed_and_uninstalled(client, roots, small_world):
    changes = {
        "install": {"model_name": NAME, "require": "target", "replace": False},
        "train": {"epochs": 0.1},
        "convert": {"quant_types": ["q4_k_m", "q8_0"]},
        "evaluate": {"targets": ["gguf"]},
    }
    spec = small_world.job(roots.datasets, **changes)
    job = to_the_end(client, client.submit(spec))
    assert outcome_of(job) is Outcome.BELOW_BAR
    folder = roots.models / "local" / NAME
    assert not folder.exists()
    card = (roots.artifacts / job.name / "card/1/card.md").read_text()
    assert "misses what `install.require: target` asks for" in card
    assert spec.dataset.retain_train in card

    with pytest.raises(InvalidInput, match="made no q6_k"):
        client.install(job.name, "q6_k")
    job = to_the_end(client, client.install(job.name))
    require_installed(job)
    assert outcome_of(job) is Outcome.INSTALLED
    [installed] = folder.iterdir()
    assert (str(installed), installed.name) == (job.result.installed_path, f"{NAME}-Q4_K_M.gguf")

    before = installed.stat()
    require_installed(to_the_end(client, client.install(job.name)))
    assert (installed.stat().st_ino, installed.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

    with pytest.raises(AlreadyExists, match="is there already"):
        client.install(job.name, "q8_0")
    require_installed(to_the_end(client, client.install(job.name, "q8_0", replace=True)))
    assert [path.name for path in folder.iterdir()] == [f"{NAME}-Q8_0.gguf"]

    again = to_the_end(client, client.submit(spec))
    assert again.failure.reason == "ALREADY_EXISTS", "the name is taken"
    assert "install.replace: true" in again.failure.remedy
    assert list(again.attempts) == [], "and that was found before any work"

    assert client.uninstall(job.name).result.installed_path == ""
    assert not folder.exists()
    assert client.uninstall(job.name).result.installed_path == ""
