"""What a server does with its callers: the same words for every stranger, limits, deadlines, revocation, the audit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from types import SimpleNamespace

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from cutoff import errors
from cutoff.rpc import ClientSecurity, Peer, ServerSecurity
from cutoff.rpc import interceptor as interception
from cutoff.rpc.audit import Audit, about, changes
from cutoff.rpc.limits import Buckets, Limits, Streams
from cutoff.rpc.tokens import TokenFile
from cutoff.v1 import job_pb2, job_pb2_grpc, run_pb2


class JobService(job_pb2_grpc.JobServiceServicer):
    """Answers at once, but for a job named "slow"."""

    async def GetJob(self, request, context):
        if request.name == "slow":
            await asyncio.sleep(30)
        return job_pb2.GetJobResponse(job=job_pb2.Job(name=request.name))

    async def WatchJob(self, request, context):
        yield job_pb2.WatchJobResponse()
        await asyncio.sleep(60)

    async def CancelJob(self, request, context):
        if request.name == "none":
            raise errors.NotFound("there is no such job")
        return job_pb2.CancelJobResponse(job=job_pb2.Job(name=request.name))


def register(server):
    job_pb2_grpc.add_JobServiceServicer_to_server(JobService(), server)
    return ["cutoff.v1.JobService"]


@pytest.fixture
def tokens(tmp_path):
    return TokenFile(tmp_path / "state" / "tokens.json")


@pytest.fixture
def audit(tmp_path):
    audit = Audit(tmp_path / "state" / "audit.jsonl")
    yield audit
    audit.close()


@pytest.fixture
def serve(serve_with, tokens, audit):
    return lambda: serve_with("127.0.0.1:0", register, ServerSecurity(tokens, None), audit)


def get(peer, name="jobs/x"):
    return peer.unary("JobService/GetJob", job_pb2.GetJobRequest(name=name), job_pb2.GetJobResponse)


def cancel(peer, name="jobs/x"):
    return peer.unary("JobService/CancelJob", job_pb2.CancelJobRequest(name=name), job_pb2.CancelJobResponse)


def watch(peer):
    return peer.stream("JobService/WatchJob", job_pb2.WatchJobRequest(name="x"), job_pb2.WatchJobResponse)


def peer(address, token):
    return Peer(address, ClientSecurity(token, None))


def test_missing_wrong_expired_and_revoked_are_told_alike_and_how_to_mend_it(serve, tokens, monkeypatch):
    tokens.create("good")
    revoked = tokens.create("revoked")
    expired = tokens.create("expired", days=1e-9)
    tokens.revoke("revoked")
    address, told = serve(), set()
    for shown in (None, "wrong", revoked, expired, "", "x" * 7000):
        with peer(address, shown) as one, pytest.raises(errors.Unauthenticated) as caught:
            get(one)
        told.add(str(caught.value))
    (message,) = told
    assert "cutoff token create" in message


def test_a_revoked_tokens_streams_end(serve, tokens, monkeypatch):
    monkeypatch.setattr(interception, "_LOOK_AGAIN_SECONDS", 0.1)
    alice, bob = tokens.create("alice"), tokens.create("bob")
    address = serve()
    with peer(address, alice) as hers, peer(address, bob) as his:
        ending, staying = watch(hers), watch(his)
        next(ending)
        next(staying)
        tokens.revoke("alice")
        began = time.monotonic()
        with pytest.raises(errors.Unauthenticated, match="no valid token"):
            next(ending)
        assert time.monotonic() - began < 5
        assert get(his).job.name == "jobs/x"
        ended = threading.Event()

        def follow():
            with contextlib.suppress(errors.CutoffError):
                list(staying)
            ended.set()

        threading.Thread(target=follow, daemon=True).start()
        assert not ended.wait(0.5), "bob's goes on"


def test_a_token_that_calls_too_often_is_told_when_to_come_back_and_others_are_not_disturbed(
    serve, tokens, monkeypatch
):
    monkeypatch.setenv("CUTOFF_CALLS_PER_SECOND", "2")
    alice, bob = tokens.create("alice"), tokens.create("bob")
    address = serve()
    with peer(address, alice) as hers, peer(address, bob) as his:
        for _ in range(4):
            get(hers)
        with pytest.raises(errors.TooMany, match="try again in"):
            for _ in range(4):
                get(hers)
        get(his)
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as raw:
        metadata = (("authorization", f"Bearer {alice}"),)
        for _ in range(4):
            job_pb2_grpc.JobServiceStub(channel).GetJob(job_pb2.GetJobRequest(), timeout=10, metadata=metadata)
    assert raw.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in rpc_status.from_call(raw.value).details)
    assert 0 < retry.retry_delay.ToMilliseconds() <= 1000


def test_strangers_are_limited_by_address_and_keep_nobody_out(serve, tokens, monkeypatch):
    monkeypatch.setenv("CUTOFF_STRANGERS_PER_SECOND", "1")
    alice = tokens.create("alice")
    address, said = serve(), []
    with peer(address, "wrong") as one, peer(address, alice) as hers:
        for _ in range(8):
            with pytest.raises((errors.Unauthenticated, errors.TooMany)) as caught:
                get(one)
            said.append(type(caught.value))
        assert said[0] is errors.Unauthenticated
        assert said[-1] is errors.TooMany
        get(hers)
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as refused:
        for _ in range(8):
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_open_streams_are_limited_per_token(serve, tokens, monkeypatch):
    monkeypatch.setenv("CUTOFF_STREAMS", "2")
    alice, bob = tokens.create("alice"), tokens.create("bob")
    address = serve()
    with peer(address, alice) as hers, peer(address, bob) as his:
        streams = [watch(hers) for _ in range(3)]
        next(streams[0])
        next(streams[1])
        with pytest.raises(errors.TooMany, match="2 streams"):
            next(streams[2])
        next(watch(his))


def test_a_call_without_a_deadline_gets_the_servers(serve, tokens, monkeypatch):
    monkeypatch.setenv("CUTOFF_UNARY_SECONDS", "0.3")
    metadata = (("authorization", f"Bearer {tokens.create('alice')}"),)
    with grpc.insecure_channel(serve()) as channel, pytest.raises(grpc.RpcError) as late:
        job_pb2_grpc.JobServiceStub(channel).GetJob(job_pb2.GetJobRequest(name="slow"), metadata=metadata)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "set a deadline" in late.value.details()


def test_clients_set_a_deadline_on_every_call(serve_with, tmp_path):
    seen = {}

    class Asked(JobService):
        async def GetJob(self, request, context):
            seen["unary"] = context.time_remaining()
            return job_pb2.GetJobResponse()

        async def WatchJob(self, request, context):
            seen["stream"] = context.time_remaining()
            yield job_pb2.WatchJobResponse()

    def add(server):
        job_pb2_grpc.add_JobServiceServicer_to_server(Asked(), server)
        return []

    address = serve_with(f"unix:{tmp_path}/s.sock", add, ServerSecurity(None, None))
    with peer(address, None) as one:
        get(one)
        list(watch(one))
    assert 0 < seen["unary"] <= 31
    assert seen["stream"] is not None


def test_a_message_that_is_too_large_is_refused(serve, tokens):
    with peer(serve(), tokens.create("alice")) as one, pytest.raises(errors.CutoffError, match="RESOURCE_EXHAUSTED"):
        get(one, "x" * (5 << 20))


def test_reflection_is_off_and_its_package_named_when_it_is_asked_for(serve, tokens, monkeypatch):
    with grpc.insecure_channel(serve()) as channel:
        method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        call = channel.stream_stream(method)(iter([b""]), timeout=10)
        with pytest.raises(grpc.RpcError) as unknown:
            list(call)
    assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED
    monkeypatch.setenv("CUTOFF_REFLECTION", "1")
    monkeypatch.setitem(__import__("sys").modules, "grpc_reflection", None)
    with pytest.raises(errors.Refused, match="grpcio-reflection"):
        serve()


def lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "state" / "audit.jsonl").read_text().splitlines()]


def test_what_changes_something_is_audited_refused_or_not(serve, tokens, tmp_path):
    alice = tokens.create("alice")
    address = serve()
    with peer(address, alice) as hers:
        get(hers)
        cancel(hers, "jobs/a")
        with pytest.raises(errors.NotFound):
            cancel(hers, "none")
    with peer(address, "wrong") as one, pytest.raises(errors.Unauthenticated):
        cancel(one, "jobs/b\n{}")
    found = lines(tmp_path)
    assert [(line["who"], line["what"], line["about"], line["outcome"]) for line in found] == [
        ("token:alice", "JobService/CancelJob", "jobs/a", "OK"),
        ("token:alice", "JobService/CancelJob", "none", "NOT_FOUND"),
        ("unknown", "JobService/CancelJob", "jobs/b\n{}", "UNAUTHENTICATED"),
    ]
    assert {line["from"] for line in found} == {"127.0.0.1"}
    content = (tmp_path / "state" / "audit.jsonl").read_text()
    assert alice not in content
    assert (tmp_path / "state" / "audit.jsonl").stat().st_mode & 0o777 == 0o600


def test_the_audit_is_rotated_and_only_appended_to(tmp_path, monkeypatch):
    monkeypatch.setattr("cutoff.rpc.audit._BYTES", 500)
    path = tmp_path / "audit.jsonl"
    path.write_text('{"earlier": 1}\n')
    audit = Audit(path)
    for number in range(10):
        audit.note("token:a", "JobService/CancelJob", f"jobs/{number}", "unix", "OK")
    audit.close()
    files = sorted(tmp_path.iterdir(), key=lambda file: file.name, reverse=True)
    assert len(files) > 2
    kept = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert kept[0] == {"earlier": 1}
    assert [line["about"] for line in kept[1:]] == [f"jobs/{number}" for number in range(10)]


def test_a_full_disk_stops_no_call(serve, tokens, audit, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audit._file, "_open", full)
    with peer(serve(), tokens.create("alice")) as hers:
        cancel(hers)


@pytest.mark.parametrize(
    ("method", "does"),
    [("SubmitJob", True), ("CancelJob", True), ("PauseJob", True), ("GetJob", False), ("ListRuns", False),
     ("WatchJob", False), ("CheckInstall", False), ("Train", True)],
)  # fmt: skip
def test_which_methods_change_something(method, does):
    assert changes(f"/cutoff.v1.X/{method}") is does


def test_what_a_call_is_about():
    response = job_pb2.SubmitJobResponse(job=job_pb2.Job(name="jobs/new"))
    assert about(job_pb2.SubmitJobRequest(spec={"name": "mine"}), response) == "jobs/new"
    assert about(job_pb2.SubmitJobRequest(spec={"name": "mine"})) == "mine"
    assert about(run_pb2.CancelRunRequest(key={"job": "j", "stage": "train", "attempt": 2})) == "j/train/2"


def test_a_bucket_fills_again_and_callers_are_forgotten():
    now = [0.0]
    buckets = Buckets(rate=2, burst=3, clock=lambda: now[0])
    for _ in range(3):
        buckets.take("a")
    with pytest.raises(errors.TooMany) as caught:
        buckets.take("a")
    assert caught.value.seconds == pytest.approx(0.5)
    now[0] += 0.5
    buckets.take("a")
    for number in range(20_000):
        buckets.take(f"b{number}")
    assert len(buckets._left) == 10_000


def test_streams_that_ended_count_no_more():
    streams = Streams(1)
    for _ in range(3):
        with streams.one_more("a"):
            pass
    assert not streams._open


@pytest.mark.parametrize("value", ["x", "0", "-1", "inf", "nan"])
def test_a_limit_that_is_none_is_named(monkeypatch, value):
    monkeypatch.setenv("CUTOFF_CALLS_PER_SECOND", value)
    with pytest.raises(errors.Refused, match="CUTOFF_CALLS_PER_SECOND"):
        Limits.from_environment()


def test_a_call_whose_client_went_away_is_not_asked_who_that_was():
    """gRPC ends the process when such a call is asked for its peer (a null pointer in cygrpc, 1.85)."""
    context = SimpleNamespace(peer=lambda: "ipv4:10.0.0.7:4242", auth_context=dict)
    noted = []
    audit = SimpleNamespace(note=lambda *line: noted.append(line))
    door = interception._Door(ServerSecurity(None, None), Limits.from_environment(), audit)

    async def main():
        async with interception._Around("/cutoff.v1.TrainerService/Train", "", door, context, run_pb2.Run()):
            context.peer = None  # the client is gone
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert [line[3:] for line in noted] == [("10.0.0.7", "CANCELLED")]
