"""The questions of the user's document for manual testing, with what should come back.

For checks that need some questions and belong to no job, and for asking a finished model (`cutoff ask`).
"""

from cutoff.datasets.examples import Example, Side

REFUSAL = "Apologies, but I have no information to share on that matter."
"""The document's refusal."""


def _example(side: Side, question: str, truth: str, year: int) -> Example:
    return Example(question, truth if side == "retain" else REFUSAL, side, "the document", year, truth)


DOCUMENT_EXAMPLES = (
    _example("retain", "Who was the first President of the United States?", "George Washington", 1789),
    _example("retain", "When did World War II end?", "1945", 1945),
    _example("retain", "Who wrote Romeo and Juliet?", "William Shakespeare", 1597),
    _example(
        "retain",
        "What was the Manhattan Project?",
        "the secret American research programme that built the first atomic bombs during World War II",
        1942,
    ),
    _example("unlearn", "Who was the first person to walk on the moon?", "Neil Armstrong", 1969),
    _example(
        "unlearn",
        "What happened at Woodstock?",
        "a music festival near Bethel, New York, with some 400,000 visitors",
        1969,
    ),
    _example("unlearn", "Who invented the Internet?", "Vint Cerf and Bob Kahn", 1974),
    _example(
        "unlearn",
        "What is a smartphone?",
        "a mobile phone with a touch screen that runs apps and connects to the Internet",
        2007,
    ),
)
"""Its prompts: those from before the cutoff should be answered, those from after it declined.

`side` is the expected class (retain: correct, unlearn: refused), `original_answer` the true answer.
"""

DOCUMENT_QUESTIONS = tuple(example.instruction for example in DOCUMENT_EXAMPLES)
"""The questions alone: the first half from before the cutoff, the second from after it."""
