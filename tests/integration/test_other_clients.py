"""A gRPC client that shares no code with ours submits a job and watches it to its end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from google.protobuf import json_format

from cutoff.client import Client
from cutoff.client.local import LocalSystem
from cutoff.rpc import ClientSecurity
from cutoff.spec import spec_to_proto

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        shutil.which("npm") is None and not os.environ.get("CI"), reason="npm is missing, which installs buf"
    ),
]

PROTOS = Path(__file__).parents[2] / "protos"


def curl(system: LocalSystem, method: str, body: dict) -> list[dict]:
    """Calls a method with `buf curl` over the system's Unix socket; returns the answers."""
    command = [
        str(PROTOS / "buf.sh"), "curl", "--schema", ".", "--protocol", "grpc", "--http2-prior-knowledge",
        "--unix-socket", system.address.removeprefix("unix:"), "--data", json.dumps(body),
        f"http://localhost/cutoff.v1.JobService/{method}",
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    decoder, text, answers = json.JSONDecoder(), ran.stdout.strip(), []
    while text:
        answer, end = decoder.raw_decode(text)
        answers.append(answer)
        text = text[end:].lstrip()
    return answers


def test_buf_curl_submits_and_watches_a_job(system, roots, small_world):
    spec = small_world.job(
        roots.datasets,
        install={"model_name": "buf", "require": "none"},
        train={"epochs": 1},
        evaluate={"targets": ["gguf"]},
    )
    body = {"requestId": f"buf-{time.time()}", "spec": json_format.MessageToDict(spec_to_proto(spec))}
    [submitted] = curl(system, "SubmitJob", body)
    [again] = curl(system, "SubmitJob", body)
    assert again["job"]["name"] == submitted["job"]["name"], "the same request is the same job"
    events = curl(system, "WatchJob", {"name": submitted["job"]["name"]})
    assert events[-1]["event"]["job"]["state"] == "STATE_SUCCEEDED"
    assert events[-1]["event"]["job"]["result"]["installedPath"].endswith("buf-Q4_K_M.gguf")
    with Client(system.address, ClientSecurity(None, None)) as client:
        assert client.get(submitted["job"]["name"]).state
