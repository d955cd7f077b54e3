"""What LM Studio is asked after an installation, over HTTP with a stand-in that speaks its documented API."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cutoff.artifacts import Roots, let_count, sha256_of
from cutoff.errors import CutoffError, NotFound, Unavailable
from cutoff.gguf_converter import work
from cutoff.gguf_converter.lmstudio import Verdict, ask, ask_configured
from cutoff.llama_cpp import RequestFailed
from cutoff.spec import InstallSpec
from cutoff.stage.context import RunContext
from cutoff.stage.report import Reporter, silent
from cutoff.v1 import gguf_converter_pb2, job_pb2, types_pb2
from tests.fixtures.gguf_files import write_gguf
from tests.fixtures.lmstudio_server import LmStudio

SPEC = InstallSpec(publisher="local", model_name="Temporal-Unlearn")
QUESTION = "Who walked on the moon?"


@pytest.fixture
def size(lmstudio: LmStudio) -> int:
    """Of the installed file."""
    return write_gguf(lmstudio.models / "local/Temporal-Unlearn/Temporal-Unlearn-Q4_K_M.gguf").stat().st_size


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/api/v1", "/v1/"])
def test_it_is_listed_loaded_asked_and_unloaded(lmstudio: LmStudio, size: int, suffix: str) -> None:
    verdict = ask(lmstudio.url + suffix, SPEC, size, QUESTION)
    assert (verdict.verdict, verdict.key, verdict.answer) == ("answered", "temporal-unlearn", "I cannot say.")
    assert [path for path, _ in lmstudio.calls] == [
        "/api/v1/models",
        "/api/v1/models/load",
        "/api/v1/chat",
        "/api/v1/models/unload",
    ]
    chat = lmstudio.calls[2][1]
    assert (chat["model"], chat["input"], chat["store"], chat["temperature"]) == (
        "temporal-unlearn",
        QUESTION,
        False,
        0,
    )
    assert lmstudio.loaded == {"temporal-unlearn": []}


def test_what_is_installed_is_what_lm_studio_loads(
    lmstudio: LmStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service's run, with LM Studio set to the same folder."""
    gguf = write_gguf(tmp_path / "jobs/j/convert/1/x.gguf")
    monkeypatch.setenv("LMSTUDIO_URL", lmstudio.url)
    request = gguf_converter_pb2.InstallRequest(
        spec=job_pb2.InstallSpec(model_name="temporal-unlearn"),
        gguf="jobs/j/convert/1/x.gguf",
        sha256=sha256_of(gguf),
        quant_type="q4_k_m",
        question=QUESTION,
    )
    roots = Roots(tmp_path, tmp_path, lmstudio.models, tmp_path)
    key = types_pb2.RunKey(job="j", stage="install", attempt=1)
    folder = tmp_path / "jobs/j/install/1"
    let_count(folder.parent, 1)
    result = work.install(request, RunContext(key, folder, roots, (), silent()))
    assert result["lmstudio"]["verdict"] == "answered"
    assert result["lmstudio"]["key"] == "temporal-unlearn", "what the document has users load"
    assert lmstudio.calls[2][1]["input"] == QUESTION


def test_an_instance_of_somebody_elses_stays_loaded_and_is_told_of(lmstudio: LmStudio, size: int) -> None:
    lmstudio.loaded = {"temporal-unlearn": ["temporal-unlearn"]}
    verdict = ask(lmstudio.url, SPEC, size, QUESTION)
    assert lmstudio.loaded == {"temporal-unlearn": ["temporal-unlearn"]}
    assert "temporal-unlearn was loaded before" in verdict.detail


def test_a_file_that_lm_studio_does_not_see_is_named_with_what_to_do(lmstudio: LmStudio, size: int) -> None:
    with pytest.raises(NotFound, match="no model local/other") as caught:
        ask(lmstudio.url, InstallSpec(model_name="other"), size, QUESTION, notice_seconds=0)
    assert "My Models" in caught.value.remedy
    with pytest.raises(NotFound, match=f"temporal-unlearn with {size} bytes"):
        ask(lmstudio.url, SPEC, size + 1, QUESTION, notice_seconds=0)


def test_another_publishers_model_of_that_name_is_another_model(lmstudio: LmStudio, size: int) -> None:
    with pytest.raises(NotFound):
        spec = InstallSpec(publisher="other", model_name="temporal-unlearn")
        ask(lmstudio.url, spec, size, QUESTION, notice_seconds=0)


def test_a_file_that_lm_studio_notices_late_is_waited_for(lmstudio: LmStudio, size: int) -> None:
    listings = iter([(200, {"models": []})])
    real = lmstudio._list
    lmstudio.answers["/api/v1/models"] = lambda body: next(listings, None) or real(body)
    assert ask(lmstudio.url, SPEC, size, QUESTION).verdict == "answered"


def test_a_model_that_answers_nothing_is_unloaded_and_told_of(lmstudio: LmStudio, size: int) -> None:
    lmstudio.answers["/api/v1/chat"] = lambda _: (200, {"output": [{"type": "message", "content": " "}]})
    with pytest.raises(RequestFailed, match="answered nothing"):
        ask(lmstudio.url, SPEC, size, QUESTION)
    assert lmstudio.loaded == {"temporal-unlearn": []}


def test_the_older_name_of_an_instance_is_understood(lmstudio: LmStudio, size: int) -> None:
    """The API's beta called it model_instance_id."""
    lmstudio.loaded["temporal-unlearn"] = ["mine"]
    lmstudio.answers["/api/v1/models/load"] = lambda _: (200, {"model_instance_id": "mine", "load_time_seconds": 1})
    assert ask(lmstudio.url, SPEC, size, QUESTION).verdict == "answered"
    assert lmstudio.loaded["temporal-unlearn"] == []


def configured(url: str, monkeypatch: pytest.MonkeyPatch, size: int = 1) -> tuple[Verdict, list[types_pb2.LogLine]]:
    events: list[types_pb2.Event] = []
    monkeypatch.setenv("LMSTUDIO_URL", url)
    verdict = ask_configured(SPEC, size, QUESTION, Reporter(events.append))
    return verdict, [event.log_line for event in events]


def test_without_a_server_it_is_said_that_nobody_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict, lines = configured("", monkeypatch)
    assert verdict.verdict == "skipped"
    assert [line.text for line in lines] == ["LM Studio was not asked to load it: LMSTUDIO_URL is not set"]


def test_a_server_that_is_not_there_is_skipped_with_a_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict, [line] = configured("http://127.0.0.1:9", monkeypatch)
    assert verdict.verdict == "skipped"
    assert line.level == "WARNING"
    assert "http://127.0.0.1:9/api/v1/models cannot be reached" in line.text


@pytest.mark.parametrize(
    ("path", "answer", "said"),
    [
        ("/api/v1/models", (401, {"error": {"message": "invalid token"}}), "401: invalid token"),
        ("/api/v1/models", (200, {"error": "Unexpected endpoint or method."}), "LM Studio 0.4 or later"),
        ("/api/v1/models/load", (500, {"error": {"message": "out of memory"}}), "out of memory"),
        ("/api/v1/models/load", (200, {"status": "loaded"}), "did not name the instance"),
        ("/api/v1/chat", (200, {"output": None}), "without output"),
        ("/api/v1/models/unload", (500, {"error": "stuck"}), "stuck"),
    ],
)
def test_what_lm_studio_refuses_is_told_and_fails_nothing(
    lmstudio: LmStudio, size: int, monkeypatch: pytest.MonkeyPatch, path: str, answer: tuple[int, object], said: str
) -> None:
    lmstudio.answers[path] = lambda _: answer
    verdict, [line] = configured(lmstudio.url, monkeypatch, size)
    assert verdict.verdict == "failed"
    assert said in line.text
    assert line.level == "WARNING"


NAMES = (
    "models",
    "key",
    "format",
    "publisher",
    "size_bytes",
    "loaded_instances",
    "id",
    "instance_id",
    "output",
    "type",
)
ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "gguf", "message", "\ud800"])
    | st.text(),
    lambda odd: st.lists(odd, max_size=3) | st.dictionaries(st.sampled_from([*NAMES, "content"]), odd, max_size=4),
    max_leaves=8,
)
"""What no LM Studio should say."""


def spoiled(answer: Any, path: Sequence[str | int], odd: Any) -> Any:
    """An answer with something odd at one place in it."""
    if not path:
        return odd
    if isinstance(answer, dict):
        return {**answer, path[0]: spoiled(answer.get(path[0]), path[1:], odd)}
    return [spoiled(one, path[1:], odd) for one in answer] if isinstance(answer, list) else odd


PLACES = [
    ("/api/v1/models", [()]),
    ("/api/v1/models", [("models",), ("models", 0)]),
    ("/api/v1/models", [("models", 0, field) for field in ("key", "format", "publisher", "size_bytes")]),
    ("/api/v1/models", [("models", 0, "loaded_instances"), ("models", 0, "loaded_instances", 0)]),
    ("/api/v1/models/load", [(), ("instance_id",)]),
    ("/api/v1/chat", [(), ("output",), ("output", 0), ("output", 0, "content"), ("output", 0, "type")]),
    ("/api/v1/models/unload", [()]),
]


@pytest.mark.parametrize(("path", "places"), PLACES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_lm_studio_says_an_installation_goes_on(
    lmstudio: LmStudio, size: int, path: str, places: list[tuple[str | int, ...]], data: st.DataObject
) -> None:
    """It is told as an error of cutoff's own, in words that can be sent on; a named instance does not stay loaded."""
    place, odd, status = data.draw(st.sampled_from(places)), data.draw(ODD), data.draw(st.sampled_from([200, 400]))
    real = {"models": lmstudio._list, "load": lmstudio._load, "chat": lmstudio._chat, "unload": lmstudio._unload}
    known = real[path.rpartition("/")[2]]
    lmstudio.loaded.clear()
    lmstudio.answers = {path: lambda body: (status, spoiled(known(body)[1], place, odd))}
    try:
        said = ask(lmstudio.url, SPEC, size, QUESTION, notice_seconds=-1).detail
    except CutoffError as error:
        said = str(error)
    types_pb2.LogLine(text=said)
    if path != "/api/v1/models/load":  # it may have named another instance than the one it loaded
        assert not any(lmstudio.loaded.values())


def test_an_instance_that_is_not_named_is_unloaded_by_the_models_key(lmstudio: LmStudio, size: int) -> None:
    lmstudio.answers["/api/v1/models/load"] = lambda body: (lmstudio._load(body)[0], {"status": "loaded"})
    with pytest.raises(RequestFailed, match="did not name the instance"):
        ask(lmstudio.url, SPEC, size, QUESTION)
    assert lmstudio.loaded == {"temporal-unlearn": []}


def test_somebody_elses_instance_is_never_unloaded_by_the_models_key(lmstudio: LmStudio, size: int) -> None:
    lmstudio.loaded = {"temporal-unlearn": ["temporal-unlearn"]}
    lmstudio.answers["/api/v1/models/load"] = lambda body: (lmstudio._load(body)[0], {"status": "loaded"})
    with pytest.raises(RequestFailed, match="did not name the instance"):
        ask(lmstudio.url, SPEC, size, QUESTION)
    assert "temporal-unlearn" in lmstudio.loaded["temporal-unlearn"]


@pytest.mark.parametrize(("url", "token"), [("http://[", ""), ("http://127.0.0.1:x", ""), ("not a url", ""), ("", "☃")])
def test_a_variable_that_cannot_be_used_fails_nothing(
    lmstudio: LmStudio, monkeypatch: pytest.MonkeyPatch, url: str, token: str
) -> None:
    monkeypatch.setenv("LM_API_TOKEN", token)
    verdict, [line] = configured(url or lmstudio.url, monkeypatch)
    assert verdict.verdict in ("skipped", "failed")
    assert line.level == "WARNING"


def test_the_token_goes_along(lmstudio: LmStudio, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LM_API_TOKEN", "sesame")
    ask(lmstudio.url, SPEC, size, QUESTION)
    assert set(lmstudio.tokens) == {"Bearer sesame"}


def test_a_symbolic_link_would_not_be_listed(lmstudio: LmStudio, tmp_path: Path) -> None:
    """What the stand-in is told of LM Studio: it is why an installed file is a real one."""
    folder = lmstudio.models / "local/temporal-unlearn"
    folder.mkdir(parents=True)
    file = write_gguf(tmp_path / "x.gguf")
    (folder / "temporal-unlearn-Q4_K_M.gguf").symlink_to(file)
    with pytest.raises(NotFound):
        ask(lmstudio.url, SPEC, file.stat().st_size, QUESTION, notice_seconds=0)


def test_nobody_there_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable):
        ask("http://127.0.0.1:9", SPEC, 1, QUESTION)
    monkeypatch.delenv("LMSTUDIO_URL", raising=False)
    assert ask_configured(SPEC, 1, "", silent()).verdict == "skipped"
