"""Which build of PyTorch `make setup` installs."""

import importlib.util
import tomllib
from pathlib import Path

import pytest

PATH = Path(__file__).parents[3] / "deploy/host/choose_torch.py"
_spec = importlib.util.spec_from_file_location("choose_torch", PATH)
choose_torch = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(choose_torch)

CPU_INDEX = "torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"


@pytest.fixture
def machine(tmp_path: Path):
    """Builds a root folder that looks like a machine with these files."""

    def build(*devices: str, rocm: str | None = None) -> Path:
        for device in devices:
            (tmp_path / "dev").mkdir(exist_ok=True)
            (tmp_path / "dev" / device).touch()
        if rocm:
            (tmp_path / "opt/rocm/.info").mkdir(parents=True)
            (tmp_path / "opt/rocm/.info/version").write_text(rocm)
        return tmp_path

    return build


def test_no_gpu_takes_pytorchs_cpu_index(machine):
    assert choose_torch.choose("auto", False, machine()) == CPU_INDEX


def test_no_gpu_takes_the_cpu_build_that_pip_finds(machine):
    assert choose_torch.choose("auto", True, machine()) == "torch==2.13.0"


def test_nvidia_takes_plain_torch(machine):
    assert choose_torch.choose("auto", False, machine("nvidiactl")) == "torch==2.13.0"


@pytest.mark.parametrize(
    ("installed", "index"),
    [
        ("7.1.1", "rocm6.4"),
        ("6.4.0", "rocm6.4"),
        ("6.3.2", "rocm6.4"),
        ("6.2.4", "rocm6.2"),
        ("6.1.0", "rocm6.1"),
        ("6.0.2", "rocm6.0"),
        (None, "rocm6.4"),
    ],
)
def test_amd_takes_the_index_of_the_documents_table(machine, installed, index):
    chosen = choose_torch.choose("auto", False, machine("kfd", rocm=installed))
    assert chosen.endswith(f"--index-url https://download.pytorch.org/whl/{index}")


@pytest.mark.parametrize(("version", "has"), [("2.13.0", True), ("2.9.1", True), ("2.6.0", False), ("2.4.1", False)])
def test_old_builds_go_without_the_demo(version, has):
    assert choose_torch.has_muon(version) is has


def test_the_extras_allow_every_build_that_can_be_chosen():
    extras = tomllib.loads((PATH.parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    lowest = min(tuple(map(int, version.split("."))) for _, version in choose_torch.ROCM.values())
    for name in ("trainer", "merger", "gguf-converter", "evaluator"):
        [torch] = [line for line in extras[name] if line.startswith("torch")]
        assert tuple(map(int, torch.partition(">=")[2].split("."))) <= lowest, name


def test_an_old_rocm_is_refused(machine):
    with pytest.raises(SystemExit, match="too old"):
        choose_torch.choose("rocm", False, machine("kfd", rocm="5.7.0"))


def test_a_variable_overrides_what_is_there(machine):
    assert choose_torch.choose("cpu", False, machine("nvidiactl")) == CPU_INDEX
    assert choose_torch.choose("cuda", False, machine()) == "torch==2.13.0"
    with pytest.raises(SystemExit, match="not one of"):
        choose_torch.choose("tpu", False, machine())
