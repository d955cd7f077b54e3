import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutoff.artifacts import Roots
from cutoff.errors import AlreadyExists, InvalidInput, NotFound, Refused
from cutoff.gguf_converter.install_checks import Wanted, check_folder, check_install, install_spec
from cutoff.spec import InstallSpec
from cutoff.v1 import gguf_converter_pb2, job_pb2
from tests.fixtures.gguf_files import write_gguf

SPEC = InstallSpec(publisher="local", model_name="temporal")
REPLACING = InstallSpec(publisher="local", model_name="temporal", replace=True)
WANTED = Wanted("q4_k_m")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "lm" / "models"


def asked(llama_cpp_path: str | None = None, **spec: object) -> gguf_converter_pb2.CheckInstallRequest:
    return gguf_converter_pb2.CheckInstallRequest(spec=job_pb2.InstallSpec(**spec), llama_cpp_path=llama_cpp_path)


def test_checking_writes_nothing_and_says_the_folder(tmp_path: Path, models: Path) -> None:
    assert check_folder(models, SPEC, WANTED, tmp_path / "records") == models / "local/temporal"
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_is_refused_before_any_work(tmp_path: Path, models: Path) -> None:
    """Both ways out are named; with install.replace there is nothing in the way."""
    write_gguf(models / "local/temporal/temporal-Q4_K_M.gguf")
    with pytest.raises(AlreadyExists, match="is there already") as caught:
        check_folder(models, SPEC, WANTED, tmp_path / "records")
    assert "install.replace: true (--replace)" in caught.value.remedy
    assert "install.model_name (--model_name)" in caught.value.remedy
    assert check_folder(models, REPLACING, WANTED, tmp_path / "records").is_dir()


def test_what_is_in_the_way_even_when_replacing_is_found_before_any_work(tmp_path: Path, models: Path) -> None:
    write_gguf(models / "local/temporal/mine.gguf")
    with pytest.raises(AlreadyExists, match=r"mine\.gguf") as caught:
        check_folder(models, REPLACING, WANTED, tmp_path / "records")
    assert "move it away" in caught.value.remedy


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, models: Path) -> None:
    models.parent.write_text("a file")
    with pytest.raises(Refused, match="not a folder") as caught:
        check_folder(models, SPEC, WANTED, tmp_path / "records")
    assert "LMSTUDIO_MODELS" in caught.value.remedy


def test_a_folder_that_cannot_be_written_is_refused(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root, who may all
    with pytest.raises(Refused, match="cannot be written"):
        check_folder(models, SPEC, WANTED, tmp_path / "records")


def test_the_service_checks_names_and_takes_defaults(tmp_path: Path) -> None:
    roots = Roots(tmp_path, tmp_path / "artifacts", tmp_path / "models", Roots.from_environment().cache)
    assert check_install(roots, asked()) == tmp_path / "models/local/temporal-unlearn"
    with pytest.raises(InvalidInput, match="model_name"):
        check_install(roots, asked(model_name="../../etc"))


def test_a_llama_cpp_that_was_not_built_is_noticed_before_a_job_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUTOFF_LLAMA_CPP", raising=False)
    monkeypatch.delenv("CUTOFF_LLAMA_CPP_PATHS", raising=False)
    roots = Roots(tmp_path, tmp_path / "artifacts", tmp_path / "models", tmp_path / "empty")
    with pytest.raises(NotFound, match=r"the pinned llama\.cpp") as caught:
        check_install(roots, asked())
    assert "make llama-cpp" in caught.value.remedy
    with pytest.raises(Refused, match="may not execute"):
        check_install(roots, asked("/somewhere/llama.cpp"))


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "with space", "x" * 200])
def test_names_that_would_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="plain name"):
        install_spec("local", name)


@given(st.text(max_size=12), st.text(max_size=12))
def test_whatever_names_are_asked_for_nothing_leaves_the_models_folder(publisher: str, model_name: str) -> None:
    try:
        spec = install_spec(publisher, model_name)
    except InvalidInput:
        return
    models = Path(tempfile.gettempdir()) / "no-such-folder"
    folder = check_folder(models, spec, WANTED, models / "records")
    assert Path(os.path.normpath(folder)) == models / publisher / model_name
