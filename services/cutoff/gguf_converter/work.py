"""What the service's runs do: requests become plain calls. Runs in the run's own process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from google.protobuf import json_format

from cutoff.artifacts import counting, describe, inside, publishing
from cutoff.gguf_converter.card import render
from cutoff.gguf_converter.card_facts import facts_of
from cutoff.gguf_converter.convert import convert_model
from cutoff.gguf_converter.gguf_file import chat_template
from cutoff.gguf_converter.install import install_gguf
from cutoff.gguf_converter.install_checks import requested_conversion, requested_spec, requested_type
from cutoff.gguf_converter.install_records import RECORDS
from cutoff.gguf_converter.lmstudio import ask_configured
from cutoff.gguf_converter.metadata import Facts
from cutoff.gguf_converter.order import Order
from cutoff.gguf_converter.record import MANIFEST
from cutoff.llama_cpp import LlamaCpp
from cutoff.spec.quantizations import file_name
from cutoff.stage.context import RunContext
from cutoff.v1 import gguf_converter_pb2, job_pb2

CARD = "card.md"

_Fields = dict[str, Any]


def convert(request: gguf_converter_pb2.ConvertRequest, run: RunContext) -> Mapping[str, Any]:
    """Publishes one GGUF per quantization type in the attempt's folder.

    Returns:
        As `Converted.summary`; paths are relative to the artifacts root.

    Raises:
        InvalidInput: The model's name is no plain name, or a path leaves the artifacts.
        CutoffError: As `LlamaCpp.of_job` and `convert_model`.
    """
    spec = requested_conversion(_fields(request.spec))
    name = requested_spec(job_pb2.InstallSpec(model_name=request.model_name)).model_name
    artifacts = run.roots.artifacts
    order = Order(
        model=inside(artifacts, request.merged),
        outputs={quant_type: run.folder / file_name(name, quant_type) for quant_type in spec.quant_types},
        name=name,
        manifest=run.folder / MANIFEST,
        questions=list(request.probe_questions),
        calibration=inside(artifacts, request.calibration) if request.calibration else None,
        validation=inside(artifacts, request.validation) if request.validation else None,
        facts=Facts(**_fields(request.facts)),
        spec=spec,
        installed_in=run.roots.models if request.installs else None,
    )
    return convert_model(order, LlamaCpp.of_job(run.roots.cache, spec.llama_cpp_path), run.report).summary(artifacts)


def install(request: gguf_converter_pb2.InstallRequest, run: RunContext) -> Mapping[str, Any]:
    """Puts one GGUF into the models folder, and has LM Studio load it where one is configured.

    Returns:
        path (absolute), size_bytes, sha256, changed, how, lmstudio (verdict, detail, key, answer, load_seconds).

    Raises:
        Refused: The attempt does not count any more.
        CutoffError: As `requested_spec` and `install_gguf`. What LM Studio says is reported, and fails nothing.
    """
    spec = requested_spec(request.spec)
    installed = install_gguf(
        gguf=inside(run.roots.artifacts, request.gguf),
        quant_type=requested_type(request.quant_type),
        models_root=run.roots.models,
        spec=spec,
        records=run.roots.artifacts / RECORDS,
        report=run.report,
        sha256=request.sha256,
        still_counts=lambda: counting(run.folder.parent, run.key.attempt),
        immutable=True,
    )
    file = installed.file
    return {
        "path": str(file.path),
        "size_bytes": file.size_bytes,
        "sha256": file.sha256,
        "changed": installed.changed,
        "how": installed.how or "",
        "lmstudio": asdict(ask_configured(spec, file.size_bytes, request.question, run.report)),
    }


def write_card(request: gguf_converter_pb2.WriteCardRequest, run: RunContext) -> Mapping[str, Any]:
    """Publishes card.md in the attempt's folder.

    Returns:
        path (relative to the artifacts root).

    Raises:
        NotFound, CheckFailed: The job's GGUF is not there, or damaged: its template is read from it.
    """
    facts = facts_of(request.job)
    template = chat_template(inside(run.roots.artifacts, facts.files[0].path))
    path = run.folder / CARD
    with publishing(path) as partial:
        partial.write_text(render(facts, template), encoding="utf-8")
    run.report.artifact("card", describe(path))
    return {"path": str(path.resolve().relative_to(run.roots.artifacts.resolve()))}


def _fields(message: Any) -> _Fields:
    """The fields a proto has set, by their names in job.yaml; the specification knows the others' defaults."""
    fields: _Fields = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return fields
