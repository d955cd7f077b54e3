"""Runs convert_hf_to_gguf.py with metadata of our own in the file it writes.

The script's --metadata knows the keys of `general.*` only. A GGUF's metadata stands before its tensors, so adding a
key later means writing the whole file again. This little program adds the keys where the script's own writer is
about to write them. It runs in the script's process and imports nothing of cutoff:

    python -P script_with_metadata.py keys.json convert_hf_to_gguf.py MODEL --outfile ...
"""

import json
import runpy
import sys
from pathlib import Path


def main() -> None:
    """Takes the keys and the script off the arguments, and runs the script with the rest."""
    keys, script = json.loads(Path(sys.argv[1]).read_text("utf-8")), Path(sys.argv[2])
    sys.argv = sys.argv[2:]
    sys.path.insert(0, str(script.parent))  # as `python script` does
    import gguf  # that of the script's own llama.cpp: PYTHONPATH names it

    class Writer(gguf.GGUFWriter):
        def write_header_to_file(self, path: Path | None = None) -> None:
            for key, value in keys.items():
                self.add_string(key, value)
            super().write_header_to_file(path)

    gguf.GGUFWriter = Writer  # type: ignore[misc]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
