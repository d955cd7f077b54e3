"""The images: small, each with its own and nothing that builds, and nothing secret in them."""

from __future__ import annotations

import importlib.metadata
import json
import re

import pytest

import cutoff
from tests.containers.stack import SERVICES, docker

pytestmark = [pytest.mark.container, pytest.mark.usefixtures("stack")]

MEGABYTE = 1_000_000
LARGEST = {"coordinator": 800 * MEGABYTE, "trainer": 2000 * MEGABYTE}
IMAGES = {"coordinator": f"cutoff/coordinator:{cutoff.__version__}"} | {
    service: f"cutoff/{service}:{cutoff.__version__}-cpu" for service in SERVICES[1:]
}
PACKAGES = {
    "coordinator": ({"ray", "sqlalchemy", "typer", "cryptography"}, {"torch", "transformers", "trl", "pip"}),
    "trainer": ({"torch", "transformers", "trl", "peft", "bitsandbytes"}, {"ray", "sqlalchemy", "gguf", "pip"}),
    "merger": ({"torch", "transformers", "peft", "bitsandbytes"}, {"ray", "trl", "datasets", "pip"}),
    "gguf-converter": ({"torch", "transformers", "gguf"}, {"ray", "trl", "peft", "datasets", "pip"}),
    "evaluator": ({"torch", "transformers", "peft", "requests"}, {"ray", "trl", "datasets", "pip"}),
}
"""By image: what is installed in it, and what is not."""


def inspect(service: str) -> dict:
    return json.loads(docker("image", "inspect", IMAGES[service]))[0]


def in_image(service: str, *command: str) -> str:
    return docker("run", "--rm", "--network", "none", "--entrypoint", command[0], IMAGES[service], *command[1:])


@pytest.mark.parametrize("service", SERVICES)
def test_sizes(service, capsys):
    size = inspect(service)["Size"]
    layers = docker("history", "--format", "{{.Size}}\t{{.CreatedBy}}", "--no-trunc", IMAGES[service]).splitlines()
    with capsys.disabled():
        print(f"\n{IMAGES[service]}: {size / MEGABYTE:.0f} MB")  # noqa: T201
        for line in layers:
            if not line.startswith("0B"):
                print("   ", re.sub(r"\s+", " ", line)[:110])  # noqa: T201
    assert size < LARGEST.get(service, 2000 * MEGABYTE)


@pytest.mark.parametrize("service", SERVICES)
def test_each_image_has_its_own_packages_and_no_others(service):
    listing = in_image(
        service, "python", "-c",
        "import importlib.metadata as m; print(*(d.metadata['Name'].lower() for d in m.distributions()))",
    )  # fmt: skip
    wanted, unwanted = PACKAGES[service]
    installed = set(listing.split())
    assert wanted <= installed
    assert not unwanted & installed
    assert "cutoff" in installed


@pytest.mark.parametrize("service", SERVICES)
def test_nothing_that_builds_is_left(service):
    found = in_image(service, "sh", "-c", "command -v gcc cc c++ g++ cmake ninja make pip pip3 git curl; true")
    assert found == ""
    places = "/root/.cache /tmp /tmp/.cache /var/lib/apt/lists /var/cache"
    caches = in_image(service, "sh", "-c", f"ls -A {places} 2>/dev/null; true")
    assert [line for line in caches.splitlines() if line and not line.endswith(":")] == []


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_says_what_it_is_and_runs_as_a_number(service):
    config = inspect(service)["Config"]
    assert config["Labels"]["org.opencontainers.image.title"] == f"cutoff {service}"
    assert config["Labels"]["org.opencontainers.image.version"] == cutoff.__version__
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", config["User"])
    assert config["Healthcheck"]["Test"] == ["CMD", "cutoff-health"]


@pytest.mark.parametrize("service", SERVICES)
def test_no_secret_in_history_or_environment(service):
    history = docker("history", "--format", "{{.CreatedBy}}", "--no-trunc", IMAGES[service])
    environment = "\n".join(inspect(service)["Config"]["Env"])
    assert "BEGIN" not in history + environment
    named = re.findall(r"(?i)\b\w*(?:token|password|secret|key)\w*=(\S+)", environment)
    assert all(value.startswith(("/run/cutoff/", "/run/cutoff-client/")) or value == "token" for value in named), named


@pytest.mark.parametrize(
    ("service", "command"),
    [
        ("trainer", "finetune_temporal"),
        ("merger", "merge_lora"),
        ("gguf-converter", "convert_to_gguf"),
        ("evaluator", "evaluate_temporal"),
        ("coordinator", "cutoff"),
    ],
)
def test_the_commands_are_in_the_images(service, command):
    assert "--" in in_image(service, command, "--help")


@pytest.mark.parametrize("service", ["gguf-converter", "evaluator"])
def test_llama_cpp_is_the_pinned_one_and_starts(service):
    version = in_image(service, "cat", "/opt/llama.cpp/VERSION").strip()
    assert re.fullmatch(r"[\d.]+-cpu", version)
    assert "version" in in_image(service, "sh", "-c", "/opt/llama.cpp/bin/llama-server --version 2>&1")


def test_what_the_images_install_is_what_make_setup_installs():
    script = (
        "import importlib.metadata as m; print(*(d.metadata['Name'] + '==' + d.version for d in m.distributions()))"
    )
    for service in SERVICES:
        for pin in in_image(service, "python", "-c", script).split():
            name, version = pin.split("==")
            assert importlib.metadata.version(name) == version, f"{service}: {pin}"
