"""Finished base models, kept under the hash of what they were made from, so that a world is pretrained only once."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cutoff.demo.recipe import Recipe, recipe_hash
from cutoff.demo.world import World
from cutoff.telemetry import before_import


def cached_base_model(
    world: World, cache: Path, on_progress: Callable[[str, int, int], None], recipe: Recipe | None = None
) -> Path:
    """The folder in ``cache`` that holds a base model which knows ``world``; it is pretrained if it is not there.

    A model is made in a folder of its own and renamed when it is whole, so a folder under its final name is complete.
    Of several processes that want the same model one makes it and the others wait for it.

    Raises:
        PretrainingError: the model did not learn its world; nothing is left in the cache.
        OSError: the cache cannot be written.
    """
    recipe = recipe or Recipe()
    final = cache / "demo-base" / recipe_hash(recipe, world)
    if final.is_dir():
        on_progress("pretrain (cached)", 1, 1)
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with _alone(final, on_progress):
        if not final.is_dir():
            _make(world, final, on_progress, recipe)
    return final


@contextmanager
def _alone(final: Path, on_progress: Callable[[str, int, int], None]) -> Iterator[None]:
    """Holds the lock of one model; the kernel frees it if the process is killed."""
    with final.with_name(f".{final.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_progress("wait for another process that pretrains this model", 0, 1)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(world: World, final: Path, on_progress: Callable[[str, int, int], None], recipe: Recipe) -> None:
    """Pretrains beside ``final`` and renames; whoever calls it holds the lock."""
    before_import()
    from cutoff.demo.base_model import pretrain  # here, because it imports torch

    for left_behind in final.parent.glob(f".{final.name}-*"):  # by a process that was killed
        shutil.rmtree(left_behind, ignore_errors=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        pretrain(world, unfinished, on_progress, recipe)
        _sync(unfinished)
        unfinished.chmod(0o755)  # mkdtemp lets nobody else in
        unfinished.rename(final)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Waits until the files are on the disk, so that a power cut cannot leave empty files under a final name."""
    for file in folder.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())


def link_or_copy(source: Path, target: Path) -> None:
    """Puts the files of ``source`` into the new folder ``target``, replacing it whole if it is there.

    Files are hard-linked where the file system allows it, and copied otherwise.

    Raises:
        OSError: ``target`` cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for file in source.iterdir():
            _link(file, unfinished / file.name)
            (unfinished / file.name).chmod(0o644)  # safetensors writes 0600; containers run as another user
        unfinished.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
