"""Starting and stopping the whole system: what goes wrong is named, and leaves nothing."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest

from cutoff.artifacts import Roots
from cutoff.client import local
from cutoff.client.local import LocalSystem
from cutoff.errors import ProgramFailed, Refused


@pytest.fixture
def roots(tmp_path):
    return Roots(tmp_path / "datasets", tmp_path / "output", tmp_path / "models", tmp_path / "cache")


@pytest.fixture(autouse=True)
def private_temp(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def leftovers(tmp_path: Path) -> list[str]:
    return [path.name for path in tmp_path.glob("cutoff-*")]


def test_a_port_where_somebody_listens_is_refused(roots, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 50052))
        other.listen()
        with pytest.raises(Refused, match=r"127\.0\.0\.1:50052"), LocalSystem(roots, ports=True):
            pass
    assert leftovers(tmp_path) == []


def test_a_service_that_does_not_start_is_named_with_the_end_of_its_log(roots, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_MODULES", {"trainer": "cutoff.no_such_module"})
    with pytest.raises(ProgramFailed, match="no_such_module"), LocalSystem(roots):
        pass
    assert leftovers(tmp_path) == []


def test_an_artifacts_folder_that_cannot_be_made_leaves_nothing(roots, tmp_path):
    roots.artifacts.write_text("a file")
    with pytest.raises(OSError, match="output"), LocalSystem(roots):
        pass
    assert leftovers(tmp_path) == []


def test_a_process_that_ends_is_noticed(roots, monkeypatch):
    monkeypatch.setattr(local, "_MODULES", {"merger": "cutoff.merger.service"})
    with LocalSystem(roots) as system:
        system._processes["merger"].kill()
        with pytest.raises(ProgramFailed, match="merger does not run"):
            system.watch()


def test_modules_of_the_folder_it_was_started_in_are_not_imported(roots, tmp_path, monkeypatch):
    (tmp_path / "grpc.py").write_text("raise SystemExit('this is not the library')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", None)  # Ray's sockets have long names
    with LocalSystem(roots) as system:
        assert system.address
