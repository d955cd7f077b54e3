"""Fetches a hub model at one commit into the shared cache; without a network, takes what the cache has.

Only weights in safetensors, configuration, tokenizer files, licence and model card are fetched: pickles could run
code, and nothing here ever does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from cutoff.artifacts import DiskNeed, require_space
from cutoff.errors import CutoffError, Fault, InvalidInput, NotFound, Refused, Unavailable
from cutoff.hub.download import download, is_hash
from cutoff.hub.hub_errors import hub_errors
from cutoff.hub.model_card import CARD
from cutoff.hub.model_folder import INDEX, check_description
from cutoff.hub.remote_code import CODE_FILES, allowed_commits
from cutoff.hub.snapshot import Snapshot, cached_snapshot, is_commit
from cutoff.hub.tokenizer_files import TOKENIZER_FILES

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

_WEIGHTS = ("model.safetensors", "model-*.safetensors", INDEX)
_FETCHED = (*_WEIGHTS, *TOKENIZER_FILES, "config.json", "generation_config.json", "LICENSE*", CARD)
_TIMEOUT = 20.0

Progress = Callable[[int, int], None]
"""Told (bytes that are there, bytes in all)."""

BeforeWeights = Callable[[DiskNeed, Path, int], None]
"""Told (what is to come, the folder that has everything but weights, bytes of all weights); raises to stop it."""


def allow(need: DiskNeed, folder: Path, weights_bytes: int) -> None:
    """Lets anything be fetched."""
    del need, folder, weights_bytes


def fetch(hub_id: str, revision: str | None, on_bytes: Progress, before_weights: BeforeWeights = allow) -> Snapshot:
    """Resolves a revision to a commit, and fetches what lacks of it.

    A commit that the cache has complete is taken from there without asking anybody.

    Args:
        hub_id: "owner/name".
        revision: A branch, tag or commit; None is the default branch.
        on_bytes: Told how far the fetching is; not called when everything is there.
        before_weights: Called once before any weights are fetched; not when none lack.

    Raises:
        CutoffError: As `resolve_base_model` says, or as `before_weights` raises.
    """
    from httpx2 import HTTPError  # what huggingface_hub speaks through
    from huggingface_hub import HfApi, errors

    pinned = cached_snapshot(hub_id, revision) if is_commit(revision) else None
    if pinned is not None and pinned.is_complete():
        return pinned
    with hub_errors(hub_id, revision):
        try:
            info = HfApi().model_info(hub_id, revision=revision, files_metadata=True, timeout=_TIMEOUT)
        except errors.HfHubHTTPError:
            raise
        except errors.OfflineModeIsEnabled as error:
            offline = NotFound(
                f"{hub_id} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it",
                f"fetch it once on a machine with a network, or unset HF_HUB_OFFLINE; {_OR_A_FOLDER}",
            )
            return _from_cache(hub_id, revision, offline, error)
        except HTTPError as error:
            unreachable = Unavailable(
                f"{hub_id} is not in the cache, and the hub cannot be reached: {error}",
                f"connect this machine to huggingface.co once; {_OR_A_FOLDER}",
            )
            return _from_cache(hub_id, revision, unreachable, error)
        if not is_commit(info.sha):
            raise Refused(f"the hub names no commit of {hub_id}, but {_shown(info.sha)}", _FAITHFUL)
        snapshot = Snapshot(hub_id, str(info.sha))
        _fetch_files(snapshot, _wanted_files(info, snapshot), _hashes(info), on_bytes, before_weights)
        snapshot.remember(revision)
    return snapshot


_OR_A_FOLDER = "or give a folder with the model"
_FAITHFUL = "set HF_ENDPOINT to the hub, or to a mirror that passes on the hub's commits and ETags"


def _shown(answer: str | None) -> str:
    return repr(answer[:100]) if answer else "nothing"


def _from_cache(hub_id: str, revision: str | None, nothing: CutoffError, cause: Exception) -> Snapshot:
    """What the cache has of a model, where nothing else can be had; only a complete snapshot serves.

    Raises:
        CutoffError: `nothing`, when it has none of it.
        Refused: It has only a part; what lacks is named.
    """
    snapshot = cached_snapshot(hub_id, revision)
    if snapshot is None:
        raise nothing from cause
    lacking = snapshot.lacking(snapshot.wanted() or {})
    if lacking:
        raise Refused(
            f"the cache holds {hub_id} only in part: {', '.join(sorted(lacking))} of commit {snapshot.commit} "
            f"{'lack' if len(lacking) > 1 else 'lacks'}, and the hub is not asked or does not answer",
            f"fetch the rest with a network (without HF_HUB_OFFLINE); {_OR_A_FOLDER}",
        ) from cause
    return snapshot


def _wanted_files(info: ModelInfo, snapshot: Snapshot) -> dict[str, int]:
    """The files to fetch, with their sizes in bytes, the small ones first: what is wrong shows early.

    Raises:
        InvalidInput: The repository has no safetensors weights.
    """
    files = {entry.rfilename: entry.size or 0 for entry in info.siblings or []}
    if not any(fnmatch(name, pattern) for name in files for pattern in _WEIGHTS):
        what = "has no safetensors weights; pickles are not used, they can run code when read"
        raise InvalidInput([Fault(snapshot.hub_id, what, "choose a model or revision with safetensors")])
    code = (CODE_FILES,) if f"{snapshot.hub_id}@{snapshot.commit}" in allowed_commits() else ()
    wanted = {name: size for name, size in files.items() if _fits(name, (*_FETCHED, *code))}
    return dict(sorted(wanted.items(), key=lambda item: (item[0].endswith(".safetensors"), item[1])))


def _hashes(info: ModelInfo) -> dict[str, str]:
    """What the contents of the files are named by, where the hub lists it."""
    listed = {entry.rfilename: entry.lfs.sha256 if entry.lfs else entry.blob_id for entry in info.siblings or []}
    return {name: blob for name, blob in listed.items() if blob and is_hash(blob)}


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a file is one of those; a pattern without a folder means files of the top folder."""
    return any(fnmatch(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns)


def _fetch_files(
    snapshot: Snapshot,
    sizes: Mapping[str, int],
    hashes: Mapping[str, str],
    on_bytes: Progress,
    before_weights: BeforeWeights,
) -> None:
    total = sum(sizes.values())
    with snapshot.locked(lambda: on_bytes(snapshot.bytes_there(sizes, hashes), total)):
        lacking = snapshot.lacking(sizes)
        if not lacking:
            return
        snapshot.want(sizes)
        needed = max(0, sum(lacking.values()) - snapshot.come_of(lacking, hashes))
        if needed:
            require_space(snapshot.blobs, needed, f"fetching {snapshot.hub_id}")
        done = total - sum(lacking.values())
        described = False
        for name, size in lacking.items():
            if name.endswith(".safetensors") and not described:
                check_description(snapshot.folder)
                weights = sum(size for name, size in sizes.items() if name.endswith(".safetensors"))
                before_weights(DiskNeed("base model", snapshot.blobs, needed), snapshot.folder, weights)
                described = True
            _fetch_file(snapshot, name, size, _beside(done, total, on_bytes))
            done += size
            on_bytes(done, total)


def _beside(done: int, total: int, on_bytes: Progress) -> Callable[[int], None]:
    """Tells of one file's bytes as of all that have come."""
    return lambda here: on_bytes(done + here, total)


def _fetch_file(snapshot: Snapshot, name: str, size: int, on_bytes: Callable[[int], None]) -> None:
    """Brings one file's content and gives it its name in the snapshot.

    Raises:
        Refused: The server names the content by something else than its hash: it could not be checked, and what
            stands there becomes a path.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(snapshot.hub_id, name, revision=snapshot.commit)
    metadata = get_hf_file_metadata(url, timeout=_TIMEOUT, retry_on_errors=True)
    if not is_hash(metadata.etag):
        what = f"the hub names {name} of {snapshot.hub_id} by no hash, but by {_shown(metadata.etag)}"
        raise Refused(what, _FAITHFUL)
    blob = snapshot.blobs / str(metadata.etag)
    blob.parent.mkdir(parents=True, exist_ok=True)
    if not blob.exists():
        download(url, blob, size or metadata.size or 0, on_bytes)  # a mirror may not list sizes
    snapshot.place(name, blob)
