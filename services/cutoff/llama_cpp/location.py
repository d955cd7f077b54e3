"""Where llama.cpp is: the pinned build, or a checkout of the user's own."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from cutoff.artifacts import resolved
from cutoff.errors import NotFound, Refused

_BACKENDS = ("cuda", "hip", "vulkan", "cpu")
"""What docker/llama-cpp/build.sh builds for; the first one that is there is used."""

_PROGRAM_FOLDERS = ("build/bin", "bin", ".")
"""Where a llama.cpp keeps its programs: a cmake build in the checkout, the pinned build, loose beside the script."""

_PROGRAMS = ("llama-quantize", "llama-server", "llama-imatrix")
_FILLED_IN = _PROGRAMS[1:]

_MAKE = "run `make llama-cpp`, which builds the pinned version once (about 11 minutes on two cores)"


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """One llama.cpp and its programs; every path exists.

    `server` and `imatrix` may come from another build than the rest: a checkout need not have built them.
    """

    folder: Path
    convert_script: Path
    quantize: Path
    server: Path
    imatrix: Path

    @classmethod
    def find(cls, cache: Path, path: Path | None = None) -> LlamaCpp:
        """The llama.cpp to use.

        Args:
            cache: The cache root (CUTOFF_CACHE), below which the pinned build is.
            path: A llama.cpp of the user's own, used as it is. The pinned build fills in for its llama-server
                and llama-imatrix where it has none.

        Raises:
            NotFound: A folder or a program in it is missing.
        """
        if path is None:
            return cls._at(pinned_folder(cache), _MAKE)
        if not path.is_dir():
            leave_out = "give its folder, or leave the path out: the pinned build is used"
            raise NotFound(f"llama.cpp not found at: {path}", leave_out)
        remedy = f"build it there (cmake --build build --target {' '.join(_PROGRAMS)}), or leave the path out"
        lacking = [name for name in _FILLED_IN if _program(path, name) is None]
        return cls._at(path, remedy, cls._at(pinned_folder(cache), _MAKE) if lacking else None)

    @classmethod
    def _at(cls, folder: Path, remedy: str, filling_in: LlamaCpp | None = None) -> LlamaCpp:
        script = folder / "convert_hf_to_gguf.py"
        if not script.is_file():
            raise NotFound(f"{folder} has no convert_hf_to_gguf.py", remedy)
        quantize, server, imatrix = (_program(folder, name) for name in _PROGRAMS)
        if filling_in is not None:
            server, imatrix = server or filling_in.server, imatrix or filling_in.imatrix
        if quantize is None or server is None or imatrix is None:
            missing = [name for name, found in zip(_PROGRAMS, (quantize, server, imatrix), strict=True) if not found]
            raise NotFound(f"{folder} has no {', '.join(missing)} in {', '.join(_PROGRAM_FOLDERS)}", remedy)
        return cls(folder, script, quantize, server, imatrix)

    @classmethod
    def of_job(cls, cache: Path, path: str | None) -> LlamaCpp:
        """The llama.cpp a job asks for. Its programs are executed here, so the operator says which may be.

        Args:
            cache: As in `find`.
            path: The job's convert.llama_cpp_path; nothing for the pinned build.

        Raises:
            InvalidInput: No file can have this path.
            Refused: It lies in none of the folders of CUTOFF_LLAMA_CPP_PATHS.
            NotFound: As `find`.
        """
        if not path:
            return cls.find(cache)
        own = resolved(path)
        if not any(own.is_relative_to(folder) for folder in allowed_folders()):
            raise Refused(
                f"convert.llama_cpp_path names {path}, whose programs this service may not execute",
                "leave it out (the pinned build is used), or start the service with that folder in "
                "CUTOFF_LLAMA_CPP_PATHS (folders separated by colons)",
            )
        return cls.find(cache, own)

    def version(self) -> str:
        """What the build calls itself: "0.3.36-cpu" for the pinned one, otherwise its folder's name."""
        stamp = self.folder / "VERSION"
        return stamp.read_text().strip() if stamp.is_file() else self.folder.resolve().name


def allowed_folders() -> list[Path]:
    """CUTOFF_LLAMA_CPP_PATHS: the folders in which a job's own llama.cpp may lie. None when it is not set."""
    named = os.environ.get("CUTOFF_LLAMA_CPP_PATHS", "").split(os.pathsep)
    return [Path(folder).expanduser().resolve() for folder in named if folder]


def pinned_version() -> str:
    """The version in pin.txt, which names llama.cpp's source archive and the folder of its build.

    Raises:
        ValueError: pin.txt does not say a version.
    """
    text = (resources.files("cutoff.llama_cpp") / "pin.txt").read_text()
    found = re.match(r"llama-cpp-python==(\S+)", text)
    if found is None:
        raise ValueError("llama_cpp/pin.txt does not begin with llama-cpp-python==VERSION")
    return found[1]


def pinned_folder(cache: Path) -> Path:
    """The pinned build: CUTOFF_LLAMA_CPP, or <cache>/llama.cpp/<version>-<backend>.

    Raises:
        NotFound: It was not built.
    """
    named = os.environ.get("CUTOFF_LLAMA_CPP")
    if named:
        folder = Path(named).expanduser()
        if not folder.is_dir():
            raise NotFound(f"CUTOFF_LLAMA_CPP names {folder}, which is not a folder", "correct or unset the variable")
        return folder
    builds = [cache / "llama.cpp" / f"{pinned_version()}-{backend}" for backend in _BACKENDS]
    for folder in builds:
        if (folder / "VERSION").is_file():  # build.sh writes it last
            return folder
    raise NotFound(f"the pinned llama.cpp {pinned_version()} is not in {cache / 'llama.cpp'}", _MAKE)


def _program(folder: Path, name: str) -> Path | None:
    candidates = (folder / place / name for place in _PROGRAM_FOLDERS)
    return next((path for path in candidates if os.access(path, os.X_OK) and path.is_file()), None)
