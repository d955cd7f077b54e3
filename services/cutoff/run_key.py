"""What the key of a run says: whose it is, at which stage, in which attempt."""

from __future__ import annotations

from cutoff.v1 import types_pb2

RunId = tuple[str, str, int]
"""A key that can be put into a set: job, stage, attempt."""


def run_id(key: types_pb2.RunKey) -> RunId:
    """The run's key, to be looked up by."""
    return key.job, key.stage, key.attempt


def stage_kind(stage: str) -> str:
    """A stage without its target: evaluate for evaluate-merged."""
    return stage.partition("-")[0]
