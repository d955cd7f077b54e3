import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from cutoff.artifacts import Roots, sha256_of
from cutoff.artifacts import disk as disk_module
from cutoff.errors import AlreadyExists, CheckFailed, DiskFull, InvalidInput, NotFound, Refused
from cutoff.gguf_converter import install as install_module
from cutoff.gguf_converter.install import RECORDS, Installed, check_folder, check_install, install_gguf, install_spec
from cutoff.gguf_converter.service import GgufConverterServicer
from cutoff.spec import InstallSpec
from cutoff.stage.report import Reporter, silent
from cutoff.v1 import gguf_converter_pb2, job_pb2, types_pb2
from tests.fixtures.gguf_files import write_gguf

SPEC = InstallSpec(publisher="local", model_name="temporal")

Install = Callable[..., Installed]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "lm" / "models"


@pytest.fixture
def install(tmp_path: Path, models: Path) -> Install:
    def run(seed: int = 0, quant_type: str = "q4_k_m", report: Reporter | None = None, sha256: str = "") -> Installed:
        gguf = write_gguf(tmp_path / f"job-{seed}.gguf", seed)
        return install_gguf(gguf, quant_type, models, SPEC, tmp_path / "records", report or silent(), sha256)

    return run


def tree(models: Path) -> list[str]:
    return sorted(str(path.relative_to(models)) for path in models.rglob("*") if not path.is_dir())


def test_lm_studio_finds_exactly_one_file_that_everyone_may_read(models: Path, install: Install) -> None:
    old = os.umask(0o077)
    try:
        installed = install()
    finally:
        os.umask(old)
    assert tree(models) == ["local/temporal/temporal-Q4_K_M.gguf"]
    path = models / "local/temporal/temporal-Q4_K_M.gguf"
    assert installed.file.path == path
    assert installed.file.sha256 == sha256_of(path)
    assert path.stat().st_mode & 0o777 == 0o644
    assert not path.is_symlink()
    assert (models / "local").stat().st_mode & 0o777 == 0o755


def test_the_same_file_again_changes_nothing(models: Path, install: Install) -> None:
    first = install()
    before = first.file.path.stat()
    second = install()
    assert (first.changed, second.changed) == (True, False)
    assert second.file == first.file
    assert (first.file.path.stat().st_ino, first.file.path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_what_cutoff_installed_before_is_replaced(models: Path, install: Install) -> None:
    first = install(seed=1)
    second = install(seed=2)
    assert tree(models) == ["local/temporal/temporal-Q4_K_M.gguf"]
    assert first.file.sha256 != second.file.sha256 == sha256_of(second.file.path)


def test_another_type_takes_the_place_of_the_first(models: Path, install: Install) -> None:
    install(seed=1, quant_type="q4_k_m")
    install(seed=2, quant_type="q8_0")
    assert tree(models) == ["local/temporal/temporal-Q8_0.gguf"]
    install(seed=1, quant_type="q4_k_m")
    assert tree(models) == ["local/temporal/temporal-Q4_K_M.gguf"]


@pytest.mark.parametrize("name", ["temporal-Q4_K_M.gguf", "mine.gguf", "MINE.GGUF"])
def test_a_file_of_somebody_elses_is_never_touched(tmp_path: Path, models: Path, install: Install, name: str) -> None:
    foreign = write_gguf(models / "local/temporal" / name, seed=9)
    content = foreign.read_bytes()
    with pytest.raises(AlreadyExists, match=name) as caught:
        install()
    assert "--model_name" in caught.value.remedy
    with pytest.raises(AlreadyExists):
        check_folder(models, SPEC, tmp_path / "records")
    assert tree(models) == [f"local/temporal/{name}"]
    assert foreign.read_bytes() == content


def test_a_file_that_was_changed_since_is_the_users(models: Path, install: Install) -> None:
    path = install(seed=1).file.path
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(1, 1))
    with pytest.raises(AlreadyExists, match="changed since"):
        install(seed=2)
    assert path.read_bytes() == bytes(data)


def test_a_file_that_was_only_touched_is_still_ours(models: Path, install: Install) -> None:
    path = install(seed=1).file.path
    os.utime(path, ns=(1, 1))
    assert install(seed=2).changed
    assert tree(models) == ["local/temporal/temporal-Q4_K_M.gguf"]


def test_a_symbolic_link_is_nothing_cutoff_installed(tmp_path: Path, models: Path, install: Install) -> None:
    path = install(seed=1).file.path
    path.rename(tmp_path / "moved.gguf")
    path.symlink_to(tmp_path / "moved.gguf")
    with pytest.raises(AlreadyExists):
        install(seed=2)
    assert path.is_symlink()


def test_a_damaged_file_is_not_installed(tmp_path: Path, models: Path) -> None:
    gguf = write_gguf(tmp_path / "cut.gguf")
    gguf.write_bytes(gguf.read_bytes()[:-100])
    with pytest.raises(CheckFailed):
        install_gguf(gguf, "q4_k_m", models, SPEC, tmp_path / "records", silent())
    assert not models.exists()


def test_another_file_than_the_one_that_was_evaluated_is_not_installed(models: Path, install: Install) -> None:
    with pytest.raises(CheckFailed, match="SHA-256"):
        install(sha256="0" * 64)
    assert tree(models) == []


def test_a_copy_that_differs_is_not_installed(models: Path, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        install_module, "sha256_of", lambda path: "broken" if "partial" in path.name else sha256_of(path)
    )
    with pytest.raises(CheckFailed, match="check that disk"):
        install()
    assert tree(models) == []


def interrupting(at: str) -> Reporter:
    """A reporter whose listener is interrupted at a phase, as a cancelled run is."""

    def sink(event: types_pb2.Event) -> None:
        if event.progress.phase == at:
            raise KeyboardInterrupt

    return Reporter(sink)


def test_an_interrupted_installation_leaves_what_was_there(models: Path, install: Install) -> None:
    first = install(seed=1)
    with pytest.raises(KeyboardInterrupt):
        install(seed=2, report=interrupting("installing"))
    assert tree(models) == ["local/temporal/temporal-Q4_K_M.gguf"]
    assert sha256_of(first.file.path) == first.file.sha256
    assert install(seed=2).changed


def test_a_run_that_was_killed_can_be_repeated(models: Path, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the rename of a second type, before the first was removed; and with half a copy left."""
    install(seed=1, quant_type="q4_k_m")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
        install(seed=2, quant_type="q8_0")
    (models / "local/temporal/.temporal-Q6_K.gguf.partial").write_bytes(b"half")
    assert len(tree(models)) == 3
    install(seed=2, quant_type="q8_0")
    assert tree(models) == ["local/temporal/temporal-Q8_0.gguf"]


def test_an_attempt_that_no_longer_counts_is_stopped_before_the_rename(tmp_path: Path, models: Path) -> None:
    def fenced() -> None:
        assert tree(models) == ["local/temporal/.temporal-Q4_K_M.gguf.partial"]
        raise Refused("another attempt counts")

    gguf = write_gguf(tmp_path / "a.gguf")
    with pytest.raises(Refused, match="another attempt"):
        install_gguf(gguf, "q4_k_m", models, SPEC, tmp_path / "records", silent(), still_counts=fenced)
    assert tree(models) == []


def test_a_full_disk_is_refused_before_anything_is_written(
    models: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(disk_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DiskFull, match="GiB"):
        install()
    assert tree(models) == []


def test_checking_writes_nothing_and_says_the_folder(tmp_path: Path, models: Path) -> None:
    assert check_folder(models, SPEC, tmp_path / "records") == models / "local/temporal"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, models: Path) -> None:
    models.parent.write_text("a file")
    with pytest.raises(Refused, match="not a folder") as caught:
        check_folder(models, SPEC, tmp_path / "records")
    assert "LMSTUDIO_MODELS" in caught.value.remedy


def test_a_folder_that_cannot_be_written_is_refused(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root, who may all
    with pytest.raises(Refused, match="cannot be written"):
        check_folder(models, SPEC, tmp_path / "records")


def test_the_service_checks_names_and_takes_defaults(tmp_path: Path) -> None:
    roots = Roots(tmp_path, tmp_path / "artifacts", tmp_path / "models", Roots.from_environment().cache)
    assert check_install(roots, job_pb2.InstallSpec()) == tmp_path / "models/local/temporal-unlearn"
    with pytest.raises(InvalidInput, match="model_name"):
        check_install(roots, job_pb2.InstallSpec(model_name="../../etc"))


def test_a_llama_cpp_that_was_not_built_is_noticed_before_a_job_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUTOFF_LLAMA_CPP", raising=False)
    monkeypatch.delenv("CUTOFF_LLAMA_CPP_PATHS", raising=False)
    roots = Roots(tmp_path, tmp_path / "artifacts", tmp_path / "models", tmp_path / "empty")
    with pytest.raises(NotFound, match=r"the pinned llama\.cpp") as caught:
        check_install(roots, job_pb2.InstallSpec())
    assert "make llama-cpp" in caught.value.remedy
    with pytest.raises(Refused, match="may not execute"):
        check_install(roots, job_pb2.InstallSpec(), "/somewhere/llama.cpp")


class KilledRuns:
    """Stands for Runs: a run that is killed in the middle of its copy."""

    def __init__(self, partial: Path) -> None:
        self.partial = partial

    async def run(self, request: Any, target: str) -> AsyncIterator[types_pb2.Event]:
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        self.partial.write_bytes(b"half")
        yield types_pb2.Event(failed=types_pb2.Failure(reason="KILLED"))


def ask_to_install(roots: Roots, runs: KilledRuns, model_name: str) -> None:
    async def main() -> None:
        servicer = GgufConverterServicer(runs, roots)  # type: ignore[arg-type]
        request = gguf_converter_pb2.InstallRequest(spec=job_pb2.InstallSpec(model_name=model_name))
        async for _ in servicer.Install(request, None):
            pass

    asyncio.run(main())


@pytest.fixture
def roots(tmp_path: Path, models: Path) -> Roots:
    (tmp_path / RECORDS).mkdir()
    return Roots(tmp_path, tmp_path, models, tmp_path)


def test_a_killed_installation_leaves_no_half_file(roots: Roots) -> None:
    runs = KilledRuns(roots.models / "local/temporal/.temporal-Q4_K_M.gguf.partial")
    ask_to_install(roots, runs, "temporal")
    assert tree(roots.models) == []


def test_the_half_file_of_another_installation_under_way_stays(roots: Roots) -> None:
    folder = roots.models / "local/temporal"
    runs = KilledRuns(folder / ".temporal-Q8_0.gguf.partial")
    with install_module._Record.locked(folder, roots.artifacts / RECORDS):
        ask_to_install(roots, runs, "temporal")
        assert runs.partial.read_bytes() == b"half"


def test_a_name_that_leaves_the_models_folder_never_reaches_a_run(roots: Roots) -> None:
    runs = KilledRuns(roots.models / "x")
    with pytest.raises(InvalidInput, match="model_name"):
        ask_to_install(roots, runs, "../../other")
    assert not runs.partial.exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "with space", "x" * 200])
def test_names_that_would_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="plain name"):
        install_spec("local", name)


def test_records_of_two_models_folders_are_kept_apart(tmp_path: Path, install: Install, models: Path) -> None:
    """A second LM Studio with a file of the same name: what was installed in the first says nothing about it."""
    install(seed=1)
    other = tmp_path / "other"
    write_gguf(other / "local/temporal/temporal-Q4_K_M.gguf", seed=1)
    with pytest.raises(AlreadyExists):
        install_gguf(tmp_path / "job-1.gguf", "q4_k_m", other, SPEC, tmp_path / "records", silent())
