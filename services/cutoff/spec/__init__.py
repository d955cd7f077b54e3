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

__all__ = [
    "ConvertSpec",
    "DatasetSpec",
    "EvaluateSpec",
    "InstallSpec",
    "JobSpec",
    "MergeSpec",
    "ResourcesSpec",
    "StageSpec",
    "TrainSpec",
    "load_job_yaml",
    "parse_job",
    "spec_from_proto",
    "spec_to_proto",
]
