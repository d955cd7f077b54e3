"""Each check of `cutoff doctor`, in order and out of order."""

from __future__ import annotations

import datetime
import json
import os
import socket
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from cutoff.client.certificates import issue, make_authority
from cutoff.client.cli import app
from cutoff.client.doctor import disks, doors, gpus, llama, lmstudio, packages, system
from cutoff.client.doctor.findings import Level
from cutoff.errors import Unauthenticated, Unavailable
from cutoff.v1 import operator_pb2

GIB = 1 << 30
OK, WARN, FAIL = Level.OK, Level.WARN, Level.FAIL


def device(root: Path, name: str) -> Path:
    path = root / "dev" / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return root


def test_python():
    assert packages.python((3, 11)).level is OK
    assert packages.python((3, 13)).level is FAIL
    assert packages.python((3, 10)).level is FAIL


def test_packages_that_differ_are_named_and_those_that_lack_are_not_missed(tmp_path):
    file = tmp_path / "constraints.txt"
    file.write_text("# tested\nray==2.60.0\nrich==15.0.0\n")
    assert packages.packages(file, {"ray": "2.60.0", "cutoff": "1"}.get).level is OK
    found = packages.packages(file, {"ray": "2.61.0", "rich": "15.0.0", "cutoff": "1"}.get)
    assert found.level is WARN
    assert "ray 2.61.0 (tested: 2.60.0)" in found.what
    assert "rich" not in found.what


@pytest.mark.parametrize(
    ("present", "build", "level"),
    [
        ("", None, OK),
        ("", ("2.13.0+cpu", "", ""), OK),
        ("nvidia0", ("2.13.0", "13.0", ""), OK),
        ("kfd", ("2.9.1", "", "6.4"), OK),
        ("nvidia0", ("2.13.0+cpu", "", ""), FAIL),
        ("kfd", ("2.13.0", "13.0", ""), FAIL),
        ("", ("2.13.0", "13.0", ""), WARN),
        ("", ("2.9.1", "", "6.4"), WARN),
    ],
)
def test_pytorch_is_built_for_the_gpu_that_is_here(tmp_path, present, build, level):
    if present:
        device(tmp_path, present)
    assert packages.torch(build, tmp_path).level is level


def test_pytorch_build_is_read_without_importing_it():
    version, cuda, _ = packages.torch_build()
    assert version == packages.installed_version("torch")
    assert not cuda or "+cpu" not in version


class Nvml(SimpleNamespace):
    """What pynvml answers on a machine with one GPU."""

    class NVMLError(Exception):
        pass

    def __init__(self, free: int, error: str = "") -> None:
        memory = SimpleNamespace(free=free * GIB, total=24 * GIB)
        super().__init__(
            nvmlShutdown=lambda: None,
            nvmlSystemGetDriverVersion=lambda: "580.1",
            nvmlDeviceGetCount=lambda: 1,
            nvmlDeviceGetHandleByIndex=lambda index: index,
            nvmlDeviceGetMemoryInfo=lambda handle: memory,
            nvmlDeviceGetName=lambda handle: b"NVIDIA L4",
            nvmlDeviceGetComputeRunningProcesses=lambda handle: [SimpleNamespace(pid=4711)],
        )
        self._error = error

    def nvmlInit(self):
        if self._error:
            raise self.NVMLError(self._error)


def test_nvidia(tmp_path):
    assert gpus.nvidia(Nvml(0, "no driver"), tmp_path) == []
    [free] = gpus.nvidia(Nvml(23), tmp_path)
    assert (free.level, free.what) == (OK, "NVIDIA L4, driver 580.1: 23.0 of 24.0 GiB free")
    [held] = gpus.nvidia(Nvml(3), tmp_path)
    assert held.level is WARN
    assert "process 4711" in held.what
    [mute] = gpus.nvidia(Nvml(0, "Driver Not Loaded"), device(tmp_path, "nvidia0"))
    assert mute.level is FAIL
    assert "Driver Not Loaded" in mute.what


def test_amd(tmp_path, monkeypatch):
    assert gpus.amd(tmp_path) == []
    [none] = gpus.amd(device(tmp_path, "kfd"))
    assert none.level is WARN
    card = tmp_path / "sys/class/drm/card1/device"
    card.mkdir(parents=True)
    (card / "mem_info_vram_total").write_text(str(64 * GIB))
    (card / "mem_info_vram_used").write_text(str(2 * GIB))
    assert [found.level for found in gpus.amd(tmp_path)] == [OK]
    (card / "mem_info_vram_used").write_text(str(60 * GIB))
    assert [found.level for found in gpus.amd(tmp_path)] == [WARN]
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    [shut] = gpus.amd(tmp_path)
    assert "usermod" in shut.fix


def test_datasets(tmp_path):
    assert disks.datasets(tmp_path).level is OK
    assert disks.datasets(tmp_path / "none").level is WARN


def test_a_root_that_can_be_made_is_in_order_and_a_file_is_none(tmp_path):
    assert disks.written("artifacts", "X", tmp_path / "a/b", little=0).level is OK
    assert disks.written("artifacts", "X", tmp_path, little=1 << 60).level is WARN
    (tmp_path / "file").touch()
    assert disks.written("artifacts", "X", tmp_path / "file/b").level is FAIL


def test_a_full_or_closed_disk_fails(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=GIB // 2, total=GIB))
        assert disks.written("artifacts", "X", tmp_path).level is FAIL
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    shut = disks.written("artifacts", "CUTOFF_ARTIFACTS", tmp_path / "new")
    assert shut.level is FAIL
    assert "CUTOFF_ARTIFACTS" in shut.fix
    assert disks.datasets(tmp_path).level is FAIL


def test_models_folder(tmp_path, monkeypatch):
    assert lmstudio.models_folder(tmp_path).level is OK
    assert lmstudio.models_folder(tmp_path / "none").level is FAIL
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "sudo install -d" in lmstudio.models_folder(tmp_path).fix


def test_models_on_another_file_system_are_copied(tmp_path):
    assert [found.level for found in lmstudio.same_disk(tmp_path, tmp_path / "output")] == [OK]
    assert [found.level for found in lmstudio.same_disk(Path("/dev/shm"), tmp_path)] == [WARN]
    assert lmstudio.same_disk(tmp_path / "none", tmp_path) == []


def test_ggufs_that_lm_studio_does_not_see(tmp_path):
    good = tmp_path / "local/m/m-Q4_K_M.gguf"
    good.parent.mkdir(parents=True)
    good.touch()
    assert [found.level for found in lmstudio.layout(tmp_path)] == [OK]
    (tmp_path / "loose.gguf").touch()
    (tmp_path / "local/m/link.gguf").symlink_to(good)
    deep, links = lmstudio.layout(tmp_path)
    assert "loose.gguf" in deep.what
    assert "link.gguf" in links.what


def test_llama_cpp(tmp_path, monkeypatch):
    monkeypatch.delenv("CUTOFF_LLAMA_CPP", raising=False)
    assert [found.level for found in llama.build(tmp_path, stages_here=True)] == [FAIL]
    assert [found.level for found in llama.build(tmp_path, stages_here=False)] == [OK]
    monkeypatch.setenv("CUTOFF_LLAMA_CPP", str(tmp_path))
    (tmp_path / "convert_hf_to_gguf.py").touch()
    for name in ("llama-quantize", "llama-server", "llama-imatrix"):
        (tmp_path / name).write_text("#!/bin/sh\necho usage: me\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "llama-server").write_text(
        "#!/bin/sh\necho libcuda.so.1: cannot open shared object file >&2; exit 127\n"
    )
    other, quantize, server, imatrix = llama.build(tmp_path, stages_here=True)
    assert other.level is WARN  # not the pinned one
    assert (quantize.level, server.level, imatrix.level) == (OK, FAIL, OK)
    assert "libcuda.so.1" in server.what


def test_a_program_for_another_processor(tmp_path):
    program = tmp_path / "llama-server"
    program.write_bytes(b"\x7fELF nonsense")
    program.chmod(0o755)
    assert llama.runs(program).level is FAIL


def test_secrets(tmp_path):
    token = tmp_path / "token"
    assert doors.secret("CUTOFF_TOKEN_FILE", token).level is FAIL
    token.write_text("short")
    assert doors.secret("CUTOFF_TOKEN_FILE", token).level is FAIL
    token.write_text("0123456789abcdef0123")
    token.chmod(0o644)
    assert doors.secret("CUTOFF_TOKEN_FILE", token).fix == f"chmod 600 {token}"
    token.chmod(stat.S_IRUSR)
    found = doors.secret("CUTOFF_TOKEN_FILE", token)
    assert found.level is OK
    assert "0123456789abcdef" not in found.what


def test_certificates(tmp_path):
    pair = issue(make_authority(), ["trainer"])
    path = tmp_path / "tls.crt"
    assert doors.certificate("CUTOFF_CERT_FILE", path).level is FAIL
    path.write_bytes(pair.certificate)
    now = datetime.datetime.now(datetime.UTC)
    levels = {days: doors.certificate("c", path, now + datetime.timedelta(days=days)).level for days in (0, 810, 830)}
    assert levels == {0: OK, 810: WARN, 830: FAIL}
    path.write_text("none")
    assert doors.certificate("CUTOFF_CERT_FILE", path).level is FAIL


def test_doors_looks_where_the_variables_say(tmp_path):
    assert [found.level for found in doors.doors({})] == [OK]
    found = doors.doors({"CUTOFF_TOKEN_FILE": str(tmp_path / "t"), "CUTOFF_SECRETS": str(tmp_path)})
    assert [one.check for one in found] == ["CUTOFF_TOKEN_FILE", "CUTOFF_SECRETS token", "CUTOFF_SECRETS CA"]


def status(**changes) -> operator_pb2.GetStatusResponse:
    made = operator_pb2.GetStatusResponse(version="0.1.0")
    made.time.GetCurrentTime()
    made.MergeFrom(operator_pb2.GetStatusResponse(**changes))
    return made


def levels(answer) -> dict[str, Level]:
    return {found.check: found.level for found in system.system(lambda: answer, "a:1", named=True)}


def test_a_system_in_order_and_what_may_be_wrong_with_it():
    serving = operator_pb2.ServiceStatus(name="trainer", state=operator_pb2.ServiceStatus.STATE_SERVING)
    disk = operator_pb2.Disk(root="artifacts", path="/artifacts", free_bytes=99 * GIB, size_bytes=100 * GIB)
    fine = levels(status(services=[serving], disks=[disk]))
    assert fine == {"coordinator": OK, "clocks": OK, "trainer": OK, "server's artifacts": OK}
    lost = operator_pb2.ServiceStatus(name="trainer", state=operator_pb2.ServiceStatus.STATE_UNREACHABLE)
    stopping = operator_pb2.ServiceStatus(name="merger", state=operator_pb2.ServiceStatus.STATE_NOT_SERVING)
    disk.free_bytes = GIB
    sick = levels(status(services=[lost, stopping], disks=[disk], draining=True))
    assert sick == {"coordinator": WARN, "clocks": OK, "trainer": FAIL, "merger": WARN, "server's artifacts": WARN}
    assert levels(status(version="0.0.1"))["coordinator"] is WARN


def test_no_coordinator_is_a_fault_only_where_one_was_named():
    def nobody():
        raise Unavailable("a:1 cannot be reached", "start one")

    def stranger():
        raise Unauthenticated("no valid token", "fetch it")

    assert [found.level for found in system.system(nobody, "a:1", named=False)] == [OK]
    assert [found.level for found in system.system(nobody, "a:1", named=True)] == [FAIL]
    assert [found.level for found in system.system(stranger, "a:1", named=False)] == [FAIL]


def test_clocks(tmp_path):
    now = datetime.datetime.now(datetime.UTC)
    assert system.clock_beside(now, now).level is OK
    ahead = system.clock_beside(now + datetime.timedelta(hours=1), now)
    assert ahead.level is WARN
    assert "3600 s ahead" in ahead.what
    written = (tmp_path / "f").touch() or (tmp_path / "f").stat().st_mtime
    assert system.clock(written, tmp_path / "f").level is OK
    assert system.clock(0.0, tmp_path / "f").level is FAIL


def test_ports():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        assert system.port("trainer", number, lambda address: True).level is OK
        assert system.port("trainer", number, lambda address: False).level is WARN
    assert system.port("trainer", number, lambda address: False).level is OK


def test_the_command_runs_without_any_service_and_its_exit_code_tells(tmp_path, monkeypatch):
    monkeypatch.delenv("CUTOFF_ADDRESS", raising=False)
    monkeypatch.setattr("cutoff.client.doctor.PORTS", {})
    monkeypatch.setattr("cutoff.client.doctor.DEFAULT_ADDRESS", f"unix:{tmp_path}/none.sock")
    folders = [f"--{name}={tmp_path}" for name in ("datasets", "artifacts", "models")]
    ran = CliRunner().invoke(app, ["doctor", *folders, "--json"])
    found = {one["check"]: one for one in json.loads(ran.stdout)}
    assert {"python", "packages", "pytorch", "artifacts", "models folder", "clock", "coordinator"} <= found.keys()
    assert ran.exit_code == (1 if any(one["level"] == "fail" for one in found.values()) else 0)
    assert all(one["fix"] for one in found.values() if one["level"] != "ok")
    broken = CliRunner().invoke(app, ["doctor", *folders[:2], f"--models={tmp_path}/none"])
    assert broken.exit_code == 1
    assert "what to do" in broken.stdout
