"""The page in a real browser: on a phone and on a desk, with a search that works and nothing fetched."""

import pytest

from cutoff.evaluator.job_report.write import PAGE, write_report
from tests.fixtures.evaluated_job import NASTY, forgot, knows_all, leaks_every, make_evaluated_job, questions

PHONE, DESK = 390, 1200
ATTACKS = {"base": {"role_play": (90, 100)}, "q4_k_m": {"role_play": (7, 100)}}
LONG = "x" * 400


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")

    def odd(example):
        number = int(example.source.rpartition(":")[2])
        if example.side == "retain" and number < 4:
            return [NASTY, LONG, ""][number - 1]
        return leaks_every(8)(example)

    targets = {"base": knows_all, "merged": forgot, "q4_k_m": odd, "q3_k_m": leaks_every(3)}
    sets = {"validation": questions(40), "test": questions(16)}
    made = make_evaluated_job(folder / "output", targets, sets, ("q4_k_m", "q3_k_m"), ATTACKS)
    made.job.spec.base_model = "/a/very/long/path/" + LONG
    write_report(made.job, made.artifacts, folder / "page")
    return folder / "page" / PAGE


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, PHONE, 768, DESK])
def test_it_fits_and_nothing_goes_wrong(browser_page, page_file, width, dark):
    browser_page.open(page_file, width, dark=dark)
    assert browser_page.run("document.scrollingElement.scrollWidth") <= width
    elements = "[...document.querySelectorAll('main *')].filter((e) => !e.closest('svg, thead'))"
    outside = f"{elements}.filter((e) => e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML)"
    assert browser_page.run(outside) == []
    assert browser_page.errors == []
    assert browser_page.requests == [page_file.as_uri()]


def test_dark_is_dark_and_light_is_light(browser_page, page_file):
    sums = []
    for dark in (False, True):
        browser_page.open(page_file, DESK, dark=dark)
        colour = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
        sums.append(sum(browser_page.run(colour)))
        text = browser_page.run("getComputedStyle(document.querySelector('svg text')).fill.match(/\\d+/g).map(Number)")
        assert (sum(text) > 380) == dark
    assert sums[0] > 650
    assert sums[1] < 120


def test_the_verdict_is_seen_without_scrolling(browser_page, page_file):
    for width, height in ((PHONE, 844), (DESK, 800)):
        browser_page.open(page_file, width, height)
        shown = browser_page.run("document.querySelector('.answers').getBoundingClientRect().top")
        assert browser_page.run("document.querySelector('h1').getBoundingClientRect().bottom") < height / 2
        assert shown < height * 0.8


def test_each_width_has_its_own_plots(browser_page, page_file):
    for width, shown, hidden in ((PHONE, "narrow", "wide"), (DESK, "wide", "narrow")):
        browser_page.open(page_file, width)
        assert browser_page.run(f"document.querySelector('figure .{shown} svg').getBoundingClientRect().width") > 200
        assert browser_page.run(f"document.querySelector('figure .{hidden} svg').getBoundingClientRect().width") == 0
        heights = "[...document.querySelectorAll('svg text')].map((text) => text.getBoundingClientRect().height)"
        assert browser_page.run(f"Math.min(...{heights}.filter((height) => height > 0))") >= 9, "can be read"


def visible(page) -> int:
    found: int = page.run("[...document.querySelectorAll('.failure')].filter((e) => e.offsetHeight > 0).length")
    return found


def type_into(page, text: str) -> None:
    page.run(f"{{const box = document.getElementById('search'); box.value = {text!r};"
             " box.dispatchEvent(new Event('input'));}")  # fmt: skip


def choose(page, name: str, value: str) -> None:
    page.run(f"{{const one = document.querySelector('select[name={name}]'); one.value = {value!r};"
             " one.dispatchEvent(new Event('change'));}")  # fmt: skip


def test_the_search_finds_questions_and_answers(browser_page, page_file):
    browser_page.open(page_file, PHONE)
    everything = visible(browser_page)
    assert browser_page.run("document.getElementById('count').textContent") == f"{everything} of {everything}"
    type_into(browser_page, "NEW bridge 16?")
    assert 0 < visible(browser_page) < everything
    type_into(browser_page, "alert(1)")
    assert visible(browser_page) == 2, "of two sets"
    type_into(browser_page, "no such words anywhere")
    assert visible(browser_page) == 0
    assert not browser_page.run("document.getElementById('none').hidden")
    type_into(browser_page, "")
    assert visible(browser_page) == everything


def test_filters_work_together(browser_page, page_file):
    browser_page.open(page_file, DESK)
    choose(browser_page, "set", "validation")
    validation = visible(browser_page)
    choose(browser_page, "target", "q4_k_m")
    of_target = visible(browser_page)
    choose(browser_page, "kind", "leaked")
    assert visible(browser_page) == 5
    assert 5 < of_target < validation


def test_no_script_but_its_own_can_run(browser_page, page_file, tmp_path):
    other = tmp_path / "other.html"
    other.write_text(page_file.read_text().replace("<h1>", "<script>window.stranger = 1</script><h1>"))
    browser_page.open(other, DESK)
    assert browser_page.run("window.stranger") is None
    assert any("Content Security Policy" in error for error in browser_page.errors)
    assert visible(browser_page) > 0
