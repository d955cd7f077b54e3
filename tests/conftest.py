"""What all tests share: made-up worlds, and a running system, each made once per session."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cutoff.artifacts import Roots
from cutoff.client import Client
from cutoff.client.local import LocalSystem
from cutoff.demo import create
from cutoff.llama_cpp import LlamaCpp
from cutoff.spec import JobSpec, load_job_yaml

pytest_plugins = [
    "tests.fixtures.bpe_tokenizer",
    "tests.fixtures.browser",
    "tests.fixtures.evaluated_job",
    "tests.fixtures.file_systems",
    "tests.fixtures.hub_server",
    "tests.fixtures.lmstudio_server",
    "tests.fixtures.openai_server",
    "tests.fixtures.tiny_model",
]

SMALL_WORLD = 24
"""Facts of a world that is only there to be worked on: its scores say nothing."""


@dataclass(frozen=True)
class World:
    """A demo world on disk, below the datasets root of the running system."""

    folder: Path
    job_file: Path

    def job(self, root: Path, **changes: dict[str, object]) -> JobSpec:
        """Its job, with dataset paths relative to `root`; changes replace fields of sections."""
        data = load_job_yaml(self.job_file).model_dump(exclude_none=True)
        prefix = (self.folder / "datasets").relative_to(root)
        data["dataset"] = {field: f"{prefix}/{name}" for field, name in data["dataset"].items()}
        for field in ("test_file", "heldout_file"):
            data["evaluate"][field] = f"{prefix}/{data['evaluate'][field]}"
        for section, fields in changes.items():
            data[section].update(fields)
        return JobSpec.model_validate(data)


@pytest.fixture(scope="session")
def llama() -> LlamaCpp:
    """The pinned llama.cpp; `make setup` builds it."""
    return LlamaCpp.find(Roots.from_environment().cache)


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    """Folders of this session; the cache is the user's, so that llama.cpp and base models are made once."""
    folder = tmp_path_factory.mktemp("system")
    made = Roots(folder / "datasets", folder / "output", folder / "models", Roots.from_environment().cache)
    made.datasets.mkdir()
    made.models.mkdir()
    return made


@pytest.fixture
def own_roots(roots: Roots, tmp_path: Path) -> Roots:
    """Of a second system beside the session's: the same datasets, and everything that is written apart."""
    own = replace(roots, artifacts=tmp_path / "output", models=tmp_path / "models")
    own.models.mkdir()
    return own


@pytest.fixture(scope="session")
def make_world(roots: Roots) -> Callable[[int, int], World]:
    """Makes a world of so many facts from a seed, once."""
    made: dict[tuple[int, int], World] = {}

    def make(facts: int, seed: int) -> World:
        if (facts, seed) not in made:
            folder = roots.datasets / f"world-{facts}-{seed}"
            job_file = create(folder, facts=facts, seed=seed, cache=roots.cache, on_progress=lambda *_: None)
            made[facts, seed] = World(folder, job_file)
        return made[facts, seed]

    return make


@pytest.fixture(scope="session")
def small_world(make_world: Callable[[int, int], World]) -> World:
    """A world that takes seconds."""
    return make_world(SMALL_WORLD, 7)


@pytest.fixture(scope="session")
def system(roots: Roots, llama: LlamaCpp) -> Iterator[LocalSystem]:
    """Coordinator, Ray and the stage services, started once."""
    before = os.environ.get("CUTOFF_ADDRESS")
    with LocalSystem(roots) as running:
        os.environ["CUTOFF_ADDRESS"] = running.address
        yield running
    if before is None:
        del os.environ["CUTOFF_ADDRESS"]


@pytest.fixture(scope="session")
def client(system: LocalSystem) -> Iterator[Client]:
    """A client of the running system."""
    with Client(system.address) as opened:
        yield opened
