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
from cutoff.artifacts.folders import Roots, attempt_folder, inside, require_makeable
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
    "GIB",
    "MANIFEST",
    "DiskNeed",
    "FileSystem",
    "Published",
    "Roots",
    "attempt_folder",
    "describe",
    "file_systems",
    "inside",
    "publishing",
    "publishing_folder",
    "remove_partial",
    "require_makeable",
    "require_room",
    "require_space",
    "same_file_system",
    "scratch_beside",
    "sha256_of",
    "size_on_disk",
    "sweep_partials",
]
