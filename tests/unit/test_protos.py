"""The committed stubs are what protos/ says now."""

import importlib.resources
from pathlib import Path

import pytest
from grpc_tools import protoc

ROOT = Path(__file__).parents[2]
STUBS = ROOT / "services/cutoff/v1"


def test_committed_stubs_are_current(tmp_path):
    protos = sorted(str(path) for path in (ROOT / "protos/cutoff/v1").glob("*.proto"))
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    assert protoc.main(["protoc", f"-I{ROOT / 'protos'}", f"-I{well_known}", *outputs, *protos]) == 0
    made = {path.name: path.read_text() for path in (tmp_path / "cutoff/v1").iterdir()}
    committed = {path.name: path.read_text() for path in STUBS.glob("*_pb2*")}
    assert made.keys() == committed.keys()
    stale = [name for name in made if made[name] != committed[name]]
    if stale:
        pytest.fail(f"{stale} are not what protos/ says: run `make protos`")
