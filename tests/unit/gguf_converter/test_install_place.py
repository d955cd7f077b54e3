"""Sharing, copying, and whose the file is, on real file systems."""

import errno
import os
from pathlib import Path

import pytest

from cutoff.artifacts import disk as disk_module
from cutoff.artifacts import sha256_of
from cutoff.errors import CheckFailed, DiskFull
from cutoff.gguf_converter import install_place
from cutoff.gguf_converter.install import install_gguf
from cutoff.gguf_converter.install_place import match, place
from cutoff.spec import InstallSpec
from cutoff.stage.report import silent
from tests.fixtures.gguf_files import write_gguf

CONTENT = b"GGUF" + bytes(range(256)) * 64


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "artifact.gguf"
    path.write_bytes(CONTENT)
    path.chmod(0o644)
    return path


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    folder.chmod(0o755)
    return folder


@pytest.fixture
def no_reflinks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on ext4, wherever the tests run."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(install_place.fcntl, "ioctl", refuse)


def install(source: Path, models: Path) -> tuple[str, Path]:
    target = models / "model.gguf"
    return place(source, target, sha256_of(source), models, silent(), immutable=True), target


def test_what_is_already_as_it_should_be_shares_its_content(no_reflinks: None, source: Path, models: Path) -> None:
    before = source.stat()
    how, target = install(source, models)
    assert how == "hard link"
    assert target.stat().st_ino == before.st_ino
    assert not target.is_symlink()
    after = source.stat()
    assert (after.st_mode, after.st_uid, after.st_gid, after.st_mtime_ns) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
        before.st_mtime_ns,
    )


def test_a_file_that_may_change_is_copied(no_reflinks: None, source: Path, models: Path) -> None:
    assert place(source, models / "x", sha256_of(source), models, silent()) == "copy"
    assert (models / "x").stat().st_ino != source.stat().st_ino


@pytest.mark.parametrize(("folder", "file"), [(0o755, 0o644), (0o775, 0o664), (0o750, 0o640), (0o700, 0o600)])
def test_the_mode_is_the_models_folders_and_the_artifact_keeps_its_own(
    no_reflinks: None, source: Path, models: Path, folder: int, file: int
) -> None:
    models.chmod(folder)
    source.chmod(0o666)
    how, target = install(source, models)
    assert how == "copy"
    assert target.stat().st_mode & 0o777 == file
    assert source.stat().st_mode & 0o777 == 0o666
    assert target.read_bytes() == CONTENT


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_is_the_models_folders(no_reflinks: None, source: Path, models: Path) -> None:
    os.chown(models, 12345, 23456)
    how, target = install(source, models)
    assert how == "copy", "a hard link would give the artifact away, too"
    assert (target.stat().st_uid, target.stat().st_gid) == (12345, 23456)
    assert source.stat().st_uid == 0
    folder = models / "publisher"
    folder.mkdir()
    match(folder, models)
    assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (12345, 0o755)


def test_who_may_not_give_a_file_away_lets_the_owner_of_the_folder_read_it(
    source: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    models.chmod(0o700)
    source.chmod(0o600)
    match(source, models)
    assert source.stat().st_mode & 0o777 == 0o600, "it is the same owner"
    real = Path.stat

    def stat(path: Path, **options: bool) -> os.stat_result:
        found = list(real(path, **options))
        found[4] += path == models  # the user id
        return os.stat_result(found)

    monkeypatch.setattr(Path, "stat", stat)
    match(source, models)
    assert source.stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_another_file_system_gets_a_copy(source: Path, tmp_path: Path) -> None:
    models = Path("/dev/shm") / tmp_path.name
    models.mkdir(mode=0o755)
    try:
        how, target = install(source, models)
        assert how == "copy"
        assert target.read_bytes() == CONTENT
    finally:
        for path in models.iterdir():
            path.unlink()
        models.rmdir()


def test_a_reflink_is_a_file_of_its_own(btrfs: Path) -> None:
    source, models = btrfs / "artifact.gguf", btrfs / "models"
    source.write_bytes(CONTENT * 64)
    models.mkdir(mode=0o750)
    models.chmod(0o750)
    how, target = install(source, models)
    assert how == "reflink"
    assert target.stat().st_ino != source.stat().st_ino
    assert target.stat().st_mode & 0o777 == 0o640
    with target.open("r+b") as file:
        file.write(b"changed")
    assert source.read_bytes() == CONTENT * 64


def test_two_file_systems_with_reflinks_share_none(btrfs: Path, source: Path) -> None:
    models = btrfs / "models"
    models.mkdir(mode=0o755)
    how, target = install(source, models)
    assert how == "copy"
    assert target.read_bytes() == CONTENT


def test_a_disk_that_fills_half_way_is_named_and_keeps_nothing(
    small_tmpfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf = write_gguf(tmp_path / "large.gguf", rows=2000)
    monkeypatch.setattr(install_place, "require_space", lambda *_: None)  # somebody else filled it meanwhile
    spec = InstallSpec(publisher="local", model_name="temporal")
    with pytest.raises(DiskFull, match="is full"):
        install_gguf(gguf, "q4_k_m", small_tmpfs, spec, tmp_path / "records", silent())
    assert [path for path in small_tmpfs.rglob("*") if path.is_file()] == []


def test_a_file_system_without_reflinks_leaves_nothing_of_the_try(
    no_reflinks: None, source: Path, models: Path
) -> None:
    assert not install_place._reflink(source, models / "x")
    assert list(models.iterdir()) == []


def test_a_content_that_is_not_what_was_asked_for_is_blamed_on_the_artifact(source: Path, models: Path) -> None:
    with pytest.raises(CheckFailed, match=r"artifact\.gguf is not the file"):
        place(source, models / "x", "0" * 64, models, silent())


def test_what_the_disk_does_not_hold_is_blamed_on_the_disk(
    no_reflinks: None, source: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = sha256_of(source)
    source.chmod(0o666)  # a copy
    monkeypatch.setattr(install_place, "sha256_of", lambda path: "broken" if path != source else wanted)
    with pytest.raises(CheckFailed, match="check that disk"):
        place(source, models / "x", wanted, models, silent())


def test_a_full_disk_is_refused_before_a_copy_is_begun(
    no_reflinks: None, source: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.chmod(0o666)
    monkeypatch.setattr(disk_module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(DiskFull, match="GiB"):
        install(source, models)
    assert list(models.iterdir()) == []
