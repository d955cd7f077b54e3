"""The job specification: what job.yaml and SubmitJob carry, with its defaults and checks.

`JobSpec` is the one place that knows defaults and legal values; `protos/cutoff/v1/job.proto` has the same
field names (a test holds the two together), so the translation needs no table.
"""

from cutoff.spec.job import (
    ConvertSpec,
    DatasetSpec,
    EvaluateSpec,
    InstallSpec,
    JobSpec,
    MergeSpec,
    ResourcesSpec,
    StageSpec,
    TrainSpec,
)
from cutoff.spec.read import load_job_yaml, parse_job, spec_from_proto, spec_to_proto
from cutoff.spec.servers import ALLOWED_SERVERS, close_servers, require_servers, server_faults

__all__ = [
    "ALLOWED_SERVERS",
    "ConvertSpec",
    "DatasetSpec",
    "EvaluateSpec",
    "InstallSpec",
    "JobSpec",
    "MergeSpec",
    "ResourcesSpec",
    "StageSpec",
    "TrainSpec",
    "close_servers",
    "load_job_yaml",
    "parse_job",
    "require_servers",
    "server_faults",
    "spec_from_proto",
    "spec_to_proto",
]
