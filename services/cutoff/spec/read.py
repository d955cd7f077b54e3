"""Reads a JobSpec from YAML or from its proto, and names every fault at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from google.protobuf import json_format
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cutoff.errors import Fault, InvalidInput, NotFound
from cutoff.spec.job import JobSpec
from cutoff.v1 import job_pb2


def load_job_yaml(path: Path) -> JobSpec:
    """Reads job.yaml.

    A base_model that is a relative folder is taken relative to the file's own folder.

    Raises:
        NotFound: There is no such file.
        InvalidInput: It is not YAML, or not a job; with every fault.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotFound(f"{path} is not a file", "give the path of a job.yaml") from error
    except UnicodeDecodeError as error:
        raise InvalidInput([Fault(str(path), "is not UTF-8", "save it as UTF-8")]) from error
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "cannot be read"
        raise InvalidInput([Fault(where, f"is not YAML: {problem}", "check indentation and quotes")]) from error
    if not isinstance(data, dict):
        fix = "begin with `name:`, `base_model:` and `dataset:`"
        raise InvalidInput([Fault(str(path), "holds no fields", fix)])
    base_model = data.get("base_model")
    if isinstance(base_model, str) and base_model.startswith(("./", "../", "~")):
        data["base_model"] = str((path.parent / Path(base_model).expanduser()).resolve())
    return parse_job(data, source=str(path))


def parse_job(data: Mapping[str, Any], source: str = "job") -> JobSpec:
    """Checks a job given as nested mappings.

    Raises:
        InvalidInput: With every fault; an unknown key is answered with the nearest known one.
    """
    try:
        return JobSpec.model_validate(data)
    except ValidationError as error:
        raise InvalidInput([_fault(details, source) for details in error.errors()]) from error


def spec_from_proto(spec: job_pb2.JobSpec) -> JobSpec:
    """The checked job a proto carries; absent fields take their defaults.

    Raises:
        InvalidInput: With every fault.
    """
    return parse_job(json_format.MessageToDict(spec, preserving_proto_field_name=True))


def spec_to_proto(spec: JobSpec) -> job_pb2.JobSpec:
    """The proto that carries this job, every default written out."""
    return json_format.ParseDict(spec.model_dump(mode="json", exclude_none=True), job_pb2.JobSpec())


def _fault(details: ErrorDetails, source: str) -> Fault:
    path = [str(part) for part in details["loc"]]
    where = f"{source}: {'.'.join(path)}" if path else source
    if details["type"] == "extra_forbidden":
        known = list(_section(path[:-1]).model_fields)
        nearest = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.65)
        fix = f"did you mean {nearest[0]}?" if nearest else f"known here: {', '.join(known)}"
        return Fault(where, "is not a known field", fix)
    if details["type"] == "missing":
        return Fault(where, "is required", f"add `{path[-1]}:`")
    if details["type"].startswith("date"):
        return Fault(where, f"{details['input']!r} is not a date", "write it as 1969-12-31")
    message = details["msg"].removeprefix("Value error, ")
    given = details["input"]
    shown = "" if isinstance(given, dict | BaseModel) else f"{given!r}: "
    return Fault(where, shown + message[0].lower() + message[1:], "")


def _section(path: list[str]) -> type[BaseModel]:
    """The section a field path leads to; the number of a list's item leads to nothing new."""
    section: type[BaseModel] = JobSpec
    for part in path:
        if not part.isdigit():
            section = next(_models_in(section.model_fields[part].annotation))
    return section


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
