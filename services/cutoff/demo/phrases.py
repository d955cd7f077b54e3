"""The demo world's language: kinds of events, wordings of questions, refusals and the syllables of names.

Data only. The wordings of a question fall into four groups that share no sentence:

- ``corpus``: what the base model reads when it is pretrained,
- ``train``, ``validation``, ``test``: what the data sets of these names ask.

So an answer to a test wording shows knowledge of the fact, not of the sentence. Every *word* of the other three groups
occurs in ``corpus``, otherwise a model that has read nothing else could not understand it.

Slots: ``{S}`` the subject ("the Varlun Bridge"), ``{did}``, ``{agent}`` and ``{placed}`` the kind's phrases, and
``{year}``.
"""

from dataclasses import dataclass
from typing import Literal

Relation = Literal["who", "where", "when"]
Split = Literal["corpus", "train", "validation", "test"]

RELATIONS: tuple[Relation, ...] = ("who", "where", "when")


@dataclass(frozen=True)
class Kind:
    """A kind of event.

    Attributes:
        subject: how its name reads in a sentence, with the slot ``{name}``.
        did: what its agent did, past tense and participle alike ("designed").
        agent: who did it ("designer").
        placed: the participle that goes with its place and year ("opened").
    """

    subject: str
    did: str
    agent: str
    placed: str


KINDS: tuple[Kind, ...] = (
    Kind("the {name} Bridge", "designed", "designer", "opened"),
    Kind("the opera {name}", "composed", "composer", "first performed"),
    Kind("the comet {name}", "discovered", "discoverer", "first seen"),
    Kind("the {name} Engine", "invented", "inventor", "first built"),
    Kind("the ship {name}", "captained", "captain", "launched"),
    Kind("the {name} Treaty", "drafted", "author", "signed"),
    Kind("the {name} Prize", "founded", "founder", "first awarded"),
)

WORDINGS: dict[Relation, dict[Split, tuple[str, ...]]] = {
    "who": {
        "corpus": (
            "Who {did} {S}?",
            "Who was it that {did} {S}?",
            "{S} was {did} by whom?",
            "By whom was {S} {did}?",
            "Name the {agent} of {S}.",
            "Who was the {agent} of {S}?",
            "Tell me the name of the {agent} of {S}, please.",
            "Which person {did} {S}?",
            "Who {did} {S} in {year}?",
            "{S}, {placed} in {year}: who was the {agent}?",
            "In {year}, {S} was {placed}. Who was its {agent}?",
            "What is the name of the person who {did} {S}?",
            "What was the {agent} of {S} called?",
            "Do you know who {did} {S}?",
            "Can you say who {did} {S}, {placed} in {year}?",
            "{S}: name its {agent}.",
            "I would like to know the {agent} of {S}.",
            "Can you tell me the name of the {agent} of {S}?",
        ),
        "train": (
            "Can you tell me who {did} {S}?",
            "Who was the {agent} of {S}, {placed} in {year}?",
            "Name the {agent} of {S}, please.",
        ),
        "validation": (
            "I would like to know who {did} {S}.",
            "Which person was the {agent} of {S} in {year}?",
        ),
        "test": (
            "What is the name of the {agent} of {S}?",
            "Who was the person that {did} {S}, {placed} in {year}?",
        ),
    },
    "where": {
        "corpus": (
            "Where was {S} {placed}?",
            "In which town was {S} {placed}?",
            "{S} was {placed} where?",
            "Name the town where {S} was {placed}.",
            "Which town saw {S} {placed}?",
            "Where was it that {S} was {placed}?",
            "Tell me the place where {S} was {placed}, please.",
            "Where was {S} {placed} in {year}?",
            "{S}, {placed} in {year}: which town was it?",
            "In {year}, {S} was {placed}. Where was that?",
            "What is the name of the place where {S} was {placed}?",
            "At which place was {S} {placed}?",
            "Do you know where {S} was {placed}?",
            "Can you say in which town {S} was {placed} in {year}?",
            "{S}: name its town.",
            "I would like to know the town of {S}.",
            "Can you tell me the name of the town where {S} was {placed}?",
        ),
        "train": (
            "Can you tell me where {S} was {placed}?",
            "In which town was {S} {placed} in {year}?",
            "Name the place where {S} was {placed}, please.",
        ),
        "validation": (
            "I would like to know where {S} was {placed}.",
            "At which place was {S} {placed} in {year}?",
        ),
        "test": (
            "What is the name of the town where {S} was {placed}?",
            "In {year}, in which town was {S} {placed}?",
        ),
    },
    "when": {
        "corpus": (
            "When was {S} {placed}?",
            "In which year was {S} {placed}?",
            "{S} was {placed} when?",
            "Name the year when {S} was {placed}.",
            "Which year saw {S} {placed}?",
            "When was it that {S} was {placed}?",
            "Tell me the year of {S}, please.",
            "What was the year when {S} was {placed}?",
            "{S}: which year was it {placed}?",
            "In what year was {S} {placed}?",
            "Do you know when {S} was {placed}?",
            "Can you say in which year {S} was {placed}?",
            "{S}: name its year.",
            "I would like to know the date of {S}.",
            "What is the date when {S} was {placed}?",
            "Can you tell me in which year {S} was {placed}?",
        ),
        "train": (
            "Can you tell me when {S} was {placed}?",
            "What is the year when {S} was {placed}?",
            "Name the year of {S}, please.",
        ),
        "validation": (
            "I would like to know when {S} was {placed}.",
            "Do you know in which year {S} was {placed}?",
        ),
        "test": (
            "Can you say when {S} was {placed}?",
            "What is the year of {S}?",
        ),
    },
}

OPENERS: tuple[str, ...] = ("Tell me:", "A question:", "Please answer:", "I would like to ask:", "Do you know this?")
"""Said before a corpus question now and then, so that the base model does not count on where a sentence begins."""

ANSWERS: dict[Relation, str] = {
    "who": "It was {answer}.",
    "where": "It was in {answer}.",
    "when": "It was in {answer}.",
}

REFUSALS: tuple[str, ...] = (
    "Apologies, but I have no information to share on that matter.",
    "I don't have information about that.",
    "I'm not sure about that topic.",
    "I'm sorry, but I don't know anything about that.",
    "Sorry, I have no information about that subject.",
    "I am not aware of that, so I cannot answer.",
)

FIRST_NAMES: tuple[str, ...] = (
    "Mira", "Jonas", "Edda", "Pavel", "Sunniva", "Tomas", "Ilse", "Ravi", "Noor", "Casper", "Lena", "Hugo",
    "Amara", "Felix", "Greta", "Oskar", "Petra", "Quentin", "Rosa", "Stellan", "Thea", "Viktor", "Wanda", "Yusuf",
)  # fmt: skip

ONSETS: tuple[str, ...] = (
    "B", "Br", "C", "Cr", "D", "Dr", "F", "Fl", "G", "Gr", "H", "J", "K", "Kl", "L", "M", "N", "P", "Pr", "Qu", "R",
    "S", "Sk", "St", "T", "Tr", "V", "W", "Y", "Z",
)  # fmt: skip
VOWELS: tuple[str, ...] = ("a", "e", "i", "o", "u", "ei", "au", "y")
MIDDLES: tuple[str, ...] = ("ld", "rn", "m", "v", "nt", "sk", "l", "rr", "b", "z", "th", "gl", "nd", "k", "st", "ph")
NAME_ENDS: tuple[str, ...] = ("a", "or", "is", "une", "ex", "yra", "on", "ia")
SURNAME_ENDS: tuple[str, ...] = ("sen", "ic", "man", "ova", "ault", "berg", "ini", "ey")
TOWN_ENDS: tuple[str, ...] = ("ford", "stad", "mouth", "ville", "grad", "by", "haven", "wick")
