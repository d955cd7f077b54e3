"""Against a real HTTP server that speaks the hub's protocol (tests/fixtures/hub_server.py)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download

from cutoff.errors import CheckFailed, CutoffError, DiskFull, InvalidInput, NotFound, Refused, Unavailable
from cutoff.hub import BaseModel, resolve_base_model
from cutoff.hub import download as downloading
from cutoff.hub import fetch as fetching
from cutoff.hub.snapshot import Snapshot
from tests.fixtures.hub_server import STRANGER, TOKEN, Hub, commit_of, model_files, safetensors

ID = "owner/model"
MIB = 1 << 20


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "_PAUSE", 0.0)


def weights_of(model: BaseModel) -> bytes:
    return (model.path / "model.safetensors").read_bytes()


def test_a_model_is_resolved_to_a_commit_and_fetched_once(hub: Hub) -> None:
    commit = hub.add(ID, model_files())
    model = resolve_base_model(ID)
    assert (model.name, model.revision, model.path.name) == (ID, commit, commit)
    assert weights_of(model) == safetensors(1000)
    fetched = len(hub.asked("cdn"))
    assert resolve_base_model(ID) == model
    assert len(hub.asked("cdn")) == fetched == 1


def test_a_branch_that_moves_is_fetched_anew_and_a_commit_asks_nobody(hub: Hub) -> None:
    first = hub.add(ID, model_files())
    resolve_base_model(ID)
    second = hub.add(ID, model_files(2000))
    assert resolve_base_model(ID).revision == second
    before = len(hub.requests)
    again = resolve_base_model(f"{ID}@{first}")
    assert (again.revision, weights_of(again)) == (first, safetensors(1000))
    assert len(hub.requests) == before


def test_every_megabyte_of_a_large_file_is_progress(hub: Hub) -> None:
    files = model_files(5 * MIB)
    hub.add(ID, files)
    told: list[tuple[int, int]] = []
    resolve_base_model(ID, lambda done, total: told.append((done, total)))
    total = sum(map(len, files.values()))
    assert told[-1] == (total, total)
    assert len({done for done, _ in told}) > 5
    assert told == sorted(told)


def test_only_safe_files_of_one_set_of_weights_are_fetched(hub: Hub) -> None:
    others = ("pytorch_model.bin", "consolidated.safetensors", "original/model.safetensors", "modeling.py", "notes.md")
    wanted = model_files(**{"tokenizer.model": b"pieces", "LICENSE": b"MIT", "README.md": b"---\nlicense: mit\n---\n"})
    hub.add(ID, {**wanted, **dict.fromkeys(others, b"other")})
    model = resolve_base_model(ID)
    found = {str(path.relative_to(model.path)) for path in model.path.rglob("*") if path.is_file()}
    assert found == set(wanted)


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub: Hub) -> None:
    hub.add(ID, model_files(3 * MIB))
    hub.break_after = [MIB, 2 * MIB - 7]
    assert weights_of(resolve_base_model(ID)) == safetensors(3 * MIB)
    ranges = [one.range for one in hub.requests if one.host == "cdn"]
    assert ranges == ["", f"bytes={MIB}-", f"bytes={2 * MIB}-"]  # of a piece that broke, whole megabytes stay


def test_a_server_without_ranges_sends_the_whole_again(hub: Hub) -> None:
    hub.add(ID, model_files(2 * MIB))
    hub.break_after, hub.ranges = [MIB], False
    assert weights_of(resolve_base_model(ID)) == safetensors(2 * MIB)


def test_a_mirror_that_lists_no_sizes_serves_too(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(ID, model_files(3 * MIB))
    hub.sizes, hub.break_after = False, [MIB]
    model = resolve_base_model(ID)
    assert weights_of(model) == safetensors(3 * MIB)
    offline(monkeypatch)
    assert resolve_base_model(ID) == model


def test_a_connection_that_never_comes_further_ends_and_what_came_stays(hub: Hub) -> None:
    hub.add(ID, model_files(2 * MIB))
    hub.break_after = [MIB, 0, 0, 0, 0, 0]
    with pytest.raises(Unavailable, match=f"any further than {MIB} of"):
        resolve_base_model(ID)
    assert weights_of(resolve_base_model(ID)) == safetensors(2 * MIB)
    assert [one.range for one in hub.requests if one.host == "cdn"][-1] == f"bytes={MIB}-"


def test_bytes_that_are_not_the_announced_ones_are_thrown_away(hub: Hub) -> None:
    commit = hub.add(ID, model_files())
    hub.spoil = True
    with pytest.raises(CheckFailed, match="other bytes than the hub announced"):
        resolve_base_model(ID)
    assert not list(Snapshot(ID, commit).blobs.glob("*.part"))
    hub.spoil = False
    assert weights_of(resolve_base_model(ID)) == safetensors(1000)


@pytest.mark.parametrize("sizes", [True, False])
@pytest.mark.parametrize("etag", ["{outside}/evil", "../../../evil", "main-1", "", "A" * 64, "a" * 41])
def test_a_server_that_names_contents_by_no_hash_is_refused(hub: Hub, tmp_path: Path, etag: str, sizes: bool) -> None:
    hub.add(ID, model_files())
    hub.etag, hub.sizes = etag.format(outside=tmp_path), sizes
    with pytest.raises(Refused, match=r"names .* of owner/model by no hash, but by ") as caught:
        resolve_base_model(ID)
    assert "HF_ENDPOINT" in caught.value.remedy
    assert not list(tmp_path.rglob("*evil*"))
    assert hub.asked("cdn") == []


def test_a_hash_that_is_another_files_is_refused_whatever_the_size(hub: Hub) -> None:
    commit = hub.add(ID, model_files())
    hub.etag, hub.sizes = "a" * 64, False
    with pytest.raises(CheckFailed, match="other bytes than the hub announced"):
        resolve_base_model(ID)
    assert not list(Snapshot(ID, commit).blobs.iterdir())


def test_a_server_is_asked_once_where_a_file_belongs(hub: Hub) -> None:
    """A second answer could name another place than the one that was checked."""
    hub.add(ID, model_files())
    resolve_base_model(ID)
    assert len(hub.asked("hub", "HEAD")) == len(model_files())


@pytest.mark.parametrize("sha", ["../../../evil", "main", ""])
def test_a_server_that_names_no_commit_is_refused(hub: Hub, tmp_path: Path, sha: str) -> None:
    hub.add(ID, model_files())
    hub.sha = sha
    with pytest.raises(Refused, match="names no commit of owner/model, but "):
        resolve_base_model(ID)
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("revision", ["../../../evil", "{outside}/evil"])
def test_a_revision_that_is_a_path_is_written_nowhere(hub: Hub, tmp_path: Path, revision: str) -> None:
    given = revision.format(outside=tmp_path)
    commit = hub.add(ID, model_files())
    hub.repositories[ID].refs[given] = commit
    assert resolve_base_model(f"{ID}@{given}").revision == commit
    assert not list(tmp_path.rglob("*evil*"))


def test_huggingface_hub_finds_what_was_fetched(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(ID, model_files())
    model = resolve_base_model(ID)
    assert not (model.path / "config.json").readlink().is_absolute()
    offline(monkeypatch)
    found = hf_hub_download(ID, "config.json", cache_dir=constants.HF_HUB_CACHE, local_files_only=True)
    assert Path(found) == model.path / "config.json"


def test_a_disk_without_links_holds_the_files_themselves(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "symlink_to", refuse)
    hub.add(ID, model_files())
    model = resolve_base_model(ID)
    assert weights_of(model) == safetensors(1000)
    hub.add(ID, model_files(2000))
    assert weights_of(resolve_base_model(ID)) == safetensors(2000)
    assert weights_of(model) == safetensors(1000)


def test_two_jobs_at_once_fetch_once_and_both_tell_of_progress(hub: Hub) -> None:
    hub.add(ID, model_files(2 * MIB))
    waiting = threading.Event()
    hub.on_body = lambda: waiting.wait(10) and None
    told: list[list[int]] = [[], []]

    def resolve(which: int) -> BaseModel:
        return resolve_base_model(ID, lambda done, _: told[which].append(done))

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(resolve, which) for which in range(2)]
        deadline = time.monotonic() + 10
        while not (told[0] and told[1]) and time.monotonic() < deadline:
            time.sleep(0.01)
        waiting.set()
        first, second = (each.result() for each in running)
    assert first == second
    assert len(hub.asked("cdn")) == 1
    assert all(told)


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (None, "is gated, and HF_TOKEN is not set"),
        (STRANGER, "the token that is set gives no access; the hub says: .*not in the list"),
        ("hf_expired", "the token that is set gives no access.*Invalid credentials"),
    ],
)
def test_a_gated_model_says_what_lacks(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str | None, words: str
) -> None:
    hub.add(ID, model_files(), gated=True)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(Refused, match=words) as caught:
        resolve_base_model(ID)
    assert "HF_TOKEN" in caught.value.remedy
    assert hub.asked("cdn") == []


def test_a_token_opens_a_gated_model_and_stays_with_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(ID, model_files(), gated=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert weights_of(resolve_base_model(ID)) == safetensors(1000)
    assert {one.token for one in hub.requests if one.host == "hub"} == {TOKEN}
    assert {one.token for one in hub.requests if one.host == "cdn"} == {""}


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("owner/other", NotFound, "there is no model owner/other on the hub that you may see"),
        (f"{ID}@v9", NotFound, "has no revision 'v9'"),
        (f"{ID}@{commit_of(99)}", NotFound, "has no revision"),
    ],
)
def test_what_is_not_there_is_named(hub: Hub, name: str, kind: type[CutoffError], words: str) -> None:
    hub.add(ID, model_files())
    with pytest.raises(kind, match=words) as caught:
        resolve_base_model(name)
    assert caught.value.remedy


def test_a_hub_that_is_ill_may_be_asked_again(hub: Hub) -> None:
    hub.add(ID, model_files())
    hub.status = 503
    with pytest.raises(Unavailable, match="the hub did not give owner/model"):
        resolve_base_model(ID)


def test_a_model_of_pickles_is_refused_before_it_is_fetched(hub: Hub) -> None:
    hub.add(ID, {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    with pytest.raises(InvalidInput, match="has no safetensors weights"):
        resolve_base_model(ID)
    assert hub.asked("hub", "HEAD") == []


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config.json": b'{"model_type": "llama", "quantization_config": {"quant_method": "awq"}}'}, "with awq"),
        ({"config.json": b'{"model_type": "x", "auto_map": {"AutoModel": "m.M"}}'}, "only code in its own repository"),
        ({"model.safetensors.index.json": b'{"weight_map": {"a": "pytorch_model.bin"}}'}, "names 'pytorch_model.bin'"),
    ],
)
def test_what_is_wrong_with_a_model_shows_before_its_weights_are_fetched(
    hub: Hub, files: dict[str, bytes], words: str
) -> None:
    hub.add(ID, model_files(**files))
    with pytest.raises(InvalidInput, match=words):
        resolve_base_model(ID)
    assert hub.asked("cdn") == []


def test_a_model_larger_than_the_disk_is_refused_before_it_is_fetched(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(ID, model_files(MIB))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": MIB // 2})())
    with pytest.raises(DiskFull, match="fetching owner/model needs"):
        resolve_base_model(ID)
    assert hub.asked("hub", "HEAD") == []


def test_parts_of_another_commit_make_no_room(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.add(ID, model_files(4 * MIB))
    hub.break_after = [3 * MIB, 0, 0, 0, 0, 0]
    with pytest.raises(Unavailable):
        resolve_base_model(ID)
    assert [part.stat().st_size for part in Snapshot(ID, commit).blobs.glob("*.part")] == [3 * MIB]
    second = model_files(3 * MIB + 5)
    hub.add(ID, second)
    asked: list[int] = []
    monkeypatch.setattr(fetching, "require_space", lambda _folder, size, _what: asked.append(size))
    told: list[int] = []
    resolve_base_model(ID, lambda done, _: told.append(done))
    assert asked == [len(second["model.safetensors"])]  # the small files are the first commit's
    resolve_base_model(f"{ID}@{commit}")
    assert asked[1:] == [len(safetensors(4 * MIB)) - 3 * MIB]


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_offline_a_complete_model_is_taken_from_the_cache(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(ID, model_files())
    model = resolve_base_model(ID)
    offline(monkeypatch)
    before = len(hub.requests)
    assert resolve_base_model(ID) == model
    assert resolve_base_model(f"{ID}@{model.revision}") == model
    assert len(hub.requests) == before


def test_offline_a_revision_that_is_a_path_finds_nothing(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(ID, model_files())
    resolve_base_model(ID)
    offline(monkeypatch)
    for revision in ("../blobs", "../../../../../../../etc/hostname"):
        with pytest.raises(NotFound, match="is not in the cache"):
            resolve_base_model(f"{ID}@{revision}")


def test_offline_a_model_that_lacks_says_how_to_get_it(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    with pytest.raises(NotFound, match="is not in the cache, and HF_HUB_OFFLINE forbids") as caught:
        resolve_base_model(ID)
    assert "unset HF_HUB_OFFLINE" in caught.value.remedy


def half_fetched(hub: Hub) -> None:
    hub.add(ID, model_files(MIB))
    resolve_base_model(ID)
    hub.add(ID, model_files(2 * MIB, **{"generation_config.json": b"{}"}))
    hub.break_after = [MIB, 0, 0, 0, 0, 0]
    with pytest.raises(Unavailable):
        resolve_base_model(f"{ID}@{commit_of(1)}")


def test_offline_a_half_fetched_model_is_refused_by_what_lacks(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    half_fetched(hub)
    offline(monkeypatch)
    with pytest.raises(Refused, match=f"only in part: model.safetensors of commit {commit_of(1)} lacks"):
        resolve_base_model(f"{ID}@{commit_of(1)}")
    assert resolve_base_model(ID).revision == commit_of(0)


def test_offline_what_another_program_fetched_is_checked_by_its_own_files(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(ID, model_files())
    model = resolve_base_model(ID)
    (model.path.parents[1] / "cutoff" / f"{model.revision}.json").unlink()
    offline(monkeypatch)
    assert resolve_base_model(ID) == model
    (model.path / "model.safetensors").unlink()
    with pytest.raises(InvalidInput, match="holds no safetensors weights"):
        resolve_base_model(ID)


def test_a_hub_that_cannot_be_reached_is_not_needed_for_what_is_here(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(ID, model_files())
    model = resolve_base_model(ID)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert resolve_base_model(ID) == model
    with pytest.raises(Unavailable, match="is not in the cache, and the hub cannot be reached"):
        resolve_base_model("owner/other")


PROGRAM = f"""
import sys
from cutoff.hub import resolve_base_model
print(resolve_base_model({ID!r}, lambda done, total: print(done, flush=True)).revision)
"""


def start(hub: Hub, cache: Path, **more: str) -> subprocess.Popen[str]:
    """Another process, told of everything by the environment only."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(cache), **more}
    environment.pop("HF_HUB_CACHE", None)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_process_that_was_killed_is_taken_up_by_the_next(hub_server: Hub, tmp_path: Path) -> None:
    commit = hub_server.add(ID, model_files(6 * MIB))
    stuck = threading.Event()
    hub_server.on_body = lambda: stuck.wait(30) and None
    killed = start(hub_server, tmp_path)
    assert killed.stdout
    for line in killed.stdout:
        if int(line) > 2 * MIB:
            break
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    stuck.set()
    hub_server.on_body = lambda: None
    output, _ = start(hub_server, tmp_path).communicate(timeout=60)
    assert output.splitlines()[-1] == commit
    last = [one for one in hub_server.requests if one.host == "cdn"][-1]
    assert int(last.range.removeprefix("bytes=").rstrip("-")) >= 2 * MIB


def test_offline_is_told_by_the_environment(hub_server: Hub, tmp_path: Path) -> None:
    hub_server.add(ID, model_files())
    process = start(hub_server, tmp_path, HF_HUB_OFFLINE="1")
    _, errors = process.communicate(timeout=60)
    assert "HF_HUB_OFFLINE forbids" in errors
    assert hub_server.requests == []
