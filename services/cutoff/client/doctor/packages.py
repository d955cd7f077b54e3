"""Python and its packages, held against those that were tested together; PyTorch's build against the hardware."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import cutoff
from cutoff.client.doctor.findings import Finding, fail, ok, warn

_OLDEST, _TOO_NEW = (3, 11), (3, 13)
_SETUP = "make setup"


def python(version: tuple[int, int] = sys.version_info[:2]) -> Finding:
    """Whether this Python is one that cutoff runs on."""
    said = ".".join(map(str, version))
    if _OLDEST <= version < _TOO_NEW:
        return ok("python", said)
    return fail(
        "python", f"{said} is none that cutoff runs on", "use Python 3.11 or 3.12: PYTHON=python3.11 make setup"
    )


def installed_version(name: str) -> str | None:
    """The version of a package; None when it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def constraints_file() -> Path:
    """constraints.txt of the checkout that this cutoff runs from; an installed wheel has none."""
    return Path(cutoff.__file__).parents[2] / "constraints.txt"


def packages(file: Path | None = None, installed: Callable[[str], str | None] = installed_version) -> Finding:
    """Whether the installed versions are those that were tested together; what is not installed is not needed here."""
    file = file or constraints_file()
    if not file.is_file():
        return ok("packages", f"cutoff {installed('cutoff')}; no constraints.txt here to compare with")
    pinned = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", file.read_text(), re.MULTILINE))
    found = {name: installed(name) for name in pinned}
    others = {name: version for name, version in found.items() if version and version.removeprefix("v") != pinned[name]}
    if not others:
        return ok("packages", f"cutoff {installed('cutoff')}; all as in constraints.txt")
    named = ", ".join(f"{name} {version} (tested: {pinned[name]})" for name, version in sorted(others.items()))
    return warn("packages", f"not the versions that were tested together: {named}", _SETUP)


def torch_build() -> tuple[str, str, str] | None:
    """PyTorch's version, and its CUDA and ROCm versions ("" for none); read without importing it. None: no PyTorch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    said = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    return str(said["__version__"]), str(said.get("cuda") or ""), str(said.get("hip") or "")


def torch(build: tuple[str, str, str] | None, root: Path = Path("/")) -> Finding:
    """Whether PyTorch is built for the GPU that is here.

    Args:
        build: As `torch_build` gives it.
        root: Below which /dev is.
    """
    nvidia = (root / "dev/nvidiactl").exists() or (root / "dev/nvidia0").exists()
    amd = (root / "dev/kfd").exists()
    if build is None:
        return ok("pytorch", "not installed: stages run elsewhere (in containers, say)")
    version, cuda, hip = build
    for here, has, name, wanted in ((nvidia, cuda, "NVIDIA", "cuda"), (amd, hip, "AMD", "rocm")):
        if here and not has and not (nvidia and cuda):
            return fail(
                "pytorch", f"{version} is not built for the {name} GPU that is here", f"TORCH={wanted} make setup"
            )
    if cuda and not nvidia:
        return warn("pytorch", f"{version} is built for CUDA {cuda}, and no NVIDIA GPU is here", "TORCH=cpu make setup")
    if hip and not amd:
        return warn("pytorch", f"{version} is built for ROCm {hip}, and no AMD GPU is here", "TORCH=cpu make setup")
    return ok("pytorch", f"{version}, for {f'CUDA {cuda}' if cuda else f'ROCm {hip}' if hip else 'the CPU'}")
