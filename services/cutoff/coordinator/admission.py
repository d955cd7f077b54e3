"""What is checked before a job is taken: in milliseconds, without the model and without reading the data."""

from __future__ import annotations

from pathlib import Path

from cutoff.artifacts import Roots, inside, model_folder
from cutoff.errors import Fault, InvalidInput
from cutoff.spec import JobSpec, server_faults
from cutoff.spec.job import names_folder


def check(spec: JobSpec, roots: Roots) -> None:
    """Refuses a job whose files are not there.

    Raises:
        InvalidInput: With every fault.
    """
    control = spec.evaluate.control
    models = {"base_model": spec.base_model} | ({"evaluate.control": control} if control else {})
    of_models = [fault for field, name in models.items() for fault in _model_faults(field, name)]
    faults = [*_dataset_faults(spec, roots.datasets), *of_models, *_server_faults(spec)]
    if faults:
        raise InvalidInput(faults)


def _dataset_faults(spec: JobSpec, root: Path) -> list[Fault]:
    if not root.is_dir():
        fix = "set --datasets or CUTOFF_DATASETS to the folder that dataset paths are relative to"
        return [Fault("dataset", f"the datasets folder {root} does not exist", fix)]
    files = {f"dataset.{field}": name for field, name in spec.dataset.files().items()}
    files |= {f"evaluate.{field}": name for field, name in spec.evaluate.files().items()}
    return [fault for field, name in files.items() for fault in _file_faults(field, name, root)]


def _file_faults(field: str, name: str, root: Path) -> list[Fault]:
    try:
        path = inside(root, name)
    except InvalidInput as error:
        return [Fault(field, fault.what, fault.fix) for fault in error.faults]
    if not path.is_file():
        return [Fault(field, f"{name} is not a file below {root}", "paths are relative to CUTOFF_DATASETS")]
    if path.stat().st_size == 0:
        return [Fault(field, f"{name} is empty", "one JSON object a line is needed")]
    return []


def _model_faults(field: str, name: str) -> list[Fault]:
    if not names_folder(name):
        return []
    try:
        folder = model_folder(name)
    except InvalidInput as error:
        return [Fault(field, f"{fault.where} {fault.what}", fault.fix) for fault in error.faults]
    if not folder.is_dir():
        return [Fault(field, f"{folder} is not a folder", "give a hub id, or the folder of a downloaded model")]
    if not (folder / "config.json").is_file():
        return [Fault(field, f"{folder} holds no config.json", "give the folder that holds the model's files")]
    return []


def _server_faults(spec: JobSpec) -> list[Fault]:
    """Of the servers that the job would have asked."""
    asked = {"evaluate.judge_url": spec.evaluate.judge_url}
    if "lmstudio" in spec.evaluate.targets:
        asked["evaluate.lmstudio_url"] = spec.evaluate.lmstudio_url
    return server_faults(asked)
