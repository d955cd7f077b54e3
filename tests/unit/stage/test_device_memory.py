"""What drivers say of GPUs: NVML by a recorded stand-in of its Python module, AMD's by a folder with its files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from cutoff.stage import amd_sysfs, device_memory, nvml

GIB = 1 << 30


class NVMLError(Exception):
    pass


class RecordedNvml:
    """As pynvml of nvidia-ml-py 13 answers on a host with a 4090 that LM Studio and a desktop use, and an idle A100."""

    NVMLError = NVMLError

    def __init__(self, *, driver: bool = True, lists: bool = True) -> None:
        self.driver, self.lists = driver, lists
        self.opened = 0

    def nvmlInit(self):
        if not self.driver:
            raise NVMLError("Driver Not Loaded")
        self.opened += 1

    def nvmlShutdown(self):
        self.opened -= 1

    def nvmlDeviceGetCount(self):
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetName(self, handle):
        return ["NVIDIA GeForce RTX 4090", "NVIDIA A100 80GB PCIe"][handle]

    def nvmlDeviceGetMemoryInfo(self, handle):
        used = [18 * GIB, GIB // 2][handle]
        total = [24 * GIB, 80 * GIB][handle]
        return SimpleNamespace(total=total, used=used, free=total - used)

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        if not self.lists:
            raise NVMLError("Not Supported")
        return [SimpleNamespace(pid=4242, usedGpuMemory=17 * GIB)] if handle == 0 else []

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle):
        both = [SimpleNamespace(pid=4242, usedGpuMemory=17 * GIB), SimpleNamespace(pid=900, usedGpuMemory=None)]
        return both if handle == 0 else []


@pytest.fixture
def proc(tmp_path) -> Path:
    """/proc with one process that can be seen."""
    (tmp_path / "proc/4242").mkdir(parents=True)
    (tmp_path / "proc/4242/comm").write_text("lm-studio\n")
    (tmp_path / "proc/4242/stat").write_text("4242 (lm studio (x)) S 1 4200 4200 0 -1 4194560")
    return tmp_path / "proc"


def test_nvidias_gpus_with_those_who_hold_their_memory(monkeypatch, tmp_path, proc):
    library = RecordedNvml()
    monkeypatch.setattr(nvml, "library", lambda: library)
    first, second = device_memory.read_devices(tmp_path / "sys", proc)
    assert (first.name, first.model, second.name) == ("cuda:0", "NVIDIA GeForce RTX 4090", "cuda:1")
    assert (first.total_bytes, first.free_bytes) == (24 * GIB, 6 * GIB)
    lm_studio, hidden = first.processes
    assert (lm_studio.pid, lm_studio.name, lm_studio.group) == (4242, "lm-studio", 4200)
    assert lm_studio.memory_bytes == 17 * GIB, "told twice, counted once"
    assert (hidden.pid, hidden.name, hidden.memory_bytes, hidden.group) == (900, "", 0, 0)
    assert list(second.processes) == []
    assert library.opened == 0, "nothing stays open on a GPU that others use"


def test_a_gpu_that_lists_no_processes_tells_its_memory(monkeypatch, tmp_path, proc):
    library = RecordedNvml(lists=False)
    library.nvmlDeviceGetGraphicsRunningProcesses = library.nvmlDeviceGetComputeRunningProcesses
    monkeypatch.setattr(nvml, "library", lambda: library)
    first, _ = device_memory.read_devices(tmp_path, proc)
    assert (first.free_bytes, list(first.processes)) == (6 * GIB, [])


def test_a_host_without_a_driver_has_no_gpus(monkeypatch, tmp_path, proc):
    monkeypatch.setattr(nvml, "library", lambda: RecordedNvml(driver=False))
    assert device_memory.read_devices(tmp_path, proc) == []
    monkeypatch.setattr(nvml, "library", lambda: None)
    assert device_memory.read_devices(tmp_path, proc) == []


def test_the_real_module_has_what_is_asked_of_it():
    """Without a GPU it can only be begun in vain; its names are those the stand-in has."""
    library = nvml.library()
    assert library is not None
    for name in vars(RecordedNvml):
        assert name.startswith("_") or hasattr(library, name), name
    assert nvml.read(library) == [] or nvml.read(library)[0].total_bytes > 0


def node(sysfs: Path, number: int, **properties: int) -> Path:
    folder = sysfs / f"class/kfd/kfd/topology/nodes/{number}"
    folder.mkdir(parents=True)
    (folder / "properties").write_text("".join(f"{name} {value}\n" for name, value in properties.items()))
    (folder / "gpu_id").write_text(f"{1000 + number}\n")
    return folder


def card(sysfs: Path, name: str, **sizes: int) -> None:
    folder = sysfs / f"class/drm/{name}/device"
    folder.mkdir(parents=True)
    for kind, size in sizes.items():
        (folder / f"mem_info_{kind}").write_text(f"{size}\n")


def test_amds_gpus_in_the_order_of_rocm(tmp_path, proc):
    sysfs = tmp_path / "sys"
    node(sysfs, 0, cpu_cores_count=16, simd_count=0, drm_render_minor=0)
    node(sysfs, 10, simd_count=192, drm_render_minor=128, gfx_target_version=110000)
    node(sysfs, 2, simd_count=128, drm_render_minor=129, gfx_target_version=110000)
    card(sysfs, "renderD128", vram_total=24 * GIB, vram_used=2 * GIB, gtt_total=32 * GIB, gtt_used=0)
    card(sysfs, "renderD129", vram_total=16 * GIB, vram_used=12 * GIB, gtt_total=32 * GIB, gtt_used=0)
    (sysfs / "class/kfd/kfd/proc/4242").mkdir(parents=True)
    (sysfs / "class/kfd/kfd/proc/4242/vram_1002").write_text(str(11 * GIB))
    (sysfs / "class/kfd/kfd/proc/4242/vram_1010").write_text("0")
    first, second = device_memory.read_devices(sysfs, proc)
    assert (first.total_bytes, first.free_bytes) == (16 * GIB, 4 * GIB), "a GPU's own memory, not GTT"
    assert [(each.pid, each.name, each.memory_bytes) for each in first.processes] == [(4242, "lm-studio", 11 * GIB)]
    assert (second.total_bytes, list(second.processes)) == (24 * GIB, [])


def test_an_integrated_gpu_takes_its_memory_where_there_is_more(tmp_path):
    """Strix Halo with 96 GiB of GTT and the smallest share that its BIOS can reserve."""
    node(tmp_path, 1, simd_count=80, drm_render_minor=128, gfx_target_version=110501)
    card(tmp_path, "renderD128", vram_total=GIB // 2, vram_used=GIB // 4, gtt_total=96 * GIB, gtt_used=20 * GIB)
    [found] = amd_sysfs.read(tmp_path)
    assert (found.total_bytes, found.free_bytes) == (96 * GIB, 76 * GIB)


def test_without_rocms_part_of_the_driver_the_cards_are_read(tmp_path):
    card(tmp_path, "card0", vram_total=8 * GIB, vram_used=GIB)
    card(tmp_path, "card1")  # a server's management chip
    [found] = amd_sysfs.read(tmp_path)
    assert (found.total_bytes, found.free_bytes, found.holders) == (8 * GIB, 7 * GIB, ())


def test_files_that_hold_no_numbers_are_no_gpu(tmp_path):
    node(tmp_path, 1, simd_count=80, drm_render_minor=128)
    folder = tmp_path / "class/drm/renderD128/device"
    folder.mkdir(parents=True)
    (folder / "mem_info_vram_total").write_text("many\n")
    (folder / "mem_info_vram_used").write_bytes(b"\xff")
    assert amd_sysfs.read(tmp_path) == []
    assert amd_sysfs.read(tmp_path / "nowhere") == []
