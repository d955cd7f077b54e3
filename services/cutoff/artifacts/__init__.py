"""Files that count: job folders, publishing by rename, manifests with SHA-256, room on the disk."""

from cutoff.artifacts.disk import GIB, require_space, size_on_disk
from cutoff.artifacts.fence import NOBODY, counting, let_count
from cutoff.artifacts.folders import Roots, attempt_folder, inside
from cutoff.artifacts.identity import artifacts_id, name_artifacts
from cutoff.artifacts.publish import (
    MANIFEST,
    Published,
    describe,
    publishing,
    publishing_folder,
    sha256_of,
    sweep_partials,
)

__all__ = [
    "GIB",
    "MANIFEST",
    "NOBODY",
    "Published",
    "Roots",
    "artifacts_id",
    "attempt_folder",
    "counting",
    "describe",
    "inside",
    "let_count",
    "name_artifacts",
    "publishing",
    "publishing_folder",
    "require_space",
    "sha256_of",
    "size_on_disk",
    "sweep_partials",
]
