from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from cutoff.errors import InvalidInput
from cutoff.hub import resolve_base_model, trusts_remote_code
from cutoff.hub.remote_code import ALLOW_LIST, allowed_commits, snapshot_name
from tests.fixtures.hub_server import Hub, commit_of, model_files

ID = "owner/model"
CODE = b"""
import os, pathlib
from transformers import PreTrainedConfig
pathlib.Path(os.environ["MARKER"]).touch()

class OwnConfig(PreTrainedConfig):
    model_type = "own-architecture"
"""
OWN = {
    "config.json": b'{"model_type": "own-architecture", "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}',
    "configuration_own.py": CODE,
}
BORROWED = {"config.json": b'{"model_type": "own", "auto_map": {"AutoConfig": "other/model--configuration_own.C"}}'}
KNOWN = {"config.json": b'{"model_type": "phi3", "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}'}


@pytest.fixture
def marker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file that the model's code makes when it runs."""
    path = tmp_path / "executed"
    monkeypatch.setenv("MARKER", str(path))
    return path


def allow(monkeypatch: pytest.MonkeyPatch, entries: str) -> None:
    monkeypatch.setenv(ALLOW_LIST, entries)


def test_code_of_a_model_nobody_listed_is_not_even_fetched(hub: Hub, marker: Path) -> None:
    commit = hub.add(ID, model_files(**OWN))
    with pytest.raises(InvalidInput, match=f"{ALLOW_LIST}={ID}@{commit} where models are loaded"):
        resolve_base_model(ID)
    assert not any(path.endswith(".py") for path in hub.asked("hub"))
    assert not marker.exists()


def test_code_of_a_listed_commit_runs(hub: Hub, marker: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from transformers import AutoConfig

    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    allow(monkeypatch, f"other/model@{commit_of(3)}, {ID}@{commit_of(0)}")
    hub.add(ID, model_files(**OWN))
    folder = resolve_base_model(ID).path
    assert trusts_remote_code(folder)
    AutoConfig.from_pretrained(folder, trust_remote_code=trusts_remote_code(folder))
    assert marker.exists()


def test_another_commit_of_a_listed_model_is_not_trusted(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, f"{ID}@{commit_of(0)}")
    hub.add(ID, model_files(**OWN))
    first = resolve_base_model(ID).path
    hub.add(ID, model_files(**OWN, LICENSE=b"new"))
    with pytest.raises(InvalidInput, match="only code in its own repository"):
        resolve_base_model(ID)
    assert trusts_remote_code(first)
    assert not trusts_remote_code(first.with_name(commit_of(1)))


def test_code_is_not_run_where_transformers_knows_the_architecture(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, f"{ID}@{commit_of(0)}")
    hub.add(ID, model_files(**KNOWN))
    assert not trusts_remote_code(resolve_base_model(ID).path)


def test_code_of_another_repository_is_not_trusted(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, f"{ID}@{commit_of(0)}")
    hub.add(ID, model_files(**BORROWED))
    with pytest.raises(InvalidInput, match="only code in its own repository"):
        resolve_base_model(ID)


def test_a_folder_is_never_trusted_whatever_it_is_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    allow(monkeypatch, f"{ID}@{commit_of(0)}")
    folder = tmp_path / "models--owner--model" / "snapshots" / commit_of(0)
    folder.mkdir(parents=True)
    for name, content in model_files(**OWN).items():
        (folder / name).write_bytes(content)
    assert not trusts_remote_code(folder)
    with pytest.raises(InvalidInput) as caught:
        resolve_base_model(str(folder))
    assert ALLOW_LIST not in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    ["owner/model", "owner/model@main", f"model@{'a' * 40}", f"owner/model@{'A' * 40}", f"o/m@{'a' * 39}", "*", "all"],
)
def test_an_entry_that_names_no_commit_is_refused(monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    allow(monkeypatch, f"good/model@{'a' * 40},{entry}")
    with pytest.raises(InvalidInput, match=ALLOW_LIST) as caught:
        allowed_commits()
    assert len(caught.value.faults) == 1


def test_an_empty_list_allows_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    allow(monkeypatch, " , ")
    assert allowed_commits() == frozenset()
    assert snapshot_name(tmp_path) is None
