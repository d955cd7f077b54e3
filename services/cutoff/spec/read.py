"""Reads a JobSpec from YAML or from its proto, and names every fault at once."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from google.protobuf import json_format
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cutoff.errors import Fault, InvalidInput
from cutoff.spec.job import JobSpec, names_folder
from cutoff.spec.yaml_file import read_yaml
from cutoff.v1 import job_pb2


def load_job_yaml(path: Path) -> JobSpec:
    """Reads job.yaml.

    A model (base_model, evaluate.control) that is a relative folder is taken relative to the file's own folder.

    Raises:
        NotFound: There is no such file.
        InvalidInput: It is not YAML, holds a key twice, or is not a job; with every fault.
    """
    data = read_yaml(path)
    evaluate = data.get("evaluate")
    sections = {"base_model": data} | ({"control": evaluate} if isinstance(evaluate, dict) else {})
    for field, section in sections.items():
        model = section.get(field)
        if isinstance(model, str) and names_folder(model):
            section[field] = str((path.parent / Path(model).expanduser()).resolve())
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
    given = details["input"]
    if details["type"] in _SHAPES:
        return Fault(where, *_misshapen(given, details["type"]))
    message = details["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(given, dict | BaseModel) else f"{given!r}: "
    return Fault(where, shown + message[0].lower() + message[1:], "")


_SHAPES = ("tuple_type", "model_type")
"""What pydantic calls a value that is no list, and one that is no section."""


def _misshapen(given: object, kind: str) -> tuple[str, str]:
    """What is wrong with a value that stands where a list or a section is meant, and what to write."""
    shown = "" if isinstance(given, dict | list) else f"{given!r} "
    if kind == "tuple_type":
        if given is None:
            return "is empty", "leave it out, or write []"
        as_list = yaml.safe_dump([given], default_flow_style=True, width=math.inf).strip()
        return f"{shown}is no list", f"write it as {as_list}"
    fix = "write its fields below it, indented, or leave it out"
    return "is empty" if given is None else f"{shown}is no section", fix


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
