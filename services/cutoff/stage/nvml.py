"""NVIDIA's GPUs by NVML, the library of its driver: https://docs.nvidia.com/deploy/nvml-api/."""

# ruff: noqa: D102, N802 - the names are NVML's, and so are their descriptions

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import Any, Protocol, cast

from cutoff.stage.device_reading import DeviceMemory, Holder


class Nvml(Protocol):
    """What is used of the module pynvml (the package nvidia-ml-py)."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...
    def nvmlDeviceGetName(self, handle: Any) -> str: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...
    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> list[Any]: ...
    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: Any) -> list[Any]: ...


def library() -> Nvml | None:
    """The module pynvml; None where it is not installed. Whether there is a driver shows when it is asked."""
    try:
        return cast(Nvml, importlib.import_module("pynvml"))
    except ImportError:
        return None


def read(nvml: Nvml | None) -> list[DeviceMemory]:
    """The GPUs of this host by their place on the bus; none without a driver.

    NVML counts what the driver keeps for itself as used. It is begun and ended each time: a driver that comes or
    goes is noticed, and nothing is kept open in a service that a GPU is shared with.
    """
    if nvml is None:
        return []
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return []
    try:
        return [_device(nvml, nvml.nvmlDeviceGetHandleByIndex(index)) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError:
        return []
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _device(nvml: Nvml, handle: Any) -> DeviceMemory:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return DeviceMemory(nvml.nvmlDeviceGetName(handle), int(memory.total), int(memory.free), _holders(nvml, handle))


def _holders(nvml: Nvml, handle: Any) -> tuple[Holder, ...]:
    """Who computes and who draws; a process that does both is told twice, with the same figure."""
    held: dict[int, int] = {}
    for ask in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        with suppress(nvml.NVMLError):  # not every GPU tells
            for process in ask(handle):
                held[process.pid] = max(held.get(process.pid, 0), int(process.usedGpuMemory or 0))
    return tuple(Holder(pid, size) for pid, size in held.items())
