"""AMD's GPUs by the files of the kernel's amdgpu driver; no library of ROCm is needed.

https://docs.kernel.org/gpu/amdgpu/driver-misc.html describes mem_info_*; /sys/class/kfd is what ROCm computes through:
topology/nodes are its GPUs in the order in which HIP counts them, proc/PID/vram_GPU what each process holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cutoff.stage.device_reading import DeviceMemory, Holder

_INTEGRATED = frozenset((90002, 90009, 90012, 100303, 100305, 100306, 100307, 110003, 110500, 110501, 110502, 110503))
"""gfx_target_version of GPUs without memory of their own (gfx902 to gfx1153): where the BIOS gave them less of the
machine's than GTT has, the driver takes their memory from GTT (since Linux 6.10, amdgpu's apu_prefer_gtt)."""

_FIRST_RENDER_NODE = 128


def read(sysfs: Path) -> list[DeviceMemory]:
    """The GPUs ROCm would use, in its order; without its part of the driver, those that have memory of their own.

    Args:
        sysfs: "/sys", or a folder with the same files.
    """
    nodes = sorted((sysfs / "class/kfd/kfd/topology/nodes").glob("[0-9]*"), key=lambda node: int(node.name))
    found = [device for node in nodes if (device := _of_node(node, sysfs)) is not None]
    cards = sorted((sysfs / "class/drm").glob("card[0-9]*/device/mem_info_vram_total"))
    return found or [device for card in cards if (device := _memory(card.parent, integrated=False)) is not None]


def _of_node(node: Path, sysfs: Path) -> DeviceMemory | None:
    """The GPU of a node; None for a processor's."""
    properties = _properties(node / "properties")
    minor = properties.get("drm_render_minor", 0)
    if not properties.get("simd_count") or minor < _FIRST_RENDER_NODE:
        return None
    integrated = properties.get("gfx_target_version") in _INTEGRATED
    gpu = _number(node / "gpu_id")
    holders = _holders(sysfs / "class/kfd/kfd/proc", gpu) if gpu else ()
    return _memory(sysfs / f"class/drm/renderD{minor}/device", integrated, holders)


def _memory(device: Path, integrated: bool, holders: tuple[Holder, ...] = ()) -> DeviceMemory | None:
    kinds = ("vram", "gtt") if integrated else ("vram",)
    sizes = [(_number(device / f"mem_info_{kind}_total"), _number(device / f"mem_info_{kind}_used")) for kind in kinds]
    known = [(total, used) for total, used in sizes if total is not None and used is not None]
    if not known:
        return None
    total, used = max(known)
    name = ""
    with suppress(OSError):
        name = (device / "product_name").read_text(encoding="utf-8").strip()
    return DeviceMemory(name or "AMD GPU", total, max(0, total - used), holders)


def _holders(processes: Path, gpu: int) -> tuple[Holder, ...]:
    """The processes that compute on a GPU. One that only draws, or computes by Vulkan, is not told here."""
    found = []
    for process in processes.glob("[0-9]*"):
        size = _number(process / f"vram_{gpu}")
        if size:
            found.append(Holder(int(process.name), size))
    return tuple(found)


def _properties(path: Path) -> Mapping[str, int]:
    """Lines of a name and a number."""
    with suppress(OSError, ValueError):
        pairs = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
    return {}


def _number(path: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int(path.read_text(encoding="utf-8"))
    return None
