"""Strangers at every door of a running system: every RPC in the descriptors, and every port of Ray's."""

from __future__ import annotations

import contextlib
import http.client
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest

from cutoff.client.init import STAGE_SERVICES, init
from cutoff.v1 import evaluator_pb2, gguf_converter_pb2, job_pb2, merger_pb2, run_pb2, trainer_pb2

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

_REFUSED = {
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNAVAILABLE,  # the TLS handshake failed
    grpc.StatusCode.RESOURCE_EXHAUSTED,  # a stranger that calls too often
}
_MODULES = {
    "coordinator": ("cutoff.coordinator.main", (job_pb2,)),
    "trainer": ("cutoff.trainer.service", (trainer_pb2, run_pb2)),
    "merger": ("cutoff.merger.service", (merger_pb2, run_pb2)),
    "gguf-converter": ("cutoff.gguf_converter.service", (gguf_converter_pb2, run_pb2)),
    "evaluator": ("cutoff.evaluator.service", (evaluator_pb2, run_pb2)),
}


def methods_of(name):
    """Every method a server should have, as (path, whether it answers with a stream)."""
    return [
        (f"/{service.full_name}/{method.name}", method.server_streaming)
        for module in _MODULES[name][1]
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


@dataclass
class Locked:
    """A system with TLS, tokens and certificates, as the containers have it."""

    secrets: Path
    addresses: dict[str, str]
    processes: dict[str, subprocess.Popen]
    state: Path
    metrics: dict[str, int]


@pytest.fixture(scope="module")
def locked(tmp_path_factory) -> Iterator[Locked]:
    folder = Path(tempfile.mkdtemp(prefix="doors-"))  # short: Ray's sockets lie below it
    secrets, state = folder / "secrets", folder / "state"
    init(secrets)
    addresses = {name: f"localhost:{_free_port()}" for name in _MODULES}
    metrics = {name: _free_port() for name in _MODULES}
    processes = {}
    try:
        for name in reversed(_MODULES):
            own = secrets / name
            environment = {
                **os.environ,
                "CUTOFF_LISTEN": addresses[name],
                "CUTOFF_METRICS_PORT": str(metrics[name]),
                "CUTOFF_STATE": str(state),
                "CUTOFF_DATABASE_URL": "",
                "CUTOFF_CERT_FILE": str(own / "tls.crt"),
                "CUTOFF_KEY_FILE": str(own / "tls.key"),
                "CUTOFF_CA_FILE": str(own / "ca.crt"),
                **{name: str(folder / name) for name in ("CUTOFF_DATASETS", "CUTOFF_ARTIFACTS", "LMSTUDIO_MODELS")},
                **{f"CUTOFF_{s.upper().replace('-', '_')}_ADDRESS": addresses[s] for s in STAGE_SERVICES},
                "RAY_TMPDIR": str(folder),
                "RAY_ADDRESS": "",
            }
            if name == "coordinator":
                environment["CUTOFF_TOKEN_SHA256_FILE"] = str(own / "token.sha256")
            else:
                environment["CUTOFF_CLIENT_CA_FILE"] = str(own / "ca.crt")
            with (folder / f"{name}.log").open("wb") as log:
                processes[name] = subprocess.Popen(
                    [sys.executable, "-m", _MODULES[name][0]], env=environment, stdout=log, stderr=log
                )
        system = Locked(secrets, addresses, processes, state, metrics)
        for name, process in processes.items():
            _wait(system, name, process, folder / f"{name}.log")
        yield system
    finally:
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        for process in processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(system, name, process, log):
    """Until the right caller is answered, which also shows that the refusals below are no broken doors."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if _call(known(system, name), *_harmless(name), _token(system) if name == "coordinator" else None) is None:
            return
        time.sleep(1)
    raise AssertionError(f"{name} does not answer:\n{log.read_text()[-3000:]}")


def _harmless(name):
    return ("/cutoff.v1.JobService/ListJobs" if name == "coordinator" else "/cutoff.v1.RunService/ListRuns"), False


def _token(system):
    return (system.secrets / "client/token").read_text().strip()


def known(system, name):
    """A channel of the caller a server is there for."""
    if name == "coordinator":
        return trusting(system, name, None)
    return trusting(system, name, system.secrets / "coordinator")


def trusting(system, name, own):
    """A channel that trusts the system's authority, and shows the certificate in a folder."""
    pair = ((own / "tls.key").read_bytes(), (own / "tls.crt").read_bytes()) if own else ()
    ca = (system.secrets / "client/ca.crt").read_bytes()
    return grpc.secure_channel(system.addresses[name], grpc.ssl_channel_credentials(ca, *pair))


def _call(channel, path, streams, token=None, timeout=20):
    """None for a call that was answered; else its status code."""
    metadata = [("authorization", f"Bearer {token}")] if token is not None else []
    try:
        with channel:
            if streams:
                next(channel.unary_stream(path, None, None)(b"", timeout=timeout, metadata=metadata), None)
            else:
                channel.unary_unary(path, None, None)(b"", timeout=timeout, metadata=metadata)
    except grpc.RpcError as error:
        return error.code()
    return None


def strangers(system, name, other):
    """Every way to come without being let in: (what, channel, token)."""
    made = other / "made"
    init(made)
    user = _token(system)
    address = system.addresses[name]
    yield "without a token", lambda: trusting(system, name, None), None
    yield "with a wrong token", lambda: trusting(system, name, None), "0" * 64
    yield "with a token's hash", lambda: trusting(system, name, None), _hash(system)
    yield "with a stranger's certificate", lambda: trusting(system, name, made / "coordinator"), None
    yield "in plaintext", lambda: grpc.insecure_channel(address), user
    if name == "coordinator":
        yield "with a service's certificate", lambda: trusting(system, name, system.secrets / "trainer"), None
    else:
        service = next(each for each in STAGE_SERVICES if each != name)
        yield "with a user's token", lambda: trusting(system, name, None), user
        yield "with another service's certificate", lambda: trusting(system, name, system.secrets / service), user


def _hash(system):
    return (system.secrets / "coordinator/token.sha256").read_text().strip()


def test_no_rpc_answers_a_stranger(locked, tmp_path, figures):
    succeeded, codes, calls, rpcs = [], Counter(), 0, 0
    for name in _MODULES:
        for path, streams in methods_of(name):
            rpcs += 1
            for what, channel, token in strangers(locked, name, tmp_path):
                calls += 1
                code = _call(channel(), path, streams, token)
                codes[code.name if code else "OK"] += 1
                if code not in _REFUSED:
                    succeeded.append(f"{name} {path} {what}: {code}")
    assert succeeded == [], codes
    figures.hold(f"strangers' calls of all {rpcs} RPCs", calls, calls_that_succeed=len(succeeded))
    assert rpcs >= 20
    for name in _MODULES:
        assert _call(known(locked, name), *_harmless(name), _token(locked)) is None, "the right caller is let in"


def test_a_token_made_and_revoked_beside_the_running_coordinator_counts_at_once(locked):
    cutoff = str(Path(sys.executable).with_name("cutoff"))
    environment = {**os.environ, "CUTOFF_STATE": str(locked.state)}

    def command(*words):
        return subprocess.run(
            [cutoff, "token", *words], env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    path, streams = _harmless("coordinator")
    token = command("create", "alice", "--days", "1")
    assert _call(known(locked, "coordinator"), path, streams, token) is None
    assert "alice" in command("list")
    command("revoke", "alice")
    assert _call(known(locked, "coordinator"), path, streams, token) is grpc.StatusCode.UNAUTHENTICATED
    kept = b"".join(file.read_bytes() for file in locked.state.glob("*") if file.is_file())
    assert token.encode() not in kept
    assert _token(locked).encode() not in kept, "the server keeps hashes only"
    assert b'"what": "token revoke"' in kept


def _ray_methods():
    """Every method in Ray's own descriptors."""
    import ray.core.generated as generated

    found = set()
    for module in pkgutil.iter_modules(generated.__path__):
        if module.name.endswith("_pb2"):
            with contextlib.suppress(Exception):  # some need packages that are not here
                descriptor = __import__(f"ray.core.generated.{module.name}", fromlist=["x"]).DESCRIPTOR
                found |= {
                    f"/{service.full_name}/{method.name}"
                    for service in descriptor.services_by_name.values()
                    for method in service.methods
                }
    return sorted(found)


_RAY_METRICS = 44217
"""Where Ray's autoscaler answers every GET with its metrics, if no other Ray on the machine has the port."""


def _ray_ports(system) -> dict[int, str]:
    """The TCP ports on which the coordinator's processes listen, and whose they are; its own two excepted."""
    coordinator = psutil.Process(system.processes["coordinator"].pid)
    own = {int(system.addresses["coordinator"].rpartition(":")[2]), system.metrics["coordinator"], _RAY_METRICS}
    found = {}
    for process in [coordinator, *coordinator.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port not in own:
                    found[connection.laddr.port] = process.name()
    return found


def _http(port: int, method: str, path: str, body: str | None = None) -> int:
    """The status of an HTTP answer; 0 for none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def test_ray_does_nothing_for_a_stranger(locked, tmp_path, figures):
    ports, methods = _ray_ports(locked), _ray_methods()
    assert ports
    assert len(methods) > 50
    canary, done, codes, calls = tmp_path / "canary", [], Counter(), 0
    for port, owner in ports.items():
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=3)
                speaks = True
            except grpc.FutureTimeoutError:
                speaks = False
            for path in methods if speaks else ():
                calls += 1
                try:
                    channel.unary_unary(path, None, None)(b"", timeout=3)
                    code = "OK"
                except grpc.RpcError as error:
                    code = error.code().name
                codes[code] += 1
                # A port that has no such method says so to anybody; all else must have asked for the token.
                if code not in ("UNAUTHENTICATED", "UNIMPLEMENTED", "UNAVAILABLE"):
                    done.append(f"{owner} {port} {path}: {code}")
        submit = f'{{"entrypoint": "touch {canary}"}}'
        posts = [("POST", path, submit) for path in ("/api/jobs/", "/api/job_agent/jobs/")]
        gets = [("GET", path, None) for path in ("/", "/api/version", "/api/v0/nodes")]
        for method, path, body in (*posts, *gets):
            calls += 1
            status = _http(port, method, path, body)
            codes[f"HTTP {status}"] += 1
            if 200 <= status < 400:
                done.append(f"{owner} {port} {method} {path}: {status}")
    joined = _join_without_token(ports)
    assert done == [], codes
    assert joined == 0
    assert not canary.exists()
    figures.hold(
        f"strangers' calls at Ray's {len(ports)} ports", calls, calls_that_did_anything=len(done), joined=joined
    )


def _join_without_token(ports) -> int:
    """How often a driver without the token, or with a wrong one, could run something in the cluster."""
    script = (
        "import sys, ray\n"
        "ray.init(sys.argv[1], log_to_driver=False)\n"
        "print('joined', ray.get(ray.remote(lambda: 42).remote(), timeout=10))"
    )
    joined = 0
    gcs = [port for port, owner in ports.items() if "gcs" in owner]
    assert gcs
    for mode in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_AUTH")} | mode
        environment |= {"RAY_gcs_server_request_timeout_seconds": "3", "RAY_gcs_rpc_server_reconnect_timeout_s": "3"}
        with contextlib.suppress(subprocess.TimeoutExpired):
            ran = subprocess.run(
                [sys.executable, "-c", script, f"127.0.0.1:{gcs[0]}"],
                env=environment, capture_output=True, text=True, timeout=40, check=False,
            )  # fmt: skip
            joined += "joined" in ran.stdout
    return joined
