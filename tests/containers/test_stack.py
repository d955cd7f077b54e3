"""The composed system: locked down, its doors closed to strangers, and a job that goes through it."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import subprocess

import grpc
import pytest
import yaml

from cutoff.evaluator.metrics import wilson
from cutoff.v1 import job_pb2, job_pb2_grpc
from tests.containers.stack import ROOT, SERVICES, UID, command, docker, make_secrets, run

pytestmark = pytest.mark.container


def containers(stack) -> dict[str, dict]:
    names = docker(
        "ps", "-a", "--filter", f"label=com.docker.compose.project={stack.project}", "--format", "{{.Names}}"
    )
    found = json.loads(docker("inspect", *names.split()))
    return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}


def test_nothing_runs_as_root_or_with_rights_it_does_not_need(running):
    found = containers(running)
    assert set(found) == {"init", "prometheus", *SERVICES}
    for name, one in found.items():
        host = one["HostConfig"]
        assert one["Config"]["User"].split(":")[0] not in ("", "0", "root"), name
        assert not host["Privileged"], name
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert not host["CapAdd"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert host["PidsLimit"] > 0, name
        assert host["Memory"] > 0, name
        assert host["NetworkMode"] != "host", name
        assert "/var/run/docker.sock" not in str(one["Mounts"]), name


def test_processes_are_what_they_are_said_to_be(running):
    for service in SERVICES:
        status = running.execute(service, "cat", "/proc/1/status").stdout
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == [str(UID)] * 4, service
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0, service
        assert fields["NoNewPrivs"] == "1", service
        assert running.execute(service, "touch", "/opt/x").returncode != 0, service


def test_only_the_coordinator_is_published_and_only_on_loopback(running):
    published = {
        (name, binding["HostIp"])
        for name, one in containers(running).items()
        for bindings in one["HostConfig"]["PortBindings"].values()
        for binding in bindings
    }
    assert published == {("coordinator", "127.0.0.1")}


def test_only_the_converter_sees_the_models_folder_and_nobody_anothers_secrets(running):
    found = containers(running)
    with_models = {name for name, one in found.items() if any(m["Destination"] == "/models" for m in one["Mounts"])}
    assert with_models == {"gguf-converter"}
    for name in SERVICES:
        secret = [m["Name"] for m in found[name]["Mounts"] if m["Destination"] == "/run/cutoff"]
        assert secret == [f"{running.project}_secrets-{name}"]
        assert not next(m["RW"] for m in found[name]["Mounts"] if m["Destination"] == "/run/cutoff")
    datasets = [m["RW"] for one in found.values() for m in one["Mounts"] if m["Destination"] == "/datasets"]
    assert datasets
    assert not any(datasets)


def test_no_secret_in_the_environment_or_the_logs(running):
    token = running.execute("coordinator", "cat", "/run/cutoff-client/token").stdout.strip()
    ray = running.execute("coordinator", "cat", "/run/cutoff/ray-token").stdout.strip()
    assert len(token) == len(ray) == 64
    for name, one in containers(running).items():
        shown = json.dumps(one["Config"]) + docker("logs", running.container(name))
        assert token not in shown, name
        assert ray not in shown, name


def test_secrets_have_the_modes_and_the_owner_that_services_need(running):
    for service in SERVICES:
        listing = running.execute(service, "stat", "-c", "%n %a %u", "/run/cutoff/tls.key", "/run/cutoff/ca.crt").stdout
        assert listing.split() == ["/run/cutoff/tls.key", "600", str(UID), "/run/cutoff/ca.crt", "644", str(UID)]


def test_starting_again_leaves_tokens_and_certificates_alone(running):
    before = running.execute("coordinator", "sha256sum", "/run/cutoff/token.sha256", "/run/cutoff/tls.crt").stdout
    said = running.compose("run", "--rm", "--no-deps", "-T", "init")
    assert "nothing to do" in said
    assert (
        running.execute("coordinator", "sha256sum", "/run/cutoff/token.sha256", "/run/cutoff/tls.crt").stdout == before
    )


def test_the_hosts_command_finds_token_and_certificate_by_itself(running):
    done = running.cutoff("list", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert isinstance(json.loads(done.stdout), list)


def test_a_wrong_token_is_not_let_in(running, tmp_path):
    (tmp_path / "token").write_text("x" * 64)
    (tmp_path / "ca.crt").write_text(running.execute("coordinator", "cat", "/run/cutoff/ca.crt").stdout)
    shown = {"CUTOFF_TOKEN_FILE": str(tmp_path / "token"), "CUTOFF_CA_FILE": str(tmp_path / "ca.crt")}
    done = running.cutoff("list", **shown)
    assert done.returncode == 3
    assert "token" in done.stderr


def test_a_client_that_trusts_another_authority_does_not_talk_to_this_coordinator(running, tmp_path):
    run([command(), "init", "--out", str(tmp_path)])
    done = running.cutoff(
        "list", CUTOFF_TOKEN_FILE=f"{tmp_path}/client/token", CUTOFF_CA_FILE=f"{tmp_path}/client/ca.crt"
    )
    assert done.returncode == 3
    assert "cannot be reached" in done.stderr


def test_plaintext_is_not_answered(running):
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        with pytest.raises(grpc.RpcError) as refused:
            job_pb2_grpc.JobServiceStub(channel).ListJobs(job_pb2.ListJobsRequest(), timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


CALL = """
import grpc, os, sys
from cutoff.v1 import run_pb2, run_pb2_grpc
read = lambda name: open("/run/cutoff/" + name, "rb").read()
certificate = (read("tls.key"), read("tls.crt")) if sys.argv[2] == "shown" else ()
credentials = grpc.ssl_channel_credentials(read("ca.crt"), *certificate)
with grpc.secure_channel(sys.argv[1], credentials) as channel:
    try:
        run_pb2_grpc.RunServiceStub(channel).ListRuns(run_pb2.ListRunsRequest(), timeout=10)
        print("ANSWERED")
    except grpc.RpcError as error:
        print(error.code().name)
"""


def test_a_stage_service_answers_the_coordinator_only(running):
    def called(by: str, certificate: str) -> str:
        return running.execute(by, "python", "-c", CALL, "merger:50053", certificate).stdout.strip()

    assert called("coordinator", "shown") == "ANSWERED"
    assert called("coordinator", "hidden") == "UNAVAILABLE", "no certificate, no connection"
    assert called("evaluator", "shown") == "UNAUTHENTICATED", "a certificate, but another service's"


def test_services_that_need_no_internet_have_no_way_out(running):
    script = "import socket; socket.create_connection(('1.1.1.1', 443), 3)"
    for service in ("merger", "gguf-converter", "evaluator"):
        done = running.execute(service, "python", "-c", script)
        assert "unreachable" in done.stderr.lower(), service


def test_ray_wants_its_token(running):
    status = running.execute(
        "coordinator", "sh", "-c", "echo wrong-token-wrong-token >/tmp/t; RAY_AUTH_TOKEN_PATH=/tmp/t ray status"
    )
    assert status.returncode != 0
    assert running.execute("coordinator", "ray", "status").returncode == 0


def test_a_job_ends_with_a_gguf_in_the_models_folder_owned_by_the_hosts_user(running, job):
    assert job["state"] == "STATE_SUCCEEDED"
    [gguf] = running.models.rglob("*.gguf")
    assert gguf.relative_to(running.models).parts[:2] == ("local", "temporal-demo")
    about = gguf.stat()
    assert (about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode)) == (UID, UID, 0o644)
    assert gguf.read_bytes()[:4] == b"GGUF"
    assert [path for path in running.models.rglob("*") if path.is_file()] == [gguf], (
        "LM Studio wants nothing else there"
    )


def test_its_scores_lie_within_the_intervals_of_the_process_modes(running, job, tmp_path):
    data = yaml.safe_load((running.world / "job.yaml").read_text())
    data["base_model"] = str(running.world / "base")
    own = tmp_path / "job.yaml"
    own.write_text(yaml.safe_dump(data))
    done = running.cutoff(
        "run", str(own), "--datasets", str(running.world / "datasets"), "--artifacts", str(tmp_path / "output"),
        "--models", str(tmp_path / "models"), "--json", CUTOFF_CACHE=os.environ.get("CUTOFF_CACHE", ""),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    there, here = by_target(job), by_target(json.loads(done.stdout))
    assert set(there) == set(here)
    compared = 0
    for key, scores in there.items():
        for name, (count, total) in scores.items():
            low, high = wilson(*here[key][name])
            assert low <= count / total <= high, f"{key} {name}: {count}/{total}, process mode {here[key][name]}"
            compared += 1
    assert compared >= 30


def by_target(job: dict) -> dict[tuple[str, str], dict[str, tuple[int, int]]]:
    """Counts and totals of every score, by target and question set."""
    return {
        (one["target"], one["question_set"]): {
            name: (int(score.get("count", 0)), int(score["total"]))
            for name, score in one.items()
            if isinstance(score, dict) and "total" in score
        }
        for one in job["result"]["evaluations"]
    }


def test_jobs_outlive_the_containers(running, job):
    running.compose("up", "-d", "--wait", "--no-build", "--force-recreate", "--no-deps", "coordinator")
    done = running.cutoff("get", job["name"], "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == job


def test_a_models_folder_that_cannot_be_written_is_refused_before_any_work(running, job):
    folder = running.models / "local/temporal-demo"
    try:
        folder.chmod(0o555)
        done = running.cutoff("submit", str(running.world / "job.yaml"), "--watch", "--json")
    finally:
        folder.chmod(0o755)
    assert done.returncode == 1
    refused = json.loads(done.stdout)
    assert "attempts" not in refused, "no stage had begun"
    assert "/models/local/temporal-demo cannot be written" in refused["failure"]["message"]
    assert "chown" in refused["failure"]["remedy"]


def test_secrets_may_be_a_folder_of_the_host(stack, tmp_path):
    make_secrets(tmp_path / "secrets")
    settings = {"CUTOFF_SECRETS": f"{tmp_path}/secrets/"}
    own = dataclasses.replace(stack, project="cutoff-test-folder", settings=settings)
    assert "nothing to do" in own.compose("run", "--rm", "--no-deps", "-T", "init")


def test_compose_and_bake_build_the_same(stack):
    printed = subprocess.run(
        ["docker", "buildx", "bake", "-f", "docker/docker-bake.hcl", "--print", "default", "cuda", "rocm"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    baked = {
        target["tags"][0]: target for target in json.loads(printed.stdout)["target"].values() if target.get("tags")
    }
    compared = 0
    for accelerator in ("", "cuda", "rocm"):
        files = ("compose.yaml", f"deploy/compose.{accelerator}.yaml") if accelerator else ("compose.yaml",)
        for service in yaml.safe_load(stack.compose("config", files=files))["services"].values():
            if "build" not in service:
                continue
            same = baked[service["image"]]
            assert service["build"]["target"] == same["target"]
            assert service["build"]["args"] == same["args"], service["image"]
            compared += 1
    assert compared == 3 * 6
