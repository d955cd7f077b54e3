"""Doors: token, TLS, and where plaintext is allowed; errors that survive the wire."""

import asyncio
import subprocess
import sys
from base64 import b64encode
from urllib.parse import quote

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from hypothesis import example, given, settings
from hypothesis import strategies as st

import cutoff.health
from cutoff import errors
from cutoff.client.init import init
from cutoff.rpc import ClientSecurity, Door, Peer, ServerSecurity, error_of_failure, failure_of, open_channel
from cutoff.rpc.channel import CHANNEL_OPTIONS, SERVER_OPTIONS
from cutoff.rpc.errors import status_of
from cutoff.rpc.security import is_local
from cutoff.rpc.server import started
from cutoff.rpc.tokens import OneToken, hash_of
from cutoff.v1 import run_pb2, run_pb2_grpc

SECRET = OneToken(hash_of("secret"))


class Runs(run_pb2_grpc.RunServiceServicer):
    async def ListRuns(self, request, context):
        return run_pb2.ListRunsResponse()

    async def CancelRun(self, request, context):
        raise errors.InvalidInput([errors.Fault("key", "is wrong", "mend it"), errors.Fault("b", "c", "d")])


def register(server):
    run_pb2_grpc.add_RunServiceServicer_to_server(Runs(), server)
    return ["cutoff.v1.RunService"]


@pytest.fixture
def serve(serve_with):
    """serve(listen, security) -> address."""
    return lambda listen, security: serve_with(listen, register, security)


def thirty_times_faster(options):
    return [(name, value // 30 if name.endswith("_ms") else value) for name, value in options]


def test_a_quiet_stream_is_not_cut_for_pinging(serve, monkeypatch, tmp_path):
    """As a watch of a training that says nothing for minutes; with the times cut to a thirtieth."""
    monkeypatch.setattr("cutoff.rpc.server.SERVER_OPTIONS", thirty_times_faster(SERVER_OPTIONS))
    address = serve(f"unix:{tmp_path}/s.sock", ServerSecurity(None, None))
    with grpc.insecure_channel(address, thirty_times_faster(CHANNEL_OPTIONS)) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        said = health.Watch(health_pb2.HealthCheckRequest(), timeout=6)
        with pytest.raises(grpc.RpcError) as ended:
            list(said)
    assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED, ended.value.details()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    return key.read_bytes(), cert.read_bytes()


def list_runs(peer: Peer):
    return peer.unary("RunService/ListRuns", run_pb2.ListRunsRequest(), run_pb2.ListRunsResponse)


@pytest.mark.parametrize("shown", [None, "wrong", "secrets", "Bearer secret"])
def test_a_wrong_token_is_refused(serve, shown):
    address = serve("127.0.0.1:0", ServerSecurity(SECRET, None))
    with Peer(address, ClientSecurity(shown, None)) as peer, pytest.raises(errors.Unauthenticated):
        list_runs(peer)


def test_the_right_token_is_let_in_and_health_needs_none(serve):
    address = serve("127.0.0.1:0", ServerSecurity(SECRET, None))
    with Peer(address, ClientSecurity("secret", None)) as peer:
        assert list_runs(peer) == run_pb2.ListRunsResponse()
    with open_channel(address, ClientSecurity(None, None)) as channel:
        for name in ("", "cutoff.v1.RunService"):
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_tls_with_a_ca_works_and_without_is_refused(serve, certificate):
    security = ServerSecurity(SECRET, grpc.ssl_server_credentials([certificate]))
    address = serve("localhost:0", security)
    with Peer(address, ClientSecurity("secret", certificate[1])) as peer:
        list_runs(peer)
    with Peer(address, ClientSecurity("secret", None)) as peer, pytest.raises(errors.Unavailable):
        list_runs(peer)


def test_a_server_does_not_listen_to_strangers_without_doors(serve, certificate):
    tls = grpc.ssl_server_credentials([certificate])
    for security in (ServerSecurity(None, None), ServerSecurity(SECRET, None), ServerSecurity(None, tls)):
        with pytest.raises(errors.Refused, match="other machines"):
            serve("0.0.0.0:0", security)
    assert serve("0.0.0.0:0", ServerSecurity(SECRET, tls))


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secrets")
    init(folder)
    return folder


def use(monkeypatch, folder, **variables):
    """Sets the security variables of one service, and no others."""
    for name in ("TOKEN", "CERT", "KEY", "CA", "CLIENT_CA"):
        monkeypatch.delenv(f"CUTOFF_{name}_FILE", raising=False)
    for name, file in variables.items():
        monkeypatch.setenv(f"CUTOFF_{name}_FILE", str(folder / file))


def test_a_further_hosts_service_is_known_by_its_services_name_and_answers_its_ray_worker(serve, secrets, monkeypatch):
    own = {"CERT": "tls.crt", "KEY": "tls.key", "CA": "ca.crt"}
    use(monkeypatch, secrets / "merger", CLIENT_CA="ca.crt", **own)
    monkeypatch.setenv("CUTOFF_CALLERS", "coordinator,ray-worker")
    address = serve("127.0.0.2:0", ServerSecurity.from_environment())  # no name of its certificate
    for caller in ("coordinator", "ray-worker"):
        use(monkeypatch, secrets / caller, **own)
        with Peer(address, ClientSecurity.between_services(), "merger") as peer:
            list_runs(peer)
        for name in ("", "trainer"):
            with Peer(address, ClientSecurity.between_services(), name) as peer, pytest.raises(errors.Unavailable):
                list_runs(peer)
    monkeypatch.setenv("CUTOFF_CALLERS", "coordinator")
    use(monkeypatch, secrets / "merger", CLIENT_CA="ca.crt", **own)
    first = serve("127.0.0.2:0", ServerSecurity.from_environment())
    use(monkeypatch, secrets / "ray-worker", **own)
    with Peer(first, ClientSecurity.between_services(), "merger") as peer, pytest.raises(errors.Unauthenticated):
        list_runs(peer)


def test_services_know_each_other_by_certificates(serve, secrets, monkeypatch):
    own = {"CERT": "tls.crt", "KEY": "tls.key", "CA": "ca.crt"}
    use(monkeypatch, secrets / "merger", CLIENT_CA="ca.crt", **own)
    address = serve("localhost:0", ServerSecurity.from_environment())
    use(monkeypatch, secrets / "coordinator", TOKEN="../client/token", **own)
    shown = ClientSecurity.between_services()
    assert shown.token is None, "users' tokens are not for services"
    with Peer(address, shown) as peer:
        list_runs(peer)
    with Peer(address, ClientSecurity.from_environment()) as peer, pytest.raises(errors.Unavailable):
        list_runs(peer)
    use(monkeypatch, secrets / "evaluator", **own)
    with (
        Peer(address, ClientSecurity.between_services()) as peer,
        pytest.raises(errors.Unauthenticated, match="coordinator"),
    ):
        list_runs(peer)
    with open_channel(address, ClientSecurity.between_services()) as channel:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)


def test_a_stranger_with_a_certificate_of_the_same_name_is_not_let_in(serve, secrets, tmp_path, monkeypatch):
    own = {"CERT": "tls.crt", "KEY": "tls.key"}
    use(monkeypatch, secrets / "merger", CLIENT_CA="ca.crt", **own)
    address = serve("localhost:0", ServerSecurity.from_environment())
    init(tmp_path)
    use(monkeypatch, tmp_path / "coordinator", **own)
    monkeypatch.setenv("CUTOFF_CA_FILE", str(secrets / "merger/ca.crt"))
    with Peer(address, ClientSecurity.between_services()) as peer, pytest.raises(errors.Unavailable):
        list_runs(peer)


def test_certificates_open_an_address_to_other_machines(serve, secrets, monkeypatch):
    use(monkeypatch, secrets / "merger", CLIENT_CA="ca.crt", CERT="tls.crt", KEY="tls.key")
    assert serve("0.0.0.0:0", ServerSecurity.from_environment())
    use(monkeypatch, secrets / "merger", CLIENT_CA="ca.crt")
    with pytest.raises(errors.Refused, match="CUTOFF_CERT_FILE"):
        ServerSecurity.from_environment()


def test_a_renewed_certificate_serves_the_next_connection(serve, tmp_path, monkeypatch):
    own = {"CERT": "tls.crt", "KEY": "tls.key"}
    init(tmp_path)
    use(monkeypatch, tmp_path / "coordinator", **own)
    address = serve("localhost:0", ServerSecurity.from_environment())
    for lost in ("ca/tls.key", "ca/tls.crt"):
        (tmp_path / lost).unlink()
    init(tmp_path)
    renewed = (tmp_path / "client/ca.crt").read_bytes()
    with Peer(address, ClientSecurity(None, renewed)) as peer:
        list_runs(peer)


def test_a_unix_socket_needs_no_tls(serve, secrets, tmp_path, monkeypatch):
    use(monkeypatch, secrets / "coordinator", TOKEN="../client/token", CERT="tls.crt", KEY="tls.key", CA="ca.crt")
    address = serve(f"unix:{tmp_path}/x.sock", ServerSecurity.from_environment())
    with Peer(address, ClientSecurity.from_environment()) as peer:
        list_runs(peer)


def health(monkeypatch, address):
    monkeypatch.setenv("CUTOFF_LISTEN", address)
    return subprocess.run([sys.executable, "-m", "cutoff.health"], capture_output=True, text=True, check=False)


def test_the_health_check_shows_the_services_own_certificate(serve, secrets, monkeypatch):
    use(monkeypatch, secrets / "merger", CLIENT_CA="ca.crt", CERT="tls.crt", KEY="tls.key", CA="ca.crt")
    address = serve("localhost:0", ServerSecurity.from_environment())
    checked = health(monkeypatch, address)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    assert health(monkeypatch, "").returncode == 1


def test_a_service_that_drains_is_alive_but_not_ready(monkeypatch, tmp_path):
    """The kubelet restarts what is not alive."""

    async def main():
        door = Door("the coordinator")
        await door.close("draining")
        async with started("localhost:0", register, ServerSecurity(None, None), 0.1, door) as address:
            monkeypatch.setenv("CUTOFF_LISTEN", address)
            command = [sys.executable, "-m", "cutoff.health"]
            checks = [await asyncio.create_subprocess_exec(*command, *more) for more in ([], ["--alive"])]
            return [await check.wait() for check in checks]

    use(monkeypatch, tmp_path)
    assert asyncio.run(main()) == [1, 0]


def test_the_health_check_of_nobody_fails(monkeypatch, tmp_path):
    use(monkeypatch, tmp_path)
    monkeypatch.setattr("cutoff.health._SECONDS", 0.2)
    monkeypatch.setenv("CUTOFF_LISTEN", "localhost:1")
    with pytest.raises(SystemExit) as ended:
        cutoff.health.main()
    assert "cutoff-health" in str(ended.value)


def test_a_client_sends_no_token_in_the_clear():
    with pytest.raises(errors.Refused, match="no CA"):
        Peer("host-two:50051", ClientSecurity("secret", None))


def test_a_taken_port_is_named(serve):
    address = serve("127.0.0.1:0", ServerSecurity(None, None))
    with pytest.raises(errors.Refused, match=address):
        serve(address, ServerSecurity(None, None))


def test_secrets_are_not_shown():
    assert "hush" not in repr(ServerSecurity(OneToken(hash_of("hush")), None)) + repr(ClientSecurity("hush", None))


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("unix:/x/y.sock", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("192.168.1.2:1", False),
        ("coordinator:50051", False),
        ("127.evil.example:1", False),
    ],
)
def test_which_addresses_are_local(address, local):
    assert is_local(address) is local


def test_faults_survive_the_wire_and_others_can_read_them(serve):
    address = serve("127.0.0.1:0", ServerSecurity(None, None))
    with Peer(address, ClientSecurity(None, None)) as peer, pytest.raises(errors.InvalidInput) as caught:
        peer.unary("RunService/CancelRun", run_pb2.CancelRunRequest(), run_pb2.CancelRunResponse)
    assert caught.value.faults[0] == errors.Fault("key", "is wrong", "mend it")
    with open_channel(address, ClientSecurity(None, None)) as channel, pytest.raises(grpc.RpcError) as raw:
        run_pb2_grpc.RunServiceStub(channel).CancelRun(run_pb2.CancelRunRequest(), timeout=10)
    assert raw.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    info = error_details_pb2.ErrorInfo()
    assert rpc_status.from_call(raw.value).details[0].Unpack(info)
    assert (info.reason, info.domain) == ("INVALID_INPUT", "cutoff")


def all_errors():
    found, left = [], [errors.CutoffError]
    while left:
        cls = left.pop()
        found.append(cls)
        left.extend(cls.__subclasses__())
    return [cls for cls in found if cls.__module__ == "cutoff.errors" and cls is not errors.InvalidInput]


@pytest.mark.parametrize("cls", all_errors())
def test_every_error_comes_back_as_itself(cls):
    back = error_of_failure(failure_of(cls("what", "how")))
    assert (type(back), back.message, back.remedy) == (cls, "what", "how")


def test_nobody_there_is_unavailable():
    with (
        Peer("127.0.0.1:1", ClientSecurity(None, None)) as peer,
        pytest.raises(errors.Unavailable, match=r"127.0.0.1:1"),
    ):
        list_runs(peer)


@pytest.mark.parametrize("content", ["", "\n", "  \n", "short"])
def test_a_token_file_without_a_token_is_refused(tmp_path, monkeypatch, content):
    path = tmp_path / "token"
    path.write_text(content)
    monkeypatch.setenv("CUTOFF_TOKEN_FILE", str(path))
    for security in (ServerSecurity, ClientSecurity):
        with pytest.raises(errors.Refused, match="no token"):
            security.from_environment()


def test_the_count_of_faults_survives_although_not_all_are_listed():
    class Many(errors.InvalidInput):
        def __init__(self):
            super().__init__([errors.Fault("a:1", "is wrong", "")])
            self.message = "400 faults in the input:\n  a:1: is wrong\n  and 399 more"

    assert error_of_failure(failure_of(Many())).message.startswith("400 faults")


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@settings(deadline=None)
@given(_TEXT, _TEXT, _TEXT, st.integers(1, 300), st.integers(0, 20))
@example("é", "ü", "ß", 9000, 1)
@example("é", "ü", "ß", 9000, 0)
@example("\n", "%", "\0", 500, 300)
def test_every_error_fits_into_the_headers_that_clients_take(message, remedy, what, times, faults):
    for error in (
        errors.NotFound(message * times, remedy * times),
        errors.TooMany(message * times, remedy * times, 5.0),
        errors.InvalidInput([errors.Fault(what * times, what * times, what * times)] * (faults + 1)),
    ):
        status = status_of(error)
        headers = [("grpc-message", quote(status.details)), ("grpc-status", "16"), ("content-type", "application/grpc")]
        headers += [(name, b64encode(value)) for name, value in status.trailing_metadata]
        assert sum(len(name) + len(value) + 32 for name, value in headers) < 8000  # RFC 7541, 4.1; 192 are others'


def test_errors_of_any_length_arrive(serve_with):
    class Long(Runs):
        async def CancelRun(self, request, context):
            if request.key.attempt:
                raise errors.NotFound("é" * 9000, "ü" * 9000)
            raise errors.InvalidInput([errors.Fault(f"field.{number}", "ist ungültig", "x") for number in range(300)])

        async def ListRuns(self, request, context):
            raise errors.InvalidInput([errors.Fault("x" * 9000, "é" * 9000, "z" * 9000)])

    def add(server):
        run_pb2_grpc.add_RunServiceServicer_to_server(Long(), server)
        return []

    address = serve_with("127.0.0.1:0", add, ServerSecurity(None, None))
    with Peer(address, ClientSecurity(None, None)) as peer:
        with pytest.raises(errors.NotFound, match="éééé"):
            peer.unary("RunService/CancelRun", run_pb2.CancelRunRequest(key={"attempt": 1}), run_pb2.CancelRunResponse)
        with pytest.raises(errors.InvalidInput) as caught:
            peer.unary("RunService/CancelRun", run_pb2.CancelRunRequest(), run_pb2.CancelRunResponse)
        assert caught.value.message.startswith("300 faults in the input:\n  field.0: ist ungültig; x\n  field.1:")
        with pytest.raises(errors.InvalidInput, match="xxxx"):
            list_runs(peer)
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as raw:
        run_pb2_grpc.RunServiceStub(channel).CancelRun(run_pb2.CancelRunRequest(key={"attempt": 1}), timeout=10)
    assert raw.value.code() is grpc.StatusCode.NOT_FOUND, "clients with the usual limits understand it too"
