"""Writes docker/requirements/: what each image installs, every file pinned by its SHA-256.

    python3.11 docker/lock.py            (or: make lock)

pip resolves each image's extra under constraints.txt and reports the files it would install; nothing is
installed. The versions are constraints.txt's, so that images and `make setup` run the same. PyTorch and what only
it brings stand apart (torch-cpu.txt, torch-cuda.txt), because they differ per accelerator; what all four stage
services need stands in stage.txt, a layer that their images share.

The files are those of x86_64 and Python 3.11, as the images are. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docker/requirements"
STAGES = ("trainer", "merger", "gguf-converter", "evaluator")
TORCH = "2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
BUILD = ("cmake", "ninja", "pip==26.3", "setuptools==84.2.1")

Pins = Mapping[str, tuple[str, str]]
"""From a package's name to its version and the SHA-256 of its file."""


def resolve(wanted: Sequence[str], options: Sequence[str] = (), local: bool = False) -> Pins:
    """What pip would install for some requirements.

    Args:
        wanted: As on pip's command line.
        options: More options for pip.
        local: Whether pip's configuration counts (a folder with wheels); otherwise only PyPI does.
    """
    environment = {**os.environ, **({} if local else {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""})}
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-",
               "--only-binary", ":all:", "--constraint", str(ROOT / "constraints.txt"), *options, *wanted]  # fmt: skip
    ran = subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found = {}
    for item in json.loads(ran.stdout)["install"]:
        name = item["metadata"]["name"].lower().replace("_", "-").replace(".", "-")
        if name != "cutoff":
            found[name] = (item["metadata"]["version"], item["download_info"]["archive_info"]["hashes"]["sha256"])
    return found


def write(name: str, pins: Pins) -> None:
    """Writes one file of requirements."""
    lines = [f"{package}=={version} --hash=sha256:{digest}" for package, (version, digest) in sorted(pins.items())]
    (OUT / f"{name}.txt").write_text("# Made by docker/lock.py; do not edit.\n" + "\n".join(lines) + "\n")
    print(f"{name}.txt: {len(pins)} packages", file=sys.stderr)


def without(pins: Pins, *others: Pins) -> Pins:
    """What is in none of the others."""
    return {name: pin for name, pin in pins.items() if not any(name in other for other in others)}


def main(arguments: Sequence[str]) -> None:
    """Resolves and writes everything."""
    parser = argparse.ArgumentParser(description="Pins what the images install.")
    parser.add_argument("--index", default=CPU_INDEX, help="where the CPU build of PyTorch is; '' for pip's own")
    options = parser.parse_args(arguments)
    if sys.version_info[:2] != (3, 11) or platform.machine() != "x86_64":
        sys.exit("lock.py must run with Python 3.11 on x86_64, as the images do")
    OUT.mkdir(exist_ok=True)
    index = ["--index-url", options.index] if options.index else []
    cpu = resolve([f"torch=={TORCH}+cpu"], ["--no-deps", *index], local=not index)
    cuda = resolve([f"torch=={TORCH}"])
    services = {service: resolve([f".[{service}]", f"torch=={TORCH}"]) for service in STAGES}
    only_torch = {name: pin for name, pin in cuda.items() if name.startswith(("torch", "nvidia-", "cuda-", "triton"))}
    shared = set.intersection(*(set(pins) for pins in services.values())) - set(only_torch)
    stage = {name: pin for name, pin in services["trainer"].items() if name in shared}
    write("build", resolve(BUILD))
    write("coordinator", resolve([".[coordinator,client]"]))
    write("stage", stage)
    write("torch-cpu", cpu)
    write("torch-cuda", only_torch)
    for service, pins in services.items():
        write(service, without(pins, stage, only_torch))


if __name__ == "__main__":
    main(sys.argv[1:])
