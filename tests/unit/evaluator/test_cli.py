import json
import sys
from pathlib import Path
from typing import Any

import pytest

from cutoff.evaluator import cli
from cutoff.llama_cpp import LlamaCpp
from cutoff.llama_cpp import chat as chat_module
from tests.fixtures.openai_server import reply

TABLE = {
    "model_path": None,
    "use_lmstudio": False,
    "lmstudio_url": "http://localhost:1234/v1",
    "lmstudio_model": None,
    "test_file": None,
    "max_tokens": 256,
    "output": None,
    "verbose": False,
    "limit": None,
}
"""The user's document's flags and defaults."""


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["evaluate_temporal", *map(str, arguments)])
    monkeypatch.setattr(chat_module, "_BACKOFF", ())
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_the_flags_are_the_documents() -> None:
    flags = cli.parser()
    known = {action.dest: action.default for action in flags._actions if action.dest != "help"}
    assert {name: known.pop(name) for name in TABLE} == TABLE
    assert known == {"judge": None, "judge_model": None, "attacks": []}, "what the document does not have"
    assert {action.option_strings[0] for action in flags._actions} == {
        *(f"--{name}" for name in (*TABLE, "judge", "judge_model", "attacks")),
        "-h",
    }


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--model_path", "x", "--use_lmstudio"],
        ["--model_path", "x", "--limit", "0"],
        ["--nope"],
        ["--model_path", "x", "--attacks", "fewshot"],
        ["--model_path", "x", "--judge", "http://localhost/v1"],
    ],
)
def test_wrong_usage_is_exit_code_2(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    assert run(monkeypatch, *arguments) == 2


def test_the_documents_command(
    tiny_model: Path,
    tiny_questions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "results.json"
    flags = ["--max_tokens", 32, "--limit", 5, "--verbose", "--output", output]
    assert run(monkeypatch, "--model_path", tiny_model, "--test_file", tiny_questions, *flags) == 0
    out, err = capsys.readouterr()
    assert "📊 OVERALL\n----------------------------------------\n  Temporal accuracy: 100.0%" in out
    assert err.count("CORRECT: ") + err.count("REFUSED: ") == 5
    content = json.loads(output.read_text())
    assert content["sets"]["test"]["temporal_accuracy"]["total"] == 5
    assert len((tmp_path / "results.examples.jsonl").read_text().splitlines()) == 5


def test_a_gguf_and_the_validation_files(
    llama: LlamaCpp,
    tiny_f16: Path,
    tiny_questions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = tiny_questions.read_text().splitlines(keepends=True)
    for side in ("retain", "unlearn"):
        (tmp_path / side).mkdir()
        (tmp_path / side / f"{side}_val.jsonl").write_text("".join(line for line in lines if f'"{side}"' in line))
    monkeypatch.setenv("CUTOFF_DATASETS", str(tmp_path))
    assert run(monkeypatch, "--model_path", tiny_f16, "--max_tokens", 32) == 0
    out = capsys.readouterr().out
    assert "  Total questions: 8\n  Correctly refused: 8 (100.0%)" in out
    assert "✅ EXCELLENT - Model meets target metrics!" in out


def test_attacks_by_hand(
    tiny_model: Path,
    tiny_questions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "results.json"
    flags = ["--max_tokens", 32, "--output", output, "--attacks", "few_shot", "role_play"]
    assert run(monkeypatch, "--model_path", tiny_model, "--test_file", tiny_questions, *flags) == 0
    out = capsys.readouterr().out
    measured = json.loads(output.read_text())["attacks"]
    assert list(measured) == ["plain", "few_shot", "role_play"]
    assert f"role_play: {measured['role_play']['count'] / measured['role_play']['total']:.1%} (" in out
    asked = [json.loads(line)["attack"] for line in (tmp_path / "results.attacks.jsonl").read_text().splitlines()]
    assert set(asked) == {"few_shot", "role_play"}
    assert run(monkeypatch, "--model_path", tiny_model, "--attacks", "fewshot") == 2
    assert "did you mean few_shot?" in capsys.readouterr().err


def test_lm_studio(
    openai: Any, tiny_questions: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--use_lmstudio", "--lmstudio_url", openai.url, "--test_file", tiny_questions]
    assert run(monkeypatch, *flags, "--lmstudio_model", "temporal-unlearn") == 0
    assert "Correctly refused: 8 (100.0%)" in capsys.readouterr().out
    assert run(monkeypatch, *flags, "--lmstudio_model", "nope") == 2
    assert "temporal-unlearn, other" in capsys.readouterr().err
    openai.close()
    assert run(monkeypatch, *flags, "--lmstudio_model", "temporal-unlearn") == 1
    assert "cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize(("side", "other"), [("retain", "unlearn"), ("unlearn", "retain")])
def test_a_file_with_one_label_leaves_the_other_sides_numbers_open(
    openai: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    side: str,
    other: str,
) -> None:
    lines = [{"instruction": f"Who {n}?", "output": "Mira.", "metadata": {"dataset_type": side}} for n in range(3)]
    test_file, output = tmp_path / "one.jsonl", tmp_path / "results.json"
    test_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = ["--use_lmstudio", "--lmstudio_url", openai.url, "--lmstudio_model", "other", "--output", output]
    assert run(monkeypatch, *flags, "--test_file", test_file) == 0
    assert capsys.readouterr().out.count("0 (n/a)") == 2
    measured = json.loads(output.read_text())["sets"]["test"]
    for name, value in measured.items():
        if name.startswith(other):
            assert value is None, name
    assert measured[f"{side}_refused"]["count"] == 3
    assert measured["by_year"] is None
    assert [sentence for sentence in measured["missed_minimum"] if "was not measured" in sentence]


def test_a_judge_settles_what_the_rules_cannot(
    openai: Any, tiny_questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        asked = body["messages"][0]["content"]
        judging = "exactly one word" in asked
        return 200, reply("REFUSED" if judging else "I don't know. Much is built by engineers.")

    openai.answer = answer
    output = tmp_path / "results.json"
    flags = ["--use_lmstudio", "--lmstudio_url", openai.url, "--lmstudio_model", "other", "--output", output]
    judged = ["--judge", openai.url, "--judge_model", "temporal-unlearn", "--test_file", tiny_questions]
    assert run(monkeypatch, *flags, *judged) == 0
    measured = json.loads(output.read_text())["sets"]["test"]
    assert (measured["undecided"], measured["judged"]) == (0, 16)
    assert measured["unlearn_refused"]["count"] == 8
    assert {body["model"] for body in openai.requests} == {"other", "temporal-unlearn"}
    assert run(monkeypatch, *flags, *judged, "--judge_model", "nope") == 2


def test_bad_input_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"instruction": "Who?"}\nnot json\n')
    assert run(monkeypatch, "--model_path", tmp_path, "--test_file", broken) == 2
    err = capsys.readouterr().err
    assert "broken.jsonl:1" in err
    assert "broken.jsonl:2" in err
    assert "Traceback" not in err
