"""Chooses the build of PyTorch for this machine, and prints pip's arguments for it.

    choose_torch.py auto|cpu|cuda|rocm     prints arguments
    choose_torch.py has-muon VERSION       exits with 0 when this version of torch has the demo's optimizer

Plain `torch` from PyPI brings several GB of CUDA libraries, on a machine without a GPU too; PyTorch's own
indexes have a build per accelerator. A CPU build that pip finds anyway (--find-links, a mirror) is taken.
Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from pathlib import Path

VERSION = "2.13.0"
INDEX = "https://download.pytorch.org/whl"

ROCM = {(7, 0): ("rocm6.4", "2.9.1"), (6, 3): ("rocm6.4", "2.9.1"), (6, 2): ("rocm6.2", "2.5.1"),
        (6, 1): ("rocm6.1", "2.6.0"), (6, 0): ("rocm6.0", "2.4.1")}  # fmt: skip
"""From an installed ROCm upwards: the wheel index of the user's document, and a version it carries."""


def accelerator(root: Path = Path("/")) -> str:
    """What this machine has: cuda, rocm or cpu."""
    if (root / "dev/nvidiactl").exists() or (root / "dev/nvidia0").exists():
        return "cuda"
    return "rocm" if (root / "dev/kfd").exists() else "cpu"


def rocm_index(root: Path = Path("/")) -> tuple[str, str]:
    """The index and the version of PyTorch for the installed ROCm; the newest when it does not say."""
    info = root / "opt/rocm/.info/version"
    found = re.match(r"(\d+)\.(\d+)", info.read_text()) if info.is_file() else None
    installed = (int(found[1]), int(found[2])) if found else (7, 0)
    for lowest, choice in ROCM.items():
        if installed >= lowest:
            return choice
    sys.exit(f"setup: ROCm {installed[0]}.{installed[1]} is too old for any build of PyTorch; 6.0 is the oldest")


def pip_finds_cpu_build() -> bool:
    """Whether plain `pip install torch` would take a CPU build here."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return True  # PyPI's builds for other machines have no CUDA in them
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps", "--ignore-installed",
               "--report", "-", f"torch=={VERSION}"]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        return False
    return "+cpu" in json.loads(ran.stdout)["install"][0]["metadata"]["version"]


def choose(wanted: str, finds_cpu_build: bool, root: Path = Path("/")) -> str:
    """What to tell pip for a wanted build."""
    kind = accelerator(root) if wanted == "auto" else wanted
    if kind == "cuda":
        return f"torch=={VERSION}"
    if kind == "rocm":
        index, version = rocm_index(root)
        return f"torch=={version} --index-url {INDEX}/{index}"
    if kind == "cpu":
        return f"torch=={VERSION}" if finds_cpu_build else f"torch=={VERSION} --index-url {INDEX}/cpu"
    sys.exit(f"setup: TORCH={wanted} is not one of auto, cpu, cuda, rocm")


def has_muon(version: str) -> bool:
    """Whether a version of torch has torch.optim.Muon, with which the demo pretrains its base model."""
    return tuple(int(part) for part in version.split(".")[:2]) >= (2, 9)


if __name__ == "__main__":
    asked = sys.argv[1]
    if asked == "has-muon":
        sys.exit(not has_muon(sys.argv[2]))
    cpu = asked == "cpu" or (asked == "auto" and accelerator() == "cpu")
    print(choose(asked, cpu and pip_finds_cpu_build()))
