"""The GPUs of this machine: driver, memory and who holds it, asked of NVML and sysfs; PyTorch is not loaded."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from cutoff.artifacts import GIB
from cutoff.client.doctor.findings import Finding, fail, ok, warn

_TIGHT = 0.5
"""Share of free memory below which the holders are named."""


def nvidia(nvml: Any = None, root: Path = Path("/")) -> list[Finding]:
    """NVIDIA GPUs: whether the driver answers, and how much memory is free.

    Args:
        nvml: pynvml; imported when not given.
        root: Below which /dev is.
    """
    present = (root / "dev/nvidiactl").exists() or (root / "dev/nvidia0").exists()
    if nvml is None:
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError:
            if not present:
                return []
            return [warn("gpu", "an NVIDIA GPU is here, and nvidia-ml-py is not", "pip install .[trainer]")]
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        if not present:
            return []
        fix = "install NVIDIA's driver, or load it: nvidia-smi says what is wrong (docs/gpu-host.md)"
        return [fail("gpu", f"an NVIDIA GPU is here, and its driver does not answer: {error}", fix)]
    try:
        driver = _text(nvml.nvmlSystemGetDriverVersion())
        return [_nvidia_gpu(nvml, index, driver) for index in range(nvml.nvmlDeviceGetCount())]
    finally:
        nvml.nvmlShutdown()


def _nvidia_gpu(nvml: Any, index: int, driver: str) -> Finding:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory, name = nvml.nvmlDeviceGetMemoryInfo(handle), _text(nvml.nvmlDeviceGetName(handle))
    try:
        holders = [str(process.pid) for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)]
    except nvml.NVMLError:  # not told in some containers
        holders = []
    return _memory(f"gpu {index}", f"{name}, driver {driver}", memory.free, memory.total, holders)


def amd(root: Path = Path("/")) -> list[Finding]:
    """AMD GPUs: whether this user may use them, and how much memory is free."""
    if not (root / "dev/kfd").exists():
        return []
    if not os.access(root / "dev/kfd", os.R_OK | os.W_OK):
        fix = "sudo usermod -aG render,video $USER, and log in again"
        return [fail("gpu", "an AMD GPU is here, and this user may not open /dev/kfd", fix)]
    found = []
    for total in sorted((root / "sys/class/drm").glob("card*/device/mem_info_vram_total")):
        size = int(total.read_text())
        used = int(total.with_name("mem_info_vram_used").read_text())
        found.append(_memory(f"gpu {total.parts[-3]}", "AMD", size - used, size, []))
    return found or [
        warn("gpu", "/dev/kfd is here, and no GPU in /sys/class/drm", "is amdgpu loaded? dmesg | grep amdgpu")
    ]


def _memory(check: str, name: str, free: int, total: int, holders: list[str]) -> Finding:
    said = f"{name}: {free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if free >= _TIGHT * total:
        return ok(check, said)
    by = f", held by process {', '.join(holders)}" if holders else ""
    return warn(check, said + by, "jobs wait for memory: end what holds it (LM Studio: lms unload --all)")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
