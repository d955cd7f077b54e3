"""What runs in the child process of a merger run: a request becomes a plain call, its result JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

from cutoff.artifacts import inside
from cutoff.hub import BaseModel, allowed_folder
from cutoff.spec import MergeSpec
from cutoff.stage.context import RunContext
from cutoff.telemetry import before_import
from cutoff.v1 import merger_pb2


def merge(request: merger_pb2.MergeRequest, run: RunContext) -> Mapping[str, Any]:
    """Publishes the merged model as "merged" in the attempt's folder; see `cutoff.merger.merge`."""
    before_import()
    from cutoff.merger import merge as work

    spec = MergeSpec()
    folder = allowed_folder(request.model_path, run.roots)
    plan = work.MergePlan(
        base=BaseModel(folder, str(folder), None),
        adapter=inside(run.roots.artifacts, request.adapter),
        output=run.folder / "merged",
        dtype=cast(work.Dtype, request.spec.dtype or spec.dtype),
        verify=request.spec.verify if request.spec.HasField("verify") else spec.verify,
        into=cast(work.Into, request.spec.base or spec.base),
        device=run.devices[0] if run.devices else "cpu",
    )
    result = work.merge(plan, run.report)
    return {**asdict(result), "path": str(result.path.resolve().relative_to(run.roots.artifacts.resolve()))}
