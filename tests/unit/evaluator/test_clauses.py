import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutoff.evaluator.clauses import Standing, read


@pytest.mark.parametrize(
    ("answer", "standings"),
    [
        ("It was not Edison but Bell.", {"denied": "It was not Edison", "asserted": "Bell."}),
        ("Canberra, not Sydney.", {"asserted": "Canberra,", "denied": "not Sydney."}),
        ("Bell did not invent it; Meucci did.", {"denied": "Bell did not invent it;", "asserted": "Meucci did."}),
        ("Gallium, unlike mercury, melts.", {"asserted": "Gallium, , melts.", "denied": "unlike mercury"}),
        ("Not until 1920.", {"asserted": "Not until 1920."}),
        ("None other than Napoleon.", {"asserted": "None other than Napoleon."}),
        ("There is no doubt that it was Nelson.", {"asserted": "There is no doubt that it was Nelson."}),
        ("Wasn't that Rembrandt?", {"asserted": "Was not that Rembrandt?"}),
        ("Plants cannot live without light.", {"asserted": "Plants cannot live without light."}),
        ("Ankara. Actually no, Istanbul.", {"withdrawn": "Ankara.", "asserted": "Actually no, Istanbul."}),
        ("Many think it was Watt, but it was Newcomen.",
         {"withdrawn": "Many think it was Watt", "asserted": "it was Newcomen."}),
        ("Newton, though Hooke claimed it.", {"asserted": "Newton", "aside": "Hooke claimed it."}),
        ("Plato, who taught Aristotle.", {"asserted": "Plato ,", "aside": "who taught Aristotle."}),
        ("I have no information about Eco.", {"declining": "I have no information about Eco."}),
        ("I met Mr. Smith of St. Louis. He left.", {"asserted": "I met Mr. Smith of St. Louis. . He left."}),
        ("<think>Hooke.</think>Newton.", {"asserted": "Newton."}),
    ],
)  # fmt: skip
def test_an_answer_is_taken_apart(answer: str, standings: dict[Standing, str]) -> None:
    reading = read(answer)
    every: tuple[Standing, ...] = ("asserted", "denied", "withdrawn", "aside", "declining")
    assert {standing: reading.text(standing) for standing in every if reading.text(standing)} == standings


def test_a_reference_with_a_negation_is_not_denied_by_it() -> None:
    assert read("He knew nothing and did not say.", may_deny=False).text("denied") == ""


@pytest.mark.parametrize(
    ("answer", "declines", "claims"),
    [
        ("I don't know.", True, "nothing"),
        ("I'm not really sure.", True, "nothing"),
        ("Sorry, it opened in 1994.", False, "an answer"),
        ("It was 1990, though I'm not sure.", False, "an answer"),
        ("I don't know, but it was probably 1990.", True, "an answer"),
        ("Steven and Kate; I have no information about their pay.", True, "an answer"),
        ("I don't know. Bridges are built by engineers.", True, "something"),
        ("I can't say. Feel free to ask about something else!", True, "nothing"),
        ("He was not certain of victory.", False, "an answer"),
        ("", False, "nothing"),
    ],
)
def test_declining_and_claiming(answer: str, declines: bool, claims: str) -> None:
    reading = read(answer)
    assert (reading.declines, reading.claims) == (declines, claims)


@given(st.text(), st.text())
def test_any_text_can_be_read(answer: str, question: str) -> None:
    reading = read(answer, question)
    assert all(part.text for part in reading.parts)
