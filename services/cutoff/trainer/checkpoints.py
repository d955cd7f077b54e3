"""Checkpoints on the disk: which there are, whether one is whole, and whether it belongs to a run.

Nothing here imports torch; `cutoff.trainer.saving` writes and reads what is inside.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cutoff.artifacts import publishing_folder, sha256_of
from cutoff.errors import AlreadyExists, Fault, InvalidInput, NotFound

FINAL = "final"
"""The finished adapter's folder in a run."""

_NAME = re.compile(r"^checkpoint-(\d+)$")
STATE = "trainer_state.json"
OPTIMIZER = "optimizer.safetensors"
ADAPTER = "adapter_model.safetensors"

KEPT = 3
"""Older checkpoints are removed; the best one and the newest one always stay."""

_CONTENT = {
    "data": "is of a run with other data: the files have changed since, or others are named",
    "base_model": "is of a run with another base model, or the model's files have changed since",
}
"""What is compared by its SHA-256, in words."""
_NEEDED = (ADAPTER, "adapter_config.json", OPTIMIZER, STATE)
_MANIFEST = "manifest.json"


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of a run, the newest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir() and _NAME.match(path.name)]
    return sorted(found, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """The optimizer step a checkpoint was taken after; 0 for a folder of another name."""
    match = _NAME.match(checkpoint.name)
    return int(match[1]) if match else 0


def newest_valid(folder: Path) -> Path | None:
    """The newest checkpoint of a run that is whole."""
    return next((path for path in checkpoints_in(folder) if not problems(path)), None)


def newest_valid_of(folders: Iterable[Path]) -> Path | None:
    """The checkpoint of the most steps that is whole, of several runs that go on from each other."""
    found = [checkpoint for folder in folders for checkpoint in checkpoints_in(folder)]
    return next((path for path in sorted(found, key=step_of, reverse=True) if not problems(path)), None)


def newest_of_latest_run(output: Path) -> Path:
    """The newest checkpoint in a run's folder, or in the newest unfinished run below an output folder.

    Raises:
        AlreadyExists: That run is finished.
        NotFound: There is none.
    """
    if (output / FINAL).exists():
        raise AlreadyExists(f"the run in {output} is finished", "train into another --output_dir")
    below = [path for path in output.glob("*") if path.is_dir() and not _NAME.match(path.name)]
    runs = sorted(below, key=lambda path: path.stat().st_mtime, reverse=True)
    for run in (path for path in (output, *runs) if not (path / FINAL).exists()):
        checkpoint = newest_valid(run)
        if checkpoint is not None:
            return checkpoint
    raise NotFound(f"there is no checkpoint in {output} to go on from", "train without --resume_latest first")


def check_folder(folder: Path, resume_from: Path | None) -> None:
    """Refuses a run's folder in which another run left something.

    Checkpoints are told apart by their step only: those of another run would be gone on from when memory runs out,
    and this run's would be removed in their place.

    Args:
        folder: Where the run will put its checkpoints.
        resume_from: The checkpoint the run goes on from, if any: this one and those before it are the run's own.

    Raises:
        AlreadyExists: It holds a finished adapter, or checkpoints of another run.
    """
    if (folder / FINAL).exists():
        raise AlreadyExists(f"{folder / FINAL} is there already", "choose another --output_dir")
    foreign = checkpoints_in(folder)
    if resume_from is not None and resume_from.resolve().parent == folder.resolve():
        foreign = [path for path in foreign if step_of(path) > step_of(resume_from) and not problems(path)]
    if foreign:
        raise AlreadyExists(
            f"{folder} holds {foreign[0].name} of an earlier run, which would be taken for this run's",
            "go on from it (--resume_latest), or choose another --output_dir",
        )


def check_resumable(checkpoint: Path, recipe: Mapping[str, Any]) -> None:
    """Refuses to go on from a checkpoint that is broken, or of another model, recipe or data.

    Args:
        checkpoint: Its folder.
        recipe: What must be the same, as `save_checkpoint` was given it.

    Raises:
        NotFound: There is no such folder.
        InvalidInput: With everything that does not fit.
    """
    check_whole(checkpoint)
    faults = [
        Fault(str(checkpoint), problem, "resume with the same model and options, or start anew")
        for problem in _differences(checkpoint, recipe)
    ]
    if faults:
        raise InvalidInput(faults)


def check_whole(checkpoint: Path) -> None:
    """Refuses a checkpoint that is not there or damaged.

    Raises:
        NotFound: There is no such folder.
        InvalidInput: With everything that is missing or damaged.
    """
    if not checkpoint.is_dir():
        raise NotFound(f"there is no checkpoint {checkpoint}", "give a folder checkpoint-N of an earlier run")
    faults = [Fault(str(checkpoint), problem, "choose another checkpoint") for problem in problems(checkpoint)]
    if faults:
        raise InvalidInput(faults)


def problems(checkpoint: Path) -> list[str]:
    """What is missing or damaged in a checkpoint; empty when it is whole."""
    missing = [name for name in _NEEDED if not (checkpoint / name).is_file()]
    if missing:
        return [f"lacks {', '.join(missing)}"]
    try:
        files = json.loads((checkpoint / _MANIFEST).read_text("utf-8"))["files"]
        hashes = {name: entry["sha256"] for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [f"has no {_MANIFEST} that could be read"]
    return [
        f"has another {name} than was saved"
        for name, digest in hashes.items()
        if not (checkpoint / name).is_file() or sha256_of(checkpoint / name) != digest
    ]


def remove_old(folder: Path, best: Path | None) -> None:
    """Removes all but the newest checkpoints of a run, and the best one."""
    others = [path for path in checkpoints_in(folder) if path != best]
    for path in others[KEPT - (best is not None) :]:
        shutil.rmtree(path)


def link_checkpoint(source: Path, folder: Path) -> None:
    """Gives a run's folder a checkpoint of an earlier attempt; its files take no room a second time, if they can."""
    with publishing_folder(folder / source.name) as partial:
        for path in source.iterdir():
            if path.name != _MANIFEST:  # the copy has one of its own
                try:
                    os.link(path, partial / path.name)
                except OSError:
                    shutil.copyfile(path, partial / path.name)


def _differences(checkpoint: Path, now: Mapping[str, Any]) -> list[str]:
    """How the run that made a checkpoint differs from one that would go on from it."""
    state: dict[str, Any] = json.loads((checkpoint / STATE).read_text("utf-8"))
    then = state.get("recipe", {})
    return [
        _CONTENT.get(field) or f"is of a run with {field} {_shown(then.get(field))}, not {_shown(value)}"
        for field, value in now.items()
        if then.get(field) != value
    ]


def _shown(value: Any) -> str:
    """An option's value as job.yaml would have it, without what is left to the default."""
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {_shown(each)}' for name, each in value.items() if each is not None)}}}"
    return str(value)
