from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cutoff.trainer.platforms import CPU, CUDA, ROCM, Platform, detect, platform_of, platform_of_name, with_override

EXPERIMENTAL = "TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL"
ROWS = [CPU, *(row for _, row in CUDA), *ROCM.values(), platform_of("rocm", "gfx9999")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_says_where_it_is_from(row: Platform) -> None:
    assert row.sources
    assert all(source.startswith("https://") for source in row.sources)
    assert row.kind != "rocm" or "hang" in row.quantization_warnings["4bit"]
    assert "8bit" in row.quantization_warnings


@pytest.mark.parametrize(
    ("capability", "dtype", "liger"),
    [
        ((12, 0), "bfloat16", True),
        ((8, 6), "bfloat16", True),
        ((8, 0), "bfloat16", True),
        ((7, 5), "float16", False),
        ((7, 0), "float16", False),
        ((6, 1), "float32", False),
    ],
)
def test_nvidia_by_compute_capability(capability: tuple[int, int], dtype: str, liger: bool) -> None:
    found = platform_of("cuda", "NVIDIA whatever", capability)
    assert (found.kind, found.dtype, found.liger, found.attention) == ("cuda", dtype, liger, "sdpa")
    assert not found.environment


@pytest.mark.parametrize(
    ("arch", "attention", "experimental", "liger"),
    [
        ("gfx90a:sramecc+:xnack-", "sdpa", False, True),
        ("gfx942", "sdpa", False, True),
        ("gfx1100", "sdpa", True, False),
        ("gfx1151", "sdpa", True, False),
        ("gfx1201", "sdpa", False, False),
        ("gfx908", "eager", False, False),
        ("gfx1030", "eager", False, False),
        ("gfx1299", "eager", False, False),
        ("", "eager", False, False),
    ],
)
def test_amd_by_architecture(arch: str, attention: str, experimental: bool, liger: bool) -> None:
    found = platform_of("rocm", arch)
    assert (found.attention, EXPERIMENTAL in found.environment, found.liger) == (attention, experimental, liger)
    assert found.fused_adamw


def test_warnings_depend_on_the_quantization() -> None:
    strix = platform_of("rocm", "gfx1151")
    assert len(strix.warnings_for("none")) == 1
    assert "hang" in strix.warnings_for("4bit")[-1]
    assert "slower" in strix.warnings_for("8bit")[-1]
    assert CPU.warnings_for("4bit") == ()


def test_an_unknown_gpu_is_told_so() -> None:
    assert "nothing is known of gfx1299" in platform_of("rocm", "gfx1299").warnings[0]


def test_a_gpu_that_is_not_here_is_known_by_its_name() -> None:
    assert platform_of_name("AMD Radeon 8060S Graphics") == ROCM["gfx1151"]
    assert platform_of_name("NVIDIA RTX 4090") is None


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    strix = platform_of("rocm", "gfx1151")
    monkeypatch.delenv(EXPERIMENTAL, raising=False)
    strix.set_environment()
    assert os.environ[EXPERIMENTAL] == "1"
    monkeypatch.setenv(EXPERIMENTAL, "0")
    strix.set_environment()
    assert os.environ[EXPERIMENTAL] == "0"


def test_a_gpu_that_poses_as_another_is_warned_about() -> None:
    strix = platform_of("rocm", "gfx1151")
    assert with_override(strix, {}) is strix
    posing = with_override(strix, {"HSA_OVERRIDE_GFX_VERSION": "11.0.0"})
    assert "pose as another" in posing.warnings[-1]


def test_no_device_is_the_cpu_and_needs_no_torch() -> None:
    assert detect(()) is CPU
    code = "import sys; from cutoff.trainer.platforms import detect; detect(()); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Device:
    def __init__(self, arch: str = "", major: int = 0, minor: int = 0) -> None:
        self.gcnArchName, self.major, self.minor = arch, major, minor


@pytest.mark.parametrize(
    ("hip", "device", "name"),
    [("7.1", Device("gfx1151"), "Strix Halo"), (None, Device(major=9), "8.0 or more")],
)
def test_torch_is_asked(monkeypatch: pytest.MonkeyPatch, hip: str | None, device: Device, name: str) -> None:
    import torch

    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device)
    assert name in detect(("cuda:0",)).name
