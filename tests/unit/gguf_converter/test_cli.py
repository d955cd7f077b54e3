import sys
from pathlib import Path

import pytest

from cutoff.gguf_converter import cli
from cutoff.gguf_converter.gguf_file import read_gguf
from cutoff.llama_cpp import LlamaCpp

TABLE = {
    "model_path": None,
    "output_path": None,
    "quant_type": "q4_k_m",
    "llama_cpp_path": Path("llama.cpp"),
    "install_lmstudio": False,
    "lmstudio_models": Path("/mnt/data/lmstudio/models"),
    "model_name": None,
}
"""The user's document's flags and defaults."""

BESIDES = {"replace": False, "keep_f16": False, "imatrix": "auto", "retain_train": None, "retain_val": None}
"""What the document does not have."""


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["convert_to_gguf", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_the_flags_are_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LMSTUDIO_MODELS", raising=False)
    flags = cli.parser()
    assert {action.dest: action.default for action in flags._actions if action.dest != "help"} == TABLE | BESIDES
    assert {action.dest for action in flags._actions if action.required} == {"model_path", "output_path"}


def test_wrong_usage_is_exit_code_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--model_path", "x", "--output_path", "y.gguf", "--quant_type", "q9_x") == 2
    assert "q3_k_m" in capsys.readouterr().err
    assert run(monkeypatch) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--model_path", "nowhere", "--output_path", "y.gguf"], 2, "nowhere"),
        (["--model_path", "x", "--output_path", "."], 2, "--output_path"),
        (
            ["--model_path", "x", "--output_path", "y.gguf", "--llama_cpp_path", "gone"],
            2,
            "llama.cpp not found at: gone",
        ),
        (["--model_path", "x", "--output_path", "y.gguf", "--model_name", "a b"], 2, "model_name"),
        (["--model_path", "x", "--output_path", "y.gguf", "--quant_type", "iq1_s", "--imatrix", "never"], 2, "imatrix"),
    ],
)
def test_bad_input_is_named_without_a_question(
    llama: LlamaCpp,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == code
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_the_documents_command_converts_and_installs(
    llama: LlamaCpp,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUTOFF_ARTIFACTS", str(tmp_path / "output"))
    models = tmp_path / "models"
    arguments = ["--model_path", str(tiny_model), "--output_path", "output/temporal.gguf", "--install_lmstudio"]
    assert run(monkeypatch, *arguments, "--lmstudio_models", str(models)) == 0
    assert read_gguf(tmp_path / "output/temporal.gguf").tensors == 11
    assert [path.name for path in models.rglob("*.gguf")] == ["temporal-Q4_K_M.gguf"]
    assert (models / "local/temporal/temporal-Q4_K_M.gguf").is_file()  # the name comes from the output file
    assert 'lms load "temporal"' in capsys.readouterr().out

    again = [*arguments, "--lmstudio_models", str(models)]
    assert run(monkeypatch, *again, "--quant_type", "f16") == 1, "another model has the name"
    assert "--replace" in capsys.readouterr().err
    assert run(monkeypatch, *again, "--quant_type", "f16", "--replace") == 0
    assert [path.name for path in models.rglob("*.gguf")] == ["temporal-F16.gguf"]
