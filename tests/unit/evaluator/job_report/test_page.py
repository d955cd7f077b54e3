"""The page as text: complete, escaped, and with nothing from outside."""

import re
from html.parser import HTMLParser

import pytest

from cutoff.evaluator.job_report import page as page_module
from cutoff.evaluator.job_report.build import build_report
from cutoff.evaluator.job_report.page import render
from tests.fixtures.evaluated_job import NASTY, declines_all, forgot, knows_all, leaks_every, questions, says

ALL = {"base": knows_all, "merged": forgot, "q4_k_m": leaks_every(8)}
ATTACKS = {"base": {"role_play": (90, 100)}, "q4_k_m": {"role_play": (7, 100)}}


def page_of(made) -> str:
    return render(*build_report(made.job, made.artifacts))


class Elements(HTMLParser):
    """Collects what is opened, and what is left open."""

    void = frozenset({"meta", "input", "br", "link", "img", "use", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.void:
            assert self.open.pop() == tag


def parsed(text: str) -> Elements:
    elements = Elements()
    elements.feed(text)
    assert elements.open == []
    return elements


@pytest.mark.parametrize("targets", [ALL, {}, {"base": knows_all}, {"q4_k_m": declines_all}])
def test_every_element_is_closed(evaluated_job, targets):
    parsed(page_of(evaluated_job(targets, attacks=ATTACKS)))


def test_sections_are_there_when_there_is_something_to_tell(evaluated_job):
    headings = re.findall("<h2>(.*?)</h2>", page_of(evaluated_job(ALL, attacks=ATTACKS)))
    assert headings == [
        "Targets side by side",
        "What became of the questions",
        "Year by year",
        "What quantization changes",
        "Attacks",
        "Held against the base model",
        "Failures",
    ]
    assert re.findall("<h2>(.*?)</h2>", page_of(evaluated_job({}))) == ["Failures"]
    assert "Attacks" not in re.findall("<h2>(.*?)</h2>", page_of(evaluated_job(ALL)))


def test_what_a_model_says_is_text_and_nothing_else(evaluated_job):
    sets = {"validation": questions(5)}
    text = page_of(evaluated_job({"merged": says(NASTY), "q4_k_m": says(NASTY)}, sets=sets))
    elements = parsed(text)
    assert [tag for tag, _ in elements.found if tag == "script"] == ["script"]
    assert not [tag for tag, _ in elements.found if tag in ("img", "iframe", "object", "link", "base", "form")]
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_a_job_named_like_markup_is_text(evaluated_job):
    made = evaluated_job(ALL)
    made.job.spec.base_model = NASTY
    made.job.result.missed.append(NASTY)
    assert "<script>alert" not in page_of(made)


def test_nothing_is_named_that_would_have_to_be_fetched(evaluated_job):
    elements = parsed(page_of(evaluated_job(ALL, attacks=ATTACKS)))
    links = [value for _, attributes in elements.found for name, value in attributes.items()
             if name in ("src", "href", "xlink:href", "action", "srcset", "data")]  # fmt: skip
    assert all(link.startswith("#") for link in links)
    policy = next(a["content"] for _, a in elements.found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")


def test_failures_are_side_by_side_and_the_worst_come_first(evaluated_job):
    text = page_of(evaluated_job({**ALL, "q8_0": forgot}, quant_types=("q4_k_m", "q8_0")))
    cards = re.findall(r"<article.*?</article>", text, re.DOTALL)
    assert len(cards) == 5
    assert 'data-target="q4_k_m"' in cards[0]
    assert re.findall("<dt>(.*?)</dt>", cards[0]) == ["base", "merged", "q4_k_m", "q8_0"]
    assert 'data-kind="leaked"' in cards[0]


def test_a_long_list_is_cut_and_says_so(evaluated_job, monkeypatch):
    monkeypatch.setattr(page_module, "SHOWN_FAILURES", 7)
    text = page_of(evaluated_job({"q4_k_m": knows_all}))
    assert text.count("<article") == 7
    assert "the first 7 of 40" in text


def test_a_model_without_faults_has_no_list(evaluated_job):
    text = page_of(evaluated_job({"q4_k_m": forgot}))
    assert "<article" not in text
    assert "as it should be" in text


def test_the_same_report_is_the_same_page(evaluated_job):
    made = evaluated_job(ALL)
    report, answers = build_report(made.job, made.artifacts)
    assert render(report, answers) == render(report, answers)
