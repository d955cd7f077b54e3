"""Publishing by rename, roots that cannot be left, room on the disk."""

import errno
import hashlib
import json
import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutoff.artifacts import (
    Roots,
    attempt_folder,
    describe,
    inside,
    publishing,
    publishing_folder,
    require_space,
    sweep_partials,
)
from cutoff.errors import AlreadyExists, DiskFull, InvalidInput


def test_a_file_appears_complete_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "model.gguf"
    with publishing(path) as partial:
        partial.write_bytes(b"all of it")
        assert not path.exists()
    assert path.read_bytes() == b"all of it"
    assert [p.name for p in path.parent.iterdir()] == ["model.gguf"]


def write_for_ever(path, begun, killed):
    """Another process' writer; it is killed, or ends when told to."""
    with publishing(path) as partial:
        partial.write_text("theirs")
        begun.set()
        killed.wait()


@pytest.fixture
def other_writer(tmp_path):
    """A process that is in the middle of writing model.gguf, and what lets it go on."""
    methods = multiprocessing.get_context("spawn")
    begun, go_on = methods.Event(), methods.Event()
    process = methods.Process(target=write_for_ever, args=(tmp_path / "model.gguf", begun, go_on))
    process.start()
    assert begun.wait(60)
    yield process, go_on
    process.kill()
    process.join()


def test_two_processes_write_one_file_each_in_a_place_of_its_own(tmp_path, other_writer):
    process, go_on = other_writer
    path = tmp_path / "model.gguf"
    with publishing(path) as partial:
        partial.write_text("ours")
        assert len(list(tmp_path.glob(".model.gguf.*.partial"))) == 2
    assert path.read_text() == "ours"
    go_on.set()
    process.join(60)
    assert process.exitcode == 0
    assert path.read_text() == "theirs"  # whole, and the last
    assert [p.name for p in tmp_path.iterdir()] == ["model.gguf"]


def test_what_a_killed_writer_of_a_file_left_goes_with_the_next_one(tmp_path, other_writer):
    process, _ = other_writer
    process.kill()
    process.join()
    assert list(tmp_path.glob(".model.gguf.*.partial"))
    with publishing(tmp_path / "model.gguf") as partial:
        partial.write_text("ours")
    assert [p.name for p in tmp_path.iterdir()] == ["model.gguf"]


def test_a_link_in_the_place_of_a_leftover_is_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data").write_text("kept")
    (tmp_path / ".model.gguf.00000000.partial").symlink_to(precious)
    (tmp_path / ".model.gguf.11111111.partial").write_text("a file")
    with publishing(tmp_path / "model.gguf") as partial:
        partial.write_text("ours")
    assert (precious / "data").read_text() == "kept"
    sweep_partials(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.gguf", "precious"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), publishing(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


@pytest.fixture(params=["links", "no links"])
def links(request, monkeypatch):
    """A file system that knows hard links, and one that does not."""

    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    if request.param == "no links":
        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("links")
def test_a_file_that_came_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "model.gguf"
    with pytest.raises(AlreadyExists, match="meanwhile"), publishing(path, replace=False) as partial:
        partial.write_text("ours")
        path.write_text("theirs")
    assert path.read_text() == "theirs"
    assert [p.name for p in tmp_path.iterdir()] == ["model.gguf"]


@pytest.mark.usefixtures("links")
def test_a_file_that_replaces_nothing_appears_complete(tmp_path):
    path = tmp_path / "model.gguf"
    with publishing(path, replace=False) as partial:
        partial.write_text("ours")
        assert not path.exists()
    assert path.read_text() == "ours"
    assert [p.name for p in tmp_path.iterdir()] == ["model.gguf"]


def test_a_folder_appears_with_its_manifest(tmp_path):
    path = tmp_path / "merged"
    with publishing_folder(path) as partial:
        (partial / "sub").mkdir()
        (partial / "sub" / "a.txt").write_text("hello")
        assert not path.exists()
    manifest = json.loads((path / "manifest.json").read_text())
    digest = hashlib.sha256(b"hello").hexdigest()
    assert manifest == {"files": {"sub/a.txt": {"size_bytes": 5, "sha256": digest}}}
    published = describe(path)
    assert published.size_bytes == 5
    assert published.sha256 == hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()


def test_a_published_folder_is_never_replaced(tmp_path):
    path = tmp_path / "final"
    path.mkdir()
    with pytest.raises(AlreadyExists), publishing_folder(path):
        pass


def test_a_failed_folder_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), publishing_folder(tmp_path / "merged") as partial:
        (partial / "a").write_text("x")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_the_sweep_takes_only_partials(tmp_path):
    (tmp_path / ".merged.partial").mkdir()
    (tmp_path / ".merged.partial" / "x").write_text("half")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".a.gguf.partial").write_text("half")
    (tmp_path / "deep" / "a.gguf").write_text("whole")
    assert len(sweep_partials(tmp_path)) == 2
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.gguf", "deep"]


HOSTILE = ["../x", "a/../../x", "/etc/passwd", "a/\0b", "..", "a/../../../etc/passwd", "link/x"]


@pytest.mark.parametrize("path", HOSTILE)
def test_paths_cannot_leave_their_root(tmp_path, path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    with pytest.raises(InvalidInput):
        inside(tmp_path / "root", path)


def test_an_absolute_path_below_the_root_is_fine(tmp_path):
    assert inside(tmp_path, str(tmp_path / "a.jsonl")) == tmp_path.resolve() / "a.jsonl"


@given(st.text(min_size=1, max_size=20))
def test_whatever_the_text_the_path_stays_inside(text):
    root = Path("/srv/cutoff/datasets")
    try:
        path = inside(root, text)
    except InvalidInput:
        return
    assert path.is_relative_to(root)


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a\\b", "a\0"])
def test_attempt_folders_take_plain_names_only(tmp_path, name):
    with pytest.raises(InvalidInput):
        attempt_folder(tmp_path, name, "train", 1)
    with pytest.raises(InvalidInput):
        attempt_folder(tmp_path, "job", name, 1)


def test_too_little_room_is_refused_with_the_shortfall(tmp_path):
    with pytest.raises(DiskFull, match=r"needs \d+\.\d\d GiB"):
        require_space(tmp_path / "not" / "yet", 1 << 60, "merging")
    require_space(tmp_path, 1, "a byte")


def test_roots_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("CUTOFF_DATASETS", "CUTOFF_ARTIFACTS", "LMSTUDIO_MODELS", "CUTOFF_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    roots = Roots.from_environment()
    assert roots == Roots(
        tmp_path / "datasets", tmp_path / "output", Path("/mnt/data/lmstudio/models"), tmp_path / ".cache/cutoff"
    )
    monkeypatch.setenv("LMSTUDIO_MODELS", "~/models")
    assert Roots.from_environment().models == tmp_path / "models"


def test_a_second_writer_of_a_folder_leaves_the_first_alone(tmp_path):
    path = tmp_path / "merged"
    with publishing_folder(path) as partial:
        (partial / "a").write_text("first")
        with pytest.raises(AlreadyExists, match="is being written by another run"), publishing_folder(path):
            pass
        (partial / "b").write_text("first")
    assert sorted(p.name for p in path.iterdir()) == ["a", "b", "manifest.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["merged"]


def test_what_a_killed_writer_of_a_folder_left_is_cleared(tmp_path):
    (tmp_path / ".merged.partial" / "deep").mkdir(parents=True)
    (tmp_path / ".merged.partial" / "deep" / "half").write_text("half")
    with publishing_folder(tmp_path / "merged") as partial:
        (partial / "a").write_text("whole")
    assert sorted(p.name for p in (tmp_path / "merged").iterdir()) == ["a", "manifest.json"]


def test_a_folder_that_came_meanwhile_is_named(tmp_path):
    path = tmp_path / "merged"
    with pytest.raises(AlreadyExists), publishing_folder(path):
        path.mkdir()
        (path / "theirs").write_text("x")
    assert [p.name for p in tmp_path.rglob("*")] == ["merged", "theirs"]
