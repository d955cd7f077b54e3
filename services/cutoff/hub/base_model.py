"""Where the base model's files are: a folder that is used in place, or a hub model that is fetched once.

A hub id is resolved to a commit, so that every stage of a job uses the same files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cutoff.hub.fetch import BeforeWeights, Progress, allow, fetch
from cutoff.hub.model_folder import check_model_folder, weight_files

__all__ = ["BaseModel", "Progress", "check_model_folder", "local_base_model", "resolve_base_model", "weight_files"]


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model on this machine."""

    path: Path
    """The folder with its files."""
    name: str
    """As the user names it, without a revision: a hub id or a folder."""
    revision: str | None
    """The commit of a hub model."""


def local_base_model(name: str) -> BaseModel | None:
    """The folder that a name stands for, unchecked; None where it is a hub id."""
    folder = Path(name).expanduser()
    if name.startswith(("/", "./", "../", "~")) or folder.is_dir():
        return BaseModel(folder.resolve(), str(folder.resolve()), None)
    return None


def resolve_base_model(name: str, on_bytes: Progress | None = None, before_weights: BeforeWeights = allow) -> BaseModel:
    """Finds a base model's files; fetches a hub model into the shared cache (HF_HOME) when they are not there.

    Args:
        name: A folder, or a hub id, optionally with @revision.
        on_bytes: Told how far the fetching is.
        before_weights: Told what is to be fetched, before any weights are; what it raises stops that.

    Raises:
        NotFound: There is no such folder, model or revision, or it would have to be fetched and HF_HUB_OFFLINE is set.
        InvalidInput: The folder's or model's files cannot be used.
        Refused: The model is gated and HF_TOKEN gives no access, or only a part of it is here and the hub is not.
        DiskFull: The cache's disk has no room for it.
        Unavailable: The hub does not answer, and the cache does not hold the model.
        CheckFailed: What came is not what the hub announced.
    """
    local = local_base_model(name)
    if local:
        check_model_folder(local.path)
        return local
    hub_id, _, revision = name.partition("@")
    snapshot = fetch(hub_id, revision or None, on_bytes or (lambda _done, _total: None), before_weights)
    check_model_folder(snapshot.folder)
    return BaseModel(snapshot.folder, hub_id, snapshot.commit)
