"""llama.cpp: whether the pinned build is here, and its programs run."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cutoff.client.doctor.findings import Finding, fail, ok, warn
from cutoff.errors import NotFound

_SECONDS = 20.0


def build(cache: Path, stages_here: bool) -> list[Finding]:
    """Whether llama.cpp is here, is the pinned one, and runs.

    Args:
        cache: The cache root.
        stages_here: Whether stages run on this machine as processes, which need it.
    """
    try:
        from cutoff.llama_cpp import LlamaCpp  # needs requests, which a client alone has not
        from cutoff.llama_cpp.location import pinned_version
    except ModuleNotFoundError:
        return [ok("llama.cpp", "not looked for: stages run elsewhere (in containers, say)")]
    try:
        found = LlamaCpp.find(cache)
    except NotFound as error:
        if stages_here:
            return [fail("llama.cpp", error.message, error.remedy)]
        return [ok("llama.cpp", "not here: stages run elsewhere (in containers, say)")]
    version, pin = found.version(), pinned_version()
    if version.startswith(f"{pin}-"):
        first = ok("llama.cpp", f"{version} in {found.folder}")
    else:
        first = warn("llama.cpp", f"{found.folder} is {version}, tested was {pin}", "unset CUTOFF_LLAMA_CPP")
    return [first, *(runs(program) for program in (found.quantize, found.server, found.imatrix))]


def runs(program: Path) -> Finding:
    """Whether a program starts: libraries it needs may be missing, or it was built for another processor."""
    check = program.name
    rebuild = "remove its folder and run `make llama-cpp`"
    try:
        ran = subprocess.run([program, "--help"], capture_output=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return fail(check, f"{program} does not run: {error}", rebuild)
    output = (ran.stdout + ran.stderr).decode(errors="replace")
    if ran.returncode < 0 or "usage" not in output.lower():
        last = (output.strip().splitlines() or [f"exit code {ran.returncode}"])[-1]
        return fail(check, f"{program} does not run: {last}", rebuild)
    return ok(check, "runs")
