"""Every hostile string in every text of every request: nothing outside the roots is read or written, nobody is asked.

The servicers and the work behind them are the real ones; only the runs' processes are not started, so that what the
work opens can be seen: an audit hook of Python's sees every file that is opened, made, renamed or removed.
"""

from __future__ import annotations

import asyncio
import http.server
import importlib
import os
import sys
import threading
from collections import Counter

import pytest

from cutoff.artifacts import BASE_MODEL_PATHS, Roots, attempt_folder
from cutoff.coordinator import admission
from cutoff.coordinator.attempts import Addresses, Services
from cutoff.coordinator.jobs import Jobs
from cutoff.coordinator.journal import Journal
from cutoff.coordinator.service import JobServicer
from cutoff.coordinator.store import Store
from cutoff.errors import CutoffError, as_cutoff_error
from cutoff.evaluator.service import EvaluatorServicer
from cutoff.gguf_converter.service import GgufConverterServicer
from cutoff.merger.service import MergerServicer
from cutoff.rpc import failure_of
from cutoff.spec import ALLOWED_SERVERS, JobSpec, spec_to_proto
from cutoff.stage.context import RunContext
from cutoff.stage.devices import holding
from cutoff.stage.report import Reporter
from cutoff.stage.runs import Runs
from cutoff.stage.server import RunServicer
from cutoff.trainer.service import TrainerServicer
from cutoff.v1 import (
    evaluator_pb2,
    evaluator_pb2_grpc,
    gguf_converter_pb2,
    gguf_converter_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    merger_pb2,
    merger_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
    trainer_pb2,
    trainer_pb2_grpc,
    types_pb2,
)
from tests.fixtures.hostile_strings import HOSTILE, places, put, texts_in_struct

_FILES = (evaluator_pb2, gguf_converter_pb2, job_pb2, merger_pb2, run_pb2, trainer_pb2)
METHODS = {
    f"{service.name}/{method.name}": method
    for file in _FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
MOST = {False: 1000, True: 300}
"""Calls of one method, over gRPC or not: where there are more pairs of place and string, they are taken in turn."""

_OPENING = {"open", "os.listdir", "os.scandir", "os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.link",
            "os.symlink", "os.chmod", "os.truncate", "shutil.rmtree", "subprocess.Popen"}  # fmt: skip


class Watcher:
    """Notes what is opened where nothing may be."""

    def __init__(self) -> None:
        self.forbidden: tuple[str, ...] = ()
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event, arguments):
        if not self.forbidden or event not in _OPENING:
            return
        for argument in arguments[:2]:
            if isinstance(argument, bytes | str):
                path = os.path.realpath(os.fsdecode(argument))
                if path.startswith(self.forbidden):
                    self.seen.append(f"{event} {path}")


WATCHER = Watcher()


class InlineRuns(Runs):
    """Does a run's work on a thread of this process instead of in one of its own."""

    bugs: Counter

    async def run(self, request, target):
        key = request.run.key
        folder = attempt_folder(self._roots.artifacts, key.job, key.stage, key.attempt)
        yield await asyncio.to_thread(self._do, request, target, folder)

    def _do(self, request, target, folder):
        module, _, name = target.partition(":")
        heard = []
        context = RunContext(request.run.key, folder, self._roots, tuple(request.run.devices), Reporter(heard.append))
        try:
            with holding(context.devices, self._locks, patience=0.1):
                folder.mkdir(parents=True, exist_ok=True)
                getattr(importlib.import_module(module), name)(request, context)
        except Exception as error:  # noqa: BLE001 - each is looked at
            known = as_cutoff_error(error, str(folder))
            if known is None:
                self.bugs[f"{target}: {type(error).__name__}: {str(error)[:150]}"] += 1
                known = CutoffError(str(error))
            return types_pb2.Event(failed=failure_of(known))
        return types_pb2.Event(finished=types_pb2.Finished())


@pytest.fixture
def asked():
    """A server that nobody may ask; yields its port and what it was asked."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_error(404)

        do_POST = do_GET  # noqa: N815 - the library's name

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, requests
    server.shutdown()


@pytest.fixture
def roots(tmp_path, monkeypatch):
    below = tmp_path / "below"
    made = Roots(*(below / name for name in ("datasets", "artifacts", "models", "cache")))
    outside = below / "outside"
    (outside / "model").mkdir(parents=True)
    (outside / "model/config.json").write_text('{"canary": 1}')
    (outside / "canary.txt").write_text("canary\n")
    (below / "canary.txt").write_text("canary\n")
    for root in (made.datasets, made.artifacts, made.models, made.cache, below / "base-models"):
        (root / "jobs").mkdir(parents=True)
        (root / "link").symlink_to(outside)
        (root / "jobs/link").symlink_to(outside)
        (root / "loop").symlink_to("loop")
        os.mkfifo(root / "pipe")
    line = '{"instruction": "a?", "output": "b", "metadata": {"dataset_type": "retain"}}\n'
    other = line.replace("retain", "unlearn").replace("a?", "c?")
    (made.datasets / "dev.jsonl").write_text(line * 20 + other * 20)
    monkeypatch.setenv(BASE_MODEL_PATHS, str(below / "base-models"))
    monkeypatch.setenv(ALLOWED_SERVERS, "localhost:1234")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(made.cache / "hf"))
    monkeypatch.setenv("HOME", str(outside))
    monkeypatch.setenv("CUTOFF_CACHE", str(made.cache))
    monkeypatch.delenv("CUTOFF_LLAMA_CPP_PATHS", raising=False)
    monkeypatch.delenv("LMSTUDIO_URL", raising=False)
    monkeypatch.chdir(below)
    return made


@pytest.fixture
def watched(roots, monkeypatch):
    outside = roots.cache.parent / "outside"
    monkeypatch.setattr(WATCHER, "seen", [])
    before = snapshot(roots.cache.parent)
    elsewhere = ("/etc/passwd", "/dev/zero", "/root/.ssh", "/root/.bashrc", "/proc/self", "/dev/shm/x")
    forbidden = (str(outside), str(roots.cache.parent / "canary.txt"), *elsewhere)
    monkeypatch.setattr(WATCHER, "forbidden", forbidden)
    yield WATCHER
    WATCHER.forbidden = ()
    assert snapshot(roots.cache.parent) == before, "something was written outside the roots"


def snapshot(folder):
    """Names and contents of what is beside the roots."""
    skipped = {"datasets", "artifacts", "models", "cache", "base-models"}
    found = [path for path in sorted(folder.rglob("*")) if path.relative_to(folder).parts[0] not in skipped]
    return {str(path): path.read_bytes() if path.is_file() else None for path in found}


@pytest.fixture
def port(reach, loop, roots, tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'jobs.db'}")
    journal = Journal(store)

    async def waits(call):
        await asyncio.sleep(3600)
        yield

    async def nothing(*_):
        return []

    jobs = Jobs(journal, Services(Addresses("a", "b", "c", "d"), waits, *[nothing] * 5, roots.artifacts))
    runs = InlineRuns("test", roots, tmp_path / "below" / "artifacts" / "locks", ())
    InlineRuns.bugs = Counter()
    servicers = {
        "JobService": JobServicer(journal, jobs, lambda spec: admission.check(spec, roots), roots.artifacts),
        "RunService": RunServicer(runs, roots),
        "TrainerService": TrainerServicer(runs),
        "MergerService": MergerServicer(runs),
        "GgufConverterService": GgufConverterServicer(runs, roots),
        "EvaluatorService": EvaluatorServicer(runs),
    }
    modules = (job_pb2_grpc, run_pb2_grpc, trainer_pb2_grpc, merger_pb2_grpc, gguf_converter_pb2_grpc,
               evaluator_pb2_grpc)  # fmt: skip
    adders = {
        name: getattr(module, f"add_{name}Servicer_to_server") for module, name in zip(modules, servicers, strict=False)
    }
    yield reach(servicers, adders)
    asyncio.run_coroutine_threadsafe(jobs.suspend(), loop).result(30)
    store.close()


def job():
    """A job that can be taken."""
    data = {
        "name": "x", "base_model": "owner/name", "dataset": {"dev": "dev.jsonl"}, "resources": {"gpus": 0},
        "evaluate": {"targets": ["merged", "gguf", "lmstudio"], "lmstudio_model": "m", "judge_model": "j",
                     "judge_url": "http://localhost:1234/v1"},
    }  # fmt: skip
    return spec_to_proto(JobSpec.model_validate(data))


def record():
    """A job as its record is after its stages."""
    made = job_pb2.Job(name="jobs/x", spec=job(), state=job_pb2.Job.STATE_SUCCEEDED)
    succeeded = job_pb2.Attempt.STATE_SUCCEEDED
    for stage, kind in (("evaluate-merged", "evaluation"), ("convert", "gguf"), ("prepare", "x"), ("train", "adapter")):
        attempt = made.attempts.add(key={"job": "x", "stage": stage, "attempt": 1}, state=succeeded)
        attempt.artifacts.add(kind=kind, path="jobs/x/f")
        attempt.artifacts.add(kind="examples", path="jobs/x/e")
        attempt.result.update({
            "path": "jobs/x/f", "files": [{"quant_type": "q4_k_m", "path": "jobs/x/f.gguf", "sha256": "1",
                                           "size_bytes": 1}], "model_path": "m", "revision": "r", "license": "l",
            "data": [{"field": "dev", "path": "dev.jsonl", "name": "dev.jsonl", "sha256": "1", "examples": 1}],
        })  # fmt: skip
    return made


def base(method, number):
    """A request of a method in which everything is in order but that its files are not there."""
    request = getattr(_module(method), method.input_type.name)()
    fields = method.input_type.fields_by_name
    key = types_pb2.RunKey(job=f"j{number}", stage="x", attempt=1)
    if "run" in fields:
        request.run.key.CopyFrom(key)
    if "key" in fields:
        request.key.CopyFrom(key)
    if "job" in fields:
        request.job.CopyFrom(record())
    if "spec" in fields and fields["spec"].message_type.name == "JobSpec":
        request.spec.CopyFrom(job())
    if "request_id" in fields:
        request.request_id = f"r{number}"
    for name, value in {"merged": "jobs/m", "model_name": "m", "gguf": "jobs/g", "adapter": "jobs/a"}.items():
        if name in fields and fields[name].message_type is None and fields[name].containing_oneof is None:
            setattr(request, name, value)
    if method.name in ("Merge", "Train"):
        request.model_path = "base-models/m"
    if method.name == "Evaluate":
        request.target, request.model_path = "merged", "jobs/m"
    return request


def _module(method):
    return next(file for file in _FILES if file.DESCRIPTOR.name == method.containing_service.file.name)


def variants(method, outside, port, most):
    """Requests with one hostile string each; where there would be too many, each place gets every n-th string."""
    number = 0
    found = list(places(method.input_type))
    every = 1 + len(found) * len(HOSTILE) // most
    for index, place in enumerate(found):
        for text in HOSTILE[index % every :: every]:
            number += 1
            request = base(method, number)
            put(request, place, text.format(outside=outside, port=port) if "{" in text else text)
            yield request
    if "job" in method.input_type.fields_by_name:
        results = [attempt.result for attempt in record().attempts]
        spots = [(a, s) for a, result in enumerate(results) for s, _ in enumerate(texts_in_struct(result))]
        for index, (attempt, spot) in enumerate(spots):
            for text in HOSTILE[index % every :: every]:
                number += 1
                request = base(method, number)
                value, _ = list(texts_in_struct(request.job.attempts[attempt].result))[spot]
                value.string_value = text.format(outside=outside, port=port) if "{" in text else text
                yield request


def call(port, name, method, request):
    """Makes one call; returns how it ended."""
    response = getattr(_module(method), method.output_type.name)
    try:
        if not method.server_streaming:
            port.unary(name, request, response)
            return "OK"
        stream = port.stream(name, request, response)
        last = next(iter(stream), None)
        stream.close()
        event = getattr(last, "event", None)
        return event.failed.reason if isinstance(event, types_pb2.Event) and event.HasField("failed") else "OK"
    except CutoffError as error:
        return error.reason


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", METHODS)
def test_no_string_escapes(name, port, roots, watched, asked, request):
    over_grpc = "gRPC" in request.node.name
    canary_port, requests = asked
    outcomes, method = Counter(), METHODS[name]
    for attempt in variants(method, roots.cache.parent / "outside", canary_port, MOST[over_grpc]):
        outcomes[call(port, name, method, attempt)] += 1
    total = sum(outcomes.values())
    print(f"| {name} | {'over gRPC' if over_grpc else 'in process'} | {total} | {len(watched.seen)} | {dict(outcomes)}")  # noqa: T201
    assert watched.seen == []
    assert requests == []
    assert dict(InlineRuns.bugs) == {}, "a hostile string is answered with what is wrong with it"
    assert "INTERNAL" not in outcomes


def test_there_are_enough_of_them_and_they_are_all_different():
    assert len(set(HOSTILE)) == len(HOSTILE) >= 60
