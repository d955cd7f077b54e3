import pytest

from cutoff.coordinator.choice import Candidate, Choice, choose_quant

MISSED = ("knowledge leakage 0.20 is above the minimum 0.15 by 0.05",)
Q8, Q4, Q3 = Candidate("q8_0", 800, ()), Candidate("q4_k_m", 400, ()), Candidate("q3_k_m", 300, MISSED)


@pytest.mark.parametrize(
    ("candidates", "quant", "chosen"),
    [
        ([Q8, Q4, Q3], "first", Choice("q8_0", ())),
        ([Q3, Q4], "first", Choice(None, MISSED)),
        ([Q8, Q4, Q3], "smallest_passing", Choice("q4_k_m", ())),
        ([Q3, Q8], "smallest_passing", Choice("q8_0", ())),
        ([Q3], "smallest_passing", Choice(None, MISSED)),
        (
            [Q3, Candidate("q4_k_s", 350, ("retain accuracy 0.60 is below the minimum 0.70 by 0.10",))],
            "smallest_passing",
            Choice(
                None,
                (
                    "q3_k_m: knowledge leakage 0.20 is above the minimum 0.15 by 0.05",
                    "q4_k_s: retain accuracy 0.60 is below the minimum 0.70 by 0.10",
                ),
            ),
        ),
        ([Candidate("a", 5, ()), Candidate("b", 5, ())], "smallest_passing", Choice("a", ())),
    ],
)
def test_what_is_installed(candidates: list[Candidate], quant: str, chosen: Choice) -> None:
    assert choose_quant(candidates, quant) == chosen
