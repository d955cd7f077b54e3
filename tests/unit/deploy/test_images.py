"""What the images install, and what compose says: checked without an engine."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from deploy.host.choose_torch import ROCM
from docker import lock

ROOT = Path(__file__).parents[3]
REQUIREMENTS = sorted((ROOT / "docker/requirements").glob("*.txt"))
PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>\S+) --hash=sha256:[0-9a-f]{64}")
CONSTRAINTS = {
    name.lower().replace("_", "-").replace(".", "-"): version
    for name, _, version in (
        line.partition("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
}


def pins(name: str) -> dict[str, str]:
    text = (ROOT / f"docker/requirements/{name}.txt").read_text()
    return {match["name"]: match["version"] for match in PIN.finditer(text)}


@pytest.mark.parametrize("file", REQUIREMENTS, ids=lambda file: file.stem)
def test_every_requirement_has_a_hash(file):
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert all(PIN.fullmatch(line) for line in lines)


@pytest.mark.parametrize("file", REQUIREMENTS, ids=lambda file: file.stem)
def test_versions_are_those_that_were_tested_together(file):
    for name, version in pins(file.stem).items():
        if name in CONSTRAINTS:
            assert version == CONSTRAINTS[name], f"{name}: run `make lock`"
        else:
            assert file.stem in ("build", "torch-cpu", "torch-cuda"), f"{name} is in no constraint"


@pytest.mark.parametrize("extra", [*lock.STAGES, "coordinator", "client"])
def test_what_an_extra_asks_for_is_installed_in_its_image(extra):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {
        re.split(r"[\[<>=]", one)[0].lower()  # of psycopg[binary] the first; the lock has both
        for one in (*project["dependencies"], *project["optional-dependencies"][extra])
    }
    service = "coordinator" if extra == "client" else extra
    shared = {} if service == "coordinator" else {**pins("stage"), **pins("torch-cpu")}
    assert wanted <= set(pins(service)) | set(shared), "run `make lock`"


def test_pytorch_is_the_one_that_setup_installs():
    from deploy.host import choose_torch

    assert lock.TORCH == choose_torch.VERSION
    assert pins("torch-cpu")["torch"].partition("+")[0] == pins("torch-cuda")["torch"] == lock.TORCH


def test_the_rocm_table_of_the_images_is_the_one_of_setup():
    text = (ROOT / "docker/docker-bake.hcl").read_text()
    table = re.search(r'variable "ROCM_TORCH".*?default = (\{.*?\})', text, re.DOTALL)
    assert table is not None
    in_bake = ast.literal_eval(table[1].replace("=", ":"))
    assert {f"rocm{rocm}": version for rocm, version in in_bake.items()} == dict(ROCM.values())


def compose(name: str) -> dict:
    class Loader(yaml.SafeLoader):
        """Knows compose's own tags."""

    Loader.add_constructor("!reset", lambda *_: None)
    found: dict = yaml.load((ROOT / name).read_text(), Loader)
    return found


def test_every_variable_of_compose_is_explained_with_its_default():
    example = (ROOT / ".env.example").read_text()
    for name in (
        "compose.yaml",
        "deploy/compose.cuda.yaml",
        "deploy/compose.rocm.yaml",
        "deploy/compose.lmstudio.yaml",
    ):
        for variable, default in re.findall(r"\$\{(\w+):-([^}]*)\}", (ROOT / name).read_text()):
            if variable.endswith("_IMAGE") and name != "compose.yaml":
                continue  # the exporters': said where they are
            assert f"#{variable}=" in example, f"{variable} of {name}"
            if name == "compose.yaml":
                assert f"#{variable}={default}\n" in example, f"{variable} of {name}"


@pytest.mark.parametrize("name", ["compose.yaml", "deploy/compose.cuda.yaml", "deploy/compose.rocm.yaml"])
def test_no_image_is_a_bare_latest(name):
    for service in compose(name)["services"].values():
        if service and "image" in service:
            assert ":" in service["image"].rpartition("/")[2]
            assert "latest" not in service["image"]


FILES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "deploy").glob("compose.*.yaml"))


def whole_services() -> list[tuple[str, str, dict]]:
    """The services that a file defines, and does not only add to; with the file and their names."""
    base = compose("compose.yaml")["services"]
    found = [("compose.yaml", name, service) for name, service in base.items()]
    for file in FILES:
        services = compose(file)["services"]
        found += [(file, name, service) for name, service in services.items() if service and name not in base]
    return found


@pytest.mark.parametrize(
    ("file", "name", "service"), whole_services(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_service_is_locked_down(file, name, service):
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"]
    assert service["mem_limit"]
    assert not service["user"].startswith("0")
    assert not service.get("privileged")
    assert service.get("network_mode") != "host"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_nothing_that_is_added_takes_a_lock_off():
    for file in FILES:
        for name, service in compose(file)["services"].items():
            loose = {"privileged", "cap_add", "ports", "network_mode", "user", "read_only"} & set(service or {})
            assert name in {one for where, one, _ in whole_services() if where == file} or not loose, (file, name)


def test_overrides_are_known():
    assert len(whole_services()) == 8 + 3, "ray-worker and two exporters beside those of compose.yaml"
