"""What many commands are given: `--json`, a job, the roots."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from cutoff.artifacts import Roots

Json = Annotated[bool, typer.Option("--json", help="Data as JSON on stdout.")]
JobFile = Annotated[Path, typer.Argument(help="The job.yaml.", metavar="JOB.YAML")]
JobName = Annotated[str, typer.Argument(help="A job, as `cutoff list` shows it.", metavar="JOB")]
Datasets = Annotated[Path | None, typer.Option(help="What dataset paths are relative to [CUTOFF_DATASETS].")]
Artifacts = Annotated[Path | None, typer.Option(help="Where the jobs' folders are [CUTOFF_ARTIFACTS].")]
Models = Annotated[Path | None, typer.Option(help="LM Studio's models folder [LMSTUDIO_MODELS].")]


def roots_of(datasets: Path | None, artifacts: Path | None, models: Path | None) -> Roots:
    """The roots of the environment, but for those that were given."""
    given = {"datasets": datasets, "artifacts": artifacts, "models": models}
    return dataclasses.replace(
        Roots.from_environment(), **{name: path.absolute() for name, path in given.items() if path is not None}
    )
