from pathlib import Path

import pytest

from cutoff.errors import NotFound, Refused
from cutoff.llama_cpp import LlamaCpp, pinned_version

PROGRAMS = ("llama-quantize", "llama-server", "llama-imatrix")


def build(folder: Path, programs: tuple[str, ...] = PROGRAMS, place: str = "bin", version: str = "") -> Path:
    (folder / place).mkdir(parents=True)
    (folder / "convert_hf_to_gguf.py").touch()
    for name in programs:
        (folder / place / name).touch(mode=0o755)
    if version:
        (folder / "VERSION").write_text(f"{version}\n")
    return folder


@pytest.fixture(autouse=True)
def no_named_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUTOFF_LLAMA_CPP", raising=False)
    monkeypatch.delenv("CUTOFF_LLAMA_CPP_PATHS", raising=False)


def pinned(cache: Path, backend: str = "cpu") -> Path:
    name = f"{pinned_version()}-{backend}"
    return build(cache / "llama.cpp" / name, version=name)


def test_the_pinned_build_is_found_by_its_version(tmp_path: Path) -> None:
    folder = pinned(tmp_path)
    llama = LlamaCpp.find(tmp_path)
    assert llama.quantize == folder / "bin/llama-quantize"
    assert llama.server == folder / "bin/llama-server"
    assert llama.version() == f"{pinned_version()}-cpu"


def test_a_build_for_a_gpu_goes_before_the_one_for_the_cpu(tmp_path: Path) -> None:
    pinned(tmp_path)
    cuda = pinned(tmp_path, "cuda")
    assert LlamaCpp.find(tmp_path).folder == cuda


def test_a_build_that_was_not_finished_is_not_used(tmp_path: Path) -> None:
    (pinned(tmp_path) / "VERSION").unlink()
    with pytest.raises(NotFound) as caught:
        LlamaCpp.find(tmp_path)
    assert "make llama-cpp" in caught.value.remedy


def test_the_variable_names_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build(tmp_path / "image")
    monkeypatch.setenv("CUTOFF_LLAMA_CPP", str(folder))
    assert LlamaCpp.find(tmp_path / "no-cache").folder == folder
    monkeypatch.setenv("CUTOFF_LLAMA_CPP", str(tmp_path / "nowhere"))
    with pytest.raises(NotFound, match="CUTOFF_LLAMA_CPP"):
        LlamaCpp.find(tmp_path)


@pytest.mark.parametrize("place", ["build/bin", "bin", "."])
def test_a_checkout_of_the_users_own_is_used_as_it_is(tmp_path: Path, place: str) -> None:
    folder = build(tmp_path / "own", place=place)
    llama = LlamaCpp.find(tmp_path / "no-cache", folder)
    assert llama.quantize == folder / place / "llama-quantize"
    assert llama.convert_script == folder / "convert_hf_to_gguf.py"


def test_a_checkout_without_a_server_borrows_the_pinned_one(tmp_path: Path) -> None:
    own = build(tmp_path / "own", ("llama-quantize",))
    with pytest.raises(NotFound, match="pinned"):
        LlamaCpp.find(tmp_path, own)
    folder = pinned(tmp_path)
    llama = LlamaCpp.find(tmp_path, own)
    assert (llama.folder, llama.server) == (own, folder / "bin/llama-server")
    assert llama.imatrix == folder / "bin/llama-imatrix"


@pytest.mark.parametrize("missing", ["folder", "convert_hf_to_gguf.py", "llama-quantize"])
def test_what_a_checkout_lacks_is_named(tmp_path: Path, missing: str) -> None:
    own = build(tmp_path / "own", tuple(name for name in PROGRAMS if name != missing))
    if missing == "folder":
        own = tmp_path / "elsewhere"
    elif missing.endswith(".py"):
        (own / missing).unlink()
    with pytest.raises(NotFound) as caught:
        LlamaCpp.find(tmp_path, own)
    assert str(own) in caught.value.message
    assert missing == "folder" or missing in caught.value.message
    assert caught.value.remedy


def test_a_program_that_cannot_be_run_does_not_count(tmp_path: Path) -> None:
    own = build(tmp_path / "own")
    (own / "bin/llama-quantize").chmod(0o644)
    with pytest.raises(NotFound, match="llama-quantize"):
        LlamaCpp.find(tmp_path, own)


def test_a_job_names_only_what_the_operator_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = build(tmp_path / "allowed/own")
    with pytest.raises(Refused, match="may not execute") as caught:
        LlamaCpp.of_job(tmp_path, str(own))
    assert "CUTOFF_LLAMA_CPP_PATHS" in caught.value.remedy
    monkeypatch.setenv("CUTOFF_LLAMA_CPP_PATHS", f"{tmp_path / 'other'}:{tmp_path / 'allowed'}")
    assert LlamaCpp.of_job(tmp_path, str(own)).folder == own
    outside = build(tmp_path / "outside")
    (tmp_path / "allowed/link").symlink_to(outside)
    for way_out in ("outside", "allowed/../outside", "allowed/link", "allowed2"):
        with pytest.raises(Refused):
            LlamaCpp.of_job(tmp_path, str(tmp_path / way_out))


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_job_that_names_none_gets_the_pinned_build(tmp_path: Path, nothing: str | None) -> None:
    folder = pinned(tmp_path)
    assert LlamaCpp.of_job(tmp_path, nothing).folder == folder
