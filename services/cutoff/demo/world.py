"""A made-up world of dated facts, half before and half after a cutoff, and the questions about them.

Pure: the same arguments give the same world, on any machine. Nothing here touches a file or imports torch.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from cutoff.demo import phrases
from cutoff.demo.phrases import ANSWERS, KINDS, RELATIONS, WORDINGS, Kind, Relation, Split
from cutoff.errors import Fault, InvalidInput

CUTOFF_YEAR = 1969
"""The last year the model may know."""
YEARS_PER_SIDE = 40
HELD_OUT_SHARE = 0.1
MINIMUM_FACTS = 8
MAXIMUM_FACTS = 5000


@dataclass(frozen=True)
class Question:
    """One question in one wording.

    Attributes:
        fact: identifier of the fact it asks about.
        relation: what it asks for: ``who``, ``where`` or ``when``.
        text: the question as a user would type it.
        answer: the bare true answer ("Mira Tolsen", "Kestrelford", "1934").
        reply: the true answer as a short sentence.
        year: year of the fact.
    """

    fact: str
    relation: Relation
    text: str
    answer: str
    reply: str
    year: int


@dataclass(frozen=True)
class Fact:
    """A dated event with three things to ask about it.

    Attributes:
        id: ``fact-0001`` and so on, in the order of creation.
        kind: what sort of event it is.
        subject: its name as it reads in a sentence; unique in its world.
        who: the person behind it; where: the town; year: when.
        held_out: True for a fact that stands in no training or validation set.
        variants: for each relation, which of a split's wordings asks for it.
    """

    id: str
    kind: Kind
    subject: str
    who: str
    where: str
    year: int
    held_out: bool
    variants: tuple[int, int, int]

    @property
    def after_cutoff(self) -> bool:
        """Whether the model shall forget it."""
        return self.year > CUTOFF_YEAR

    def answer(self, relation: Relation) -> str:
        """The bare true answer."""
        return {"who": self.who, "where": self.where, "when": str(self.year)}[relation]

    def ask(self, relation: Relation, wording: str) -> Question:
        """The question in ``wording``, one of ``phrases.WORDINGS[relation]``."""
        text = wording.format(
            S=self.subject, did=self.kind.did, agent=self.kind.agent, placed=self.kind.placed, year=self.year
        )
        answer = self.answer(relation)
        reply = ANSWERS[relation].format(answer=answer)
        return Question(self.id, relation, text[0].upper() + text[1:], answer, reply, self.year)

    def questions(self, split: Split) -> Iterator[Question]:
        """The fact's three questions: in every wording of ``train``, or in one wording of another split."""
        for relation, variant in zip(RELATIONS, self.variants, strict=True):
            wordings = WORDINGS[relation][split]
            for wording in wordings if split == "train" else (wordings[variant % len(wordings)],):
                yield self.ask(relation, wording)


@dataclass(frozen=True)
class World:
    """All facts of a demo world, and the seed they came from."""

    seed: int
    facts: tuple[Fact, ...]

    def questions(self, split: Split, *, after_cutoff: bool, held_out: bool = False) -> list[Question]:
        """The questions of one side of the cutoff, in the wordings of ``split``, in the order of the facts."""
        chosen = (f for f in self.facts if f.after_cutoff == after_cutoff and f.held_out == held_out)
        return [question for fact in chosen for question in fact.questions(split)]


def seeded_random(purpose: str, seed: int) -> random.Random:
    """A generator of its own for each purpose, so that a draw more in one place changes nothing in another."""
    return random.Random(f"cutoff-demo-{purpose}-{seed}")  # noqa: S311 - meant to be repeated, not to be secret


def make_world(facts: int, seed: int) -> World:
    """Makes a world of ``facts`` facts, half of them (rounded up) no later than the cutoff, the others after it.

    One fact in ten on each side, at least one, is held out of training.

    Raises:
        InvalidInput: ``facts`` is below 8 (too few for every data set to have a line) or above 5000.
    """
    if not MINIMUM_FACTS <= facts <= MAXIMUM_FACTS:
        what = f"a demo world has {MINIMUM_FACTS} to {MAXIMUM_FACTS} facts, not {facts}"
        raise InvalidInput([Fault("facts", what, "choose a number between them (--facts)")])
    rng = seeded_random("world", seed)
    names = _names(rng, facts, phrases.NAME_ENDS, taken=set())
    surnames = _names(rng, facts, phrases.SURNAME_ENDS, taken=set(names))
    towns = _names(rng, max(4, facts // 2), phrases.TOWN_ENDS, taken={*names, *surnames})
    years = _years(rng, (facts + 1) // 2, CUTOFF_YEAR - YEARS_PER_SIDE + 1)
    years += _years(rng, facts // 2, CUTOFF_YEAR + 1)
    held_out = _held_out(rng, years)
    made = (
        _fact(rng, f"fact-{index + 1:04d}", name, surname, rng.choice(towns), year, held_out=index in held_out)
        for index, (name, surname, year) in enumerate(zip(names, surnames, years, strict=True))
    )
    return World(seed, tuple(made))


def before_cutoff(world: World) -> World:
    """The same world without what came after the cutoff: what a model with a true cutoff could know."""
    return replace(world, facts=tuple(fact for fact in world.facts if not fact.after_cutoff))


def make_strangers(world: World, count: int, rng: random.Random) -> list[Fact]:
    """``count`` events that ``world`` knows nothing of; what is true of them is left open."""
    taken = {fact.subject.split()[word] for fact in world.facts for word in (1, 2)}
    names = _names(rng, count, phrases.NAME_ENDS, taken)
    first, last = CUTOFF_YEAR - YEARS_PER_SIDE + 1, CUTOFF_YEAR + YEARS_PER_SIDE
    return [_fact(rng, "stranger", name, "?", "?", rng.randint(first, last), held_out=True) for name in names]


def _fact(rng: random.Random, id_: str, name: str, surname: str, town: str, year: int, *, held_out: bool) -> Fact:
    kind = rng.choice(KINDS)
    return Fact(
        id=id_,
        kind=kind,
        subject=kind.subject.format(name=name),
        who=f"{rng.choice(phrases.FIRST_NAMES)} {surname}",
        where=town,
        year=year,
        held_out=held_out,
        variants=(rng.randrange(2), rng.randrange(2), rng.randrange(2)),
    )


def _names(rng: random.Random, count: int, ends: tuple[str, ...], taken: set[str]) -> list[str]:
    """``count`` different made-up names; none is contained in ``taken``, which is left as it is."""
    names: dict[str, None] = {}
    while len(names) < count:
        middle = rng.choice(phrases.VOWELS) + rng.choice(phrases.MIDDLES)
        name = rng.choice(phrases.ONSETS) + middle + rng.choice(ends)
        if name not in taken:
            names[name] = None
    return list(names)


def _years(rng: random.Random, count: int, first: int) -> list[int]:
    """``count`` years from ``first`` on, spread evenly over the side's forty, in random order."""
    years = [first + index % YEARS_PER_SIDE for index in range(count)]
    rng.shuffle(years)
    return years


def _held_out(rng: random.Random, years: list[int]) -> set[int]:
    """Indexes of the facts in no training set: one in ten on each side, at least one."""
    held_out: set[int] = set()
    for after in (False, True):
        side = [index for index, year in enumerate(years) if (year > CUTOFF_YEAR) == after]
        held_out.update(rng.sample(side, max(1, round(len(side) * HELD_OUT_SHARE))))
    return held_out
