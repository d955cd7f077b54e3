import asyncio
import os
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cutoff.artifacts import Roots, sha256_of
from cutoff.errors import AlreadyExists, CheckFailed, InvalidInput, Refused
from cutoff.gguf_converter import install_place
from cutoff.gguf_converter.install import Installed, install_gguf, uninstall_gguf
from cutoff.gguf_converter.install_lock import alone_in
from cutoff.gguf_converter.install_records import RECORDS, Record
from cutoff.gguf_converter.service import GgufConverterServicer
from cutoff.spec import InstallSpec
from cutoff.stage.report import Reporter, silent
from cutoff.v1 import gguf_converter_pb2, job_pb2, types_pb2
from tests.fixtures.gguf_files import write_gguf

SPEC = InstallSpec(publisher="local", model_name="temporal")
REPLACING = InstallSpec(publisher="local", model_name="temporal", replace=True)

Install = Callable[..., Installed]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "lm" / "models"


@pytest.fixture
def install(tmp_path: Path, models: Path) -> Install:
    def run(
        seed: int = 0,
        quant_type: str = "q4_k_m",
        report: Reporter | None = None,
        sha256: str = "",
        spec: InstallSpec = REPLACING,
    ) -> Installed:
        gguf = tmp_path / f"job-{seed}.gguf"
        if not gguf.is_file():
            write_gguf(gguf, seed)
        records = tmp_path / "records"
        return install_gguf(gguf, quant_type, models, spec, records, report or silent(), sha256, immutable=True)

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
    first = install(spec=SPEC)
    before = first.file.path.stat()
    second = install(spec=SPEC)
    assert (first.changed, second.changed, second.how) == (True, False, None)
    assert second.file == first.file
    assert (first.file.path.stat().st_ino, first.file.path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_the_same_content_is_left_alone_whoever_put_it_there(models: Path, install: Install) -> None:
    mine = write_gguf(models / "local/temporal/temporal-Q4_K_M.gguf", seed=3)
    before = mine.stat()
    assert not install(seed=3, spec=SPEC).changed
    assert (mine.stat().st_ino, mine.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_other_content_stays_unless_it_is_to_be_replaced(models: Path, install: Install) -> None:
    first = install(seed=1)
    with pytest.raises(AlreadyExists, match=r"temporal-Q4_K_M\.gguf is there already") as caught:
        install(seed=2, spec=SPEC)
    assert "install.replace: true" in caught.value.remedy
    assert "install.model_name" in caught.value.remedy
    with pytest.raises(AlreadyExists, match=r"temporal-Q4_K_M\.gguf"):
        install(seed=1, quant_type="q8_0", spec=SPEC)
    assert tree(models) == ["local/temporal/temporal-Q4_K_M.gguf"]
    assert sha256_of(first.file.path) == first.file.sha256


def test_what_cutoff_installed_before_is_replaced(models: Path, install: Install) -> None:
    first = install(seed=1)
    second = install(seed=2)
    assert tree(models) == ["local/temporal/temporal-Q4_K_M.gguf"]
    assert first.file.sha256 != second.file.sha256 == sha256_of(second.file.path)


def test_a_users_own_file_shares_nothing_with_what_is_installed(tmp_path: Path, models: Path) -> None:
    """Whoever writes into output/temporal.gguf later must not write into LM Studio's model."""
    gguf = write_gguf(tmp_path / "temporal.gguf", seed=1)
    installed = install_gguf(gguf, "q4_k_m", models, SPEC, tmp_path / "records", silent())
    write_gguf(gguf, seed=2)
    assert sha256_of(installed.file.path) == installed.file.sha256


def test_another_type_takes_the_place_of_the_first(models: Path, install: Install) -> None:
    install(seed=1, quant_type="q4_k_m")
    install(seed=2, quant_type="q8_0")
    assert tree(models) == ["local/temporal/temporal-Q8_0.gguf"]
    install(seed=1, quant_type="q4_k_m")
    assert tree(models) == ["local/temporal/temporal-Q4_K_M.gguf"]


@pytest.mark.parametrize("name", ["temporal-Q8_0.gguf", "mine.gguf", "MINE.GGUF"])
@pytest.mark.parametrize("spec", [SPEC, REPLACING])
def test_a_file_of_somebody_elses_under_another_name_is_never_touched(
    models: Path, install: Install, name: str, spec: InstallSpec
) -> None:
    foreign = write_gguf(models / "local/temporal" / name, seed=9)
    content = foreign.read_bytes()
    with pytest.raises(AlreadyExists, match=name) as caught:
        install(spec=spec)
    assert "move it away" in caught.value.remedy
    assert tree(models) == [f"local/temporal/{name}"]
    assert foreign.read_bytes() == content


def test_a_file_of_somebody_elses_under_this_very_name_gives_way_when_it_is_to(models: Path, install: Install) -> None:
    foreign = write_gguf(models / "local/temporal/temporal-Q4_K_M.gguf", seed=9)
    with pytest.raises(AlreadyExists, match="not installed by cutoff") as caught:
        install(seed=1, spec=SPEC)
    assert "--replace" in caught.value.remedy
    installed = install(seed=1, spec=REPLACING)
    assert sha256_of(foreign) == installed.file.sha256


def test_a_folder_of_the_files_name_is_never_replaced(models: Path, install: Install) -> None:
    (models / "local/temporal/temporal-Q4_K_M.gguf").mkdir(parents=True)
    with pytest.raises(AlreadyExists, match="Q4_K_M"):
        install(spec=REPLACING)


def test_a_file_that_was_changed_since_is_the_users(models: Path, install: Install) -> None:
    path = install(seed=1).file.path
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(bytes(data))
    os.utime(path, ns=(1, 1))
    with pytest.raises(AlreadyExists, match="changed since"):
        install(seed=2, spec=SPEC)
    with pytest.raises(AlreadyExists, match="changed since"):
        install(seed=2, quant_type="q8_0", spec=REPLACING)
    assert path.read_bytes() == bytes(data)


def test_a_file_that_was_only_touched_is_still_ours(models: Path, install: Install) -> None:
    path = install(seed=1).file.path
    os.utime(path, ns=(1, 1))
    assert install(seed=2, quant_type="q8_0").changed
    assert tree(models) == ["local/temporal/temporal-Q8_0.gguf"]


def test_a_symbolic_link_is_replaced_itself_and_not_what_it_leads_to(
    tmp_path: Path, models: Path, install: Install
) -> None:
    path = install(seed=1).file.path
    path.rename(tmp_path / "moved.gguf")
    moved = (tmp_path / "moved.gguf").read_bytes()
    path.symlink_to(tmp_path / "moved.gguf")
    with pytest.raises(AlreadyExists):
        install(seed=1, spec=SPEC)
    assert path.is_symlink()
    install(seed=2, spec=REPLACING)
    assert not path.is_symlink()
    assert (tmp_path / "moved.gguf").read_bytes() == moved


@pytest.mark.parametrize("linked", ["local", "local/temporal"])
def test_a_symbolic_link_in_the_tree_leads_nowhere(tmp_path: Path, models: Path, install: Install, linked: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (models / linked).parent.mkdir(parents=True)
    (models / linked).symlink_to(elsewhere)
    with pytest.raises(Refused, match=f"symbolic link to {elsewhere}"):
        install()
    assert list(elsewhere.iterdir()) == []


def test_the_models_folder_itself_may_be_a_symbolic_link(tmp_path: Path, models: Path, install: Install) -> None:
    (tmp_path / "real").mkdir()
    models.parent.mkdir(parents=True)
    models.symlink_to(tmp_path / "real")
    assert install().file.path.is_file()


def test_a_link_that_waits_under_the_partial_name_is_not_followed(
    tmp_path: Path, models: Path, install: Install
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = models / "local/temporal"
    folder.mkdir(parents=True)
    (folder / ".temporal-Q4_K_M.gguf.partial").symlink_to(victim)
    install()
    assert victim.read_text() == "precious"
    assert tree(models) == ["local/temporal/temporal-Q4_K_M.gguf"]


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


def interrupting(at: str) -> Reporter:
    """A reporter whose listener is interrupted at a phase, as a cancelled run is."""

    def sink(event: types_pb2.Event) -> None:
        if event.progress.phase == at:
            raise KeyboardInterrupt

    return Reporter(sink)


def test_an_interrupted_installation_leaves_what_was_there(
    models: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = install(seed=1)
    monkeypatch.setattr(install_place, "looks", lambda *_: False)
    with pytest.raises(KeyboardInterrupt):
        install(seed=2, report=interrupting("installing"))
    assert tree(models) == ["local/temporal/temporal-Q4_K_M.gguf"]
    assert sha256_of(first.file.path) == first.file.sha256
    assert install(seed=2).changed


def test_a_run_that_was_killed_can_be_repeated(models: Path, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the rename of a second type, before the first was removed; and with half a copy left."""
    install(seed=1, quant_type="q4_k_m")
    real = Path.unlink
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda path, **how: None if path.suffix == ".gguf" else real(path, **how))
        install(seed=2, quant_type="q8_0")
    (models / "local/temporal/.temporal-Q6_K.gguf.partial").write_bytes(b"half")
    assert len(tree(models)) == 3
    install(seed=2, quant_type="q8_0")
    assert tree(models) == ["local/temporal/temporal-Q8_0.gguf"]


def test_a_replacement_that_was_killed_is_finished_by_whoever_asks_for_the_same_file(
    models: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files of cutoff's own are left by nothing else; a copy that the user made of one stays."""
    older = install(seed=1, quant_type="q4_k_m").file.path
    with monkeypatch.context() as patch:
        real = Path.unlink
        patch.setattr(Path, "unlink", lambda path, **how: None if path.suffix == ".gguf" else real(path, **how))
        install(seed=2, quant_type="q8_0")
    mine = older.with_name("mine.gguf")
    mine.write_bytes(older.read_bytes())
    with pytest.raises(AlreadyExists, match=r"mine\.gguf"):
        install(seed=2, quant_type="q8_0", spec=SPEC)
    mine.unlink()
    assert not install(seed=2, quant_type="q8_0", spec=SPEC).changed
    assert tree(models) == ["local/temporal/temporal-Q8_0.gguf"]


def test_an_attempt_that_no_longer_counts_is_stopped_before_the_rename(tmp_path: Path, models: Path) -> None:
    @contextmanager
    def fenced() -> Iterator[None]:
        (half,) = tree(models)
        assert re.fullmatch(
            r"local/temporal/\.temporal-Q4_K_M\.gguf\.\w{8}\.partial/temporal-Q4_K_M\.gguf\.partial", half
        )
        if not models.is_dir():
            yield
        raise Refused("another attempt counts")

    gguf = write_gguf(tmp_path / "a.gguf")
    with pytest.raises(Refused, match="another attempt"):
        install_gguf(gguf, "q4_k_m", models, SPEC, tmp_path / "records", silent(), still_counts=fenced)
    assert tree(models) == []


@pytest.mark.parametrize("name", ["temporal-Q4_K_M.gguf", "mine.gguf"])
@pytest.mark.parametrize("spec", [SPEC, REPLACING])
def test_what_a_user_puts_there_during_the_copy_stays(
    tmp_path: Path, models: Path, spec: InstallSpec, name: str
) -> None:
    """Only what has the new file's very name gives way, and only when it is to."""
    mine = models / "local/temporal" / name
    gguf = write_gguf(tmp_path / "a.gguf")

    @contextmanager
    def meanwhile() -> Iterator[None]:
        write_gguf(mine, seed=9)
        yield

    def install() -> None:
        install_gguf(gguf, "q4_k_m", models, spec, tmp_path / "records", silent(), still_counts=meanwhile)

    if spec.replace and name == "temporal-Q4_K_M.gguf":
        install()
        assert sha256_of(mine) == sha256_of(gguf)
        return
    with pytest.raises(AlreadyExists, match=name):
        install()
    assert tree(models) == [f"local/temporal/{name}"]
    assert sha256_of(mine) == sha256_of(write_gguf(tmp_path / "nine.gguf", seed=9))


def test_an_older_file_that_a_user_changes_at_the_last_moment_stays(
    models: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = install(seed=1, quant_type="q4_k_m").file.path
    real = Path.replace

    def renaming(path: Path, target: Path) -> Path:
        if target.suffix == ".gguf":
            older.unlink()
            write_gguf(older, seed=9)
        return real(path, target)

    monkeypatch.setattr(Path, "replace", renaming)
    install(seed=2, quant_type="q8_0")
    assert tree(models) == ["local/temporal/temporal-Q4_K_M.gguf", "local/temporal/temporal-Q8_0.gguf"]


@pytest.mark.parametrize("again", ["a", "b"])
def test_two_artifacts_roots_do_not_disturb_each_other_in_one_models_folder(
    tmp_path: Path, models: Path, again: str
) -> None:
    """A container and a command on the host: the second waits for the first, and takes nothing from under it."""
    ggufs = {name: write_gguf(tmp_path / f"{name}.gguf", seed) for seed, name in enumerate("ab")}
    second: list[Installed] = []

    def install(name: str, records: str, report: Reporter) -> Installed:
        return install_gguf(ggufs[name], "q4_k_m", models, REPLACING, tmp_path / records, report)

    other = threading.Thread(target=lambda: second.append(install(again, "records-2", silent())))

    def sink(event: types_pb2.Event) -> None:
        if event.progress.phase == "installing" and not other.ident:
            other.start()
            other.join(0.5)
            assert other.is_alive(), "it waits"

    first = install("a", "records-1", Reporter(sink))
    other.join(30)
    assert first.changed
    assert second[0].changed == (again == "b")
    assert tree(models) == ["local/temporal/temporal-Q4_K_M.gguf"]
    assert sha256_of(first.file.path) == second[0].file.sha256


def test_a_folder_that_is_uninstalled_while_another_root_waits_is_made_again(
    tmp_path: Path, models: Path, install: Install
) -> None:
    installed = install(seed=1)
    gguf = write_gguf(tmp_path / "b.gguf", seed=2)
    second: list[Installed] = []

    def other_root() -> None:
        second.append(install_gguf(gguf, "q4_k_m", models, SPEC, tmp_path / "records-2", silent()))

    waiting = threading.Thread(target=other_root)
    with alone_in(folder := installed.file.path.parent):
        installed.file.path.unlink()
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive(), "it waits"
        folder.rmdir()
    waiting.join(30)
    assert second[0].changed


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
    with Record.locked(folder, roots.artifacts / RECORDS):
        ask_to_install(roots, runs, "temporal")
        assert runs.partial.read_bytes() == b"half"


def test_a_name_that_leaves_the_models_folder_never_reaches_a_run(roots: Roots) -> None:
    runs = KilledRuns(roots.models / "x")
    with pytest.raises(InvalidInput, match="model_name"):
        ask_to_install(roots, runs, "../../other")
    assert not runs.partial.exists()


def test_records_of_two_models_folders_are_kept_apart(tmp_path: Path, install: Install, models: Path) -> None:
    """A second LM Studio with a file of the same name: what was installed in the first says nothing about it."""
    install(seed=1)
    other = tmp_path / "other"
    write_gguf(other / "local/temporal/temporal-Q4_K_M.gguf", seed=1)
    with pytest.raises(AlreadyExists, match="not installed by cutoff"):
        install_gguf(tmp_path / "job-1.gguf", "q8_0", other, REPLACING, tmp_path / "records", silent())


def test_uninstalling_removes_the_file_and_its_folder(tmp_path: Path, models: Path, install: Install) -> None:
    installed = install(seed=1)
    removed = uninstall_gguf(models, SPEC, tmp_path / "records", installed.file.sha256)
    assert removed == installed.file.path
    assert [path.name for path in (models / "local").iterdir()] == []
    assert uninstall_gguf(models, SPEC, tmp_path / "records", installed.file.sha256) is None
    assert install(seed=2, spec=SPEC).changed, "the name is free again"


def test_uninstalling_leaves_what_others_put_there(tmp_path: Path, models: Path, install: Install) -> None:
    installed = install(seed=1)
    (models / "local/temporal/notes.txt").write_text("mine")
    uninstall_gguf(models, SPEC, tmp_path / "records", installed.file.sha256)
    assert tree(models) == ["local/temporal/notes.txt"]


def test_uninstalling_what_another_job_replaced_changes_nothing(tmp_path: Path, models: Path, install: Install) -> None:
    first = install(seed=1)
    second = install(seed=2)
    assert uninstall_gguf(models, SPEC, tmp_path / "records", first.file.sha256) is None
    assert second.file.path.is_file()


def test_uninstalling_a_file_that_was_changed_since_is_refused(tmp_path: Path, models: Path, install: Install) -> None:
    installed = install(seed=1)
    installed.file.path.unlink()
    write_gguf(installed.file.path, seed=9)
    with pytest.raises(Refused, match="changed since"):
        uninstall_gguf(models, SPEC, tmp_path / "records", installed.file.sha256)
    assert installed.file.path.is_file()


def test_the_artifact_stays_when_its_installed_file_goes(tmp_path: Path, models: Path, install: Install) -> None:
    installed = install(seed=1)
    uninstall_gguf(models, SPEC, tmp_path / "records", installed.file.sha256)
    assert sha256_of(tmp_path / "job-1.gguf") == installed.file.sha256
