import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutoff.evaluator.tokens import one_edit_apart, stem, tokens, words


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("nineteen seventy-one", "1971"),
        ("nineteen fourteen", "1914"),
        ("one hundred and sixteen years", "116 years"),
        ("two thousand and one", "2001"),
        ("three million five hundred thousand", "3500000"),
        ("$7.2 million", "dollar 7200000"),
        ("7,200,000 dollars", "7200000 dollar"),
        ("384 400 kilometres", "384400 kilometer"),
        ("42.195 km", "42.195 kilometer"),
        ("343 metres per second", "343 meter per sec"),
        ("343 m/s", "343 meter per sec"),
        ("78%", "78 percent"),
        ("100 °C", "100 degree celsius"),
        ("1776-07-04", "4 july 1776"),
        ("28.06.1919", "28 june 1919"),
        ("01/28/1986", "28 january 1986"),
        ("June 28th, 1919", "june 28 1919"),
        ("Apr. 15, 1912", "april 15 1912"),
        ("the fourteenth century", "the 14 century"),
        ("in '29", "in 1929"),
        ("44 B.C.", "44 bc"),
        ("Henry the Eighth", "henry the 8"),
        ("Henry VIII", "henry 8"),
        ("the First World War", "the world war 1"),
        ("World War I", "world war 1"),
        ("the U.S.", "the united states"),
        ("the USSR", "the soviet union"),
        ("Einstein\u2019s", "einstein"),
        ("N-e-i-l", "neil"),
        ("WOJTY\u0141A", "wojtyla"),
        ("seven, two", "7 2"),
        ("between 1939 and 1945", "between 1939 and 1945"),
        ("I am", "i am"),
    ],
)
def test_one_form_for_what_is_written_in_several(written: str, found: str) -> None:
    assert " ".join(words(written)) == found


def test_capitals_and_punctuation_are_remembered() -> None:
    found = tokens("In Paris, Washington met NATO")
    assert [(one.text, one.capital, one.shouted, one.fresh) for one in found] == [
        ("in", True, False, True),
        ("paris", True, False, False),
        ("washington", True, False, True),
        ("met", False, False, False),
        ("nato", True, True, False),
    ]


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ("armstrong", "armstong", True),
        ("johannes", "johanes", True),
        ("kepler", "keppler", True),
        ("austria", "australia", False),
        ("slovakia", "slovenia", False),
        ("iran", "iraq", False),
        ("1969", "1968", False),
        ("kepler", "kepler", False),
    ],
)
def test_slips_of_spelling(one: str, other: str, apart: bool) -> None:
    assert one_edit_apart(one, other) == one_edit_apart(other, one) == apart


@given(st.text())
def test_any_text_has_tokens_and_the_same_each_time(text: str) -> None:
    assert words(text) == words(text)
    assert all(one.text for one in tokens(text))


@given(st.from_regex(r"[a-z]{1,20}", fullmatch=True))
def test_a_stem_is_a_beginning(word: str) -> None:
    assert word.startswith(stem(word))
    assert stem(word)


@given(st.integers(0, 999_999))
def test_digits_stay_what_they_are(number: int) -> None:
    assert words(f"about {number} of them") == ["about", str(number), "of", "them"]
    assert words(f"{number:,}") == [str(number)]
