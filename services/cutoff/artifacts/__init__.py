"""Files that count: job folders, publishing by rename, manifests with SHA-256, room on the disk."""

from cutoff.artifacts.disk import (
    GIB,
    DiskNeed,
    FileSystem,
    file_systems,
    require_room,
    require_space,
    same_file_system,
    size_on_disk,
)
from cutoff.artifacts.fence import NOBODY, counting, let_count
from cutoff.artifacts.folders import (
    BASE_MODEL_PATHS,
    Roots,
    attempt_folder,
    close_folders,
    inside,
    model_folder,
    require_makeable,
    resolved,
)
from cutoff.artifacts.identity import artifacts_id, name_artifacts
from cutoff.artifacts.publish import (
    MANIFEST,
    Published,
    describe,
    publishing,
    publishing_folder,
    remove_partial,
    scratch_beside,
    sha256_of,
    sweep_partials,
)

__all__ = [
    "BASE_MODEL_PATHS",
    "GIB",
    "MANIFEST",
    "NOBODY",
    "DiskNeed",
    "FileSystem",
    "Published",
    "Roots",
    "artifacts_id",
    "attempt_folder",
    "close_folders",
    "counting",
    "describe",
    "file_systems",
    "inside",
    "let_count",
    "model_folder",
    "name_artifacts",
    "publishing",
    "publishing_folder",
    "remove_partial",
    "require_makeable",
    "require_room",
    "require_space",
    "resolved",
    "same_file_system",
    "scratch_beside",
    "sha256_of",
    "size_on_disk",
    "sweep_partials",
]
