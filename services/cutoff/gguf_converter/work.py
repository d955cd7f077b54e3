"""What the service's runs do: requests become plain calls. Runs in the run's own process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format

from cutoff.artifacts import inside
from cutoff.gguf_converter.convert import convert_model
from cutoff.gguf_converter.install import RECORDS, install_gguf, requested_spec
from cutoff.gguf_converter.metadata import Facts
from cutoff.gguf_converter.order import Order
from cutoff.gguf_converter.quant_types import file_name
from cutoff.gguf_converter.record import MANIFEST
from cutoff.llama_cpp import LlamaCpp
from cutoff.spec import ConvertSpec
from cutoff.spec.quant_types import QuantType
from cutoff.stage.context import RunContext
from cutoff.v1 import gguf_converter_pb2, job_pb2

_Fields = dict[str, Any]


def convert(request: gguf_converter_pb2.ConvertRequest, run: RunContext) -> Mapping[str, Any]:
    """Publishes one GGUF per quantization type in the attempt's folder.

    Returns:
        As `Converted.summary`; paths are relative to the artifacts root.

    Raises:
        InvalidInput: The model's name is no plain name, or a path leaves the artifacts.
        CutoffError: As `LlamaCpp.of_job` and `convert_model`.
    """
    spec = ConvertSpec.model_validate(_fields(request.spec))
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
    )
    return convert_model(order, LlamaCpp.of_job(run.roots.cache, spec.llama_cpp_path), run.report).summary(artifacts)


def install(request: gguf_converter_pb2.InstallRequest, run: RunContext) -> Mapping[str, Any]:
    """Puts one GGUF into the models folder.

    Returns:
        path (absolute), size_bytes, sha256, changed.

    Raises:
        CutoffError: As `requested_spec` and `install_gguf`.
    """
    quant_type: QuantType = ConvertSpec.model_validate({"quant_types": [request.quant_type]}).quant_types[0]
    installed = install_gguf(
        gguf=inside(run.roots.artifacts, request.gguf),
        quant_type=quant_type,
        models_root=run.roots.models,
        spec=requested_spec(request.spec),
        records=run.roots.artifacts / RECORDS,
        report=run.report,
        sha256=request.sha256,
    )
    file = installed.file
    return {
        "path": str(file.path),
        "size_bytes": file.size_bytes,
        "sha256": file.sha256,
        "changed": installed.changed,
    }


def _fields(message: Any) -> _Fields:
    """The fields a proto has set, by their names in job.yaml; the specification knows the others' defaults."""
    fields: _Fields = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return fields
