"""No server process, and no command that only reads its flags, imports what only a run's child needs."""

import subprocess
import sys

import pytest

STAGES = ("trainer", "merger", "gguf_converter", "evaluator")
LIGHT = [
    *(f"cutoff.{stage}.{part}" for stage in STAGES for part in ("service", "cli")),
    "cutoff.coordinator.main",
    "cutoff.client.cli",
]
HEAVY = {"torch", "transformers", "numpy", "gguf"}


@pytest.mark.parametrize("module", LIGHT)
def test_it_imports_no_torch_and_no_transformers(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


def test_a_client_alone_needs_nothing_of_the_services() -> None:
    code = "import sys, cutoff.client.cli; print(*sorted({'ray', 'sqlalchemy', 'requests'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr
