from __future__ import annotations

import json
from pathlib import Path

import pytest

from cutoff.errors import ProgramFailed
from cutoff.llama_cpp import LlamaCpp, convert

SCRIPT = "import sys, transformers; transformers.AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)"
"""What llama.cpp's converter does with the tokenizers of some architectures."""


def test_code_beside_a_tokenizer_does_not_run_in_the_converter(tmp_path: Path) -> None:
    model, marker, script = tmp_path / "model", tmp_path / "executed", tmp_path / "convert.py"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')
    own = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (model / "tokenizer_config.json").write_text(json.dumps(own))
    (model / "own.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nclass Own: pass\n")
    script.write_text(SCRIPT)
    llama = LlamaCpp(tmp_path, script, script, script, script)
    with pytest.raises(ProgramFailed):
        convert(llama, model, tmp_path / "f16.gguf", "m", lambda *_: None)
    assert not marker.exists()
