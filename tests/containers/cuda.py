"""The CUDA images of the four stages: built, and their stack imported without a GPU.

`make test-images-cuda` runs it; it downloads several GB, so it is no part of the other container tests.
"""

from __future__ import annotations

import pytest

import cutoff
from tests.containers.stack import SERVICES, Stack, docker

pytestmark = pytest.mark.container

IMPORTS = {
    "trainer": "torch, transformers, peft, trl, bitsandbytes, datasets, cutoff.trainer.recipe",
    "merger": "torch, transformers, peft, cutoff.merger.merge",
    "gguf-converter": "torch, transformers, gguf, cutoff.gguf_converter.convert",
    "evaluator": "torch, transformers, peft, requests, cutoff.evaluator.evaluate",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cuda")
    files = ("compose.yaml", "deploy/compose.cuda.yaml")
    Stack(folder, folder).build(*SERVICES[1:], files=files, timeout=3600)


@pytest.mark.usefixtures("built")
@pytest.mark.timeout(4000)
@pytest.mark.parametrize("service", SERVICES[1:])
def test_the_stack_is_imported_without_a_gpu(service, capsys):
    image = f"cutoff/{service}:{cutoff.__version__}-cu130"
    script = f"import {IMPORTS[service]}; print(torch.version.cuda, torch.cuda.is_available())"
    said = docker("run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp:exec", "--cap-drop", "ALL",
                  image, "python", "-c", script)  # fmt: skip
    with capsys.disabled():
        size = docker("image", "inspect", "-f", "{{.Size}}", image).strip()
        print(f"\n{image}: {int(size) / 1e9:.2f} GB, CUDA {said.strip()}")  # noqa: T201
    assert said.split() == ["13.0", "False"]
