"""What a user shows the coordinator is found: variables, a folder, the container on this machine."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cutoff.client.credentials import find_security
from cutoff.client.init import init
from cutoff.errors import Refused

ADDRESS = "127.0.0.1:50051"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    for name in ("CUTOFF_TOKEN_FILE", "CUTOFF_CA_FILE", "CUTOFF_SECRETS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))


def docker(tmp_path: Path, script: str) -> None:
    """Puts a program named docker on the path, which speaks docker's command line."""
    program = tmp_path / "programs/docker"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n{script}')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_without_anything_nothing_is_shown():
    assert find_security(ADDRESS).token is None
    assert find_security("unix:/x.sock").ca is None


def test_variables_come_first(tmp_path, monkeypatch):
    init(tmp_path / "a")
    init(tmp_path / "b")
    monkeypatch.setenv("CUTOFF_SECRETS", f"{tmp_path}/b/")
    monkeypatch.setenv("CUTOFF_TOKEN_FILE", f"{tmp_path}/a/client/token")
    monkeypatch.setenv("CUTOFF_CA_FILE", f"{tmp_path}/a/client/ca.crt")
    assert find_security(ADDRESS).ca == (tmp_path / "a/client/ca.crt").read_bytes()
    monkeypatch.delenv("CUTOFF_TOKEN_FILE")
    monkeypatch.delenv("CUTOFF_CA_FILE")
    found = find_security(ADDRESS)
    assert found.ca == (tmp_path / "b/client/ca.crt").read_bytes()
    assert found.token == (tmp_path / "b/client/token").read_text().strip()


def test_the_container_that_publishes_the_port_is_asked(tmp_path):
    docker(
        tmp_path,
        'if [ "$1" = ps ]; then echo abc123; else printf "%064d\\n-----BEGIN CERTIFICATE-----\\nx\\n" 7; fi',
    )
    found = find_security("127.0.0.1:4711")
    assert found.token == "7".zfill(64)
    assert found.ca == b"-----BEGIN CERTIFICATE-----\nx\n"
    asked, shown = (tmp_path / "called").read_text().splitlines()
    assert "publish=4711" in asked
    assert "exec abc123" in shown


@pytest.mark.parametrize("script", ["exit 1", "true", "if [ $1 = ps ]; then echo abc; else exit 1; fi"])
def test_a_docker_that_knows_nothing_is_no_error(tmp_path, script):
    docker(tmp_path, script)
    assert find_security(ADDRESS).ca is None


def test_docker_is_not_asked_about_other_machines(tmp_path):
    docker(tmp_path, "echo abc")
    find_security("gpu.example:50051")
    assert not (tmp_path / "called").exists()


def test_a_token_that_is_none_is_refused(tmp_path, monkeypatch):
    init(tmp_path)
    (tmp_path / "client/token").write_text("short")
    monkeypatch.setenv("CUTOFF_SECRETS", str(tmp_path))
    with pytest.raises(Refused, match="no token"):
        find_security(ADDRESS)
