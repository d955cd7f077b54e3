import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", [f"cutoff.{room}.{part}" for room in ("evaluator", "gguf_converter") for part in ("service", "cli")]
)
def test_a_server_process_and_a_command_that_only_reads_its_flags_import_no_torch(module: str) -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'gguf'}"
    code = f"import sys, {module}; sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
