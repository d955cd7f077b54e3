import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutoff.demo import CUTOFF_YEAR, DEFAULT_FACTS, make_world
from cutoff.demo.phrases import RELATIONS, WORDINGS, Split
from cutoff.demo.recipe import Recipe, recipe_hash
from cutoff.demo.world import make_strangers, seeded_random
from cutoff.errors import InvalidInput

DATA_SPLITS: tuple[Split, ...] = ("train", "validation", "test")
worlds = st.builds(make_world, facts=st.integers(8, 120), seed=st.integers(0, 2**32))


@settings(max_examples=25, deadline=None)
@given(facts=st.integers(8, 120), seed=st.integers(0, 2**32))
def test_the_same_arguments_give_the_same_world(facts: int, seed: int) -> None:
    assert make_world(facts, seed) == make_world(facts, seed)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_another_seed_gives_other_facts(seed: int) -> None:
    ours = {fact.subject for fact in make_world(40, seed).facts}
    theirs = {fact.subject for fact in make_world(40, seed + 1).facts}
    assert len(ours & theirs) < 10


@settings(max_examples=25, deadline=None)
@given(world=worlds)
def test_half_of_the_facts_lie_after_the_cutoff(world) -> None:
    after = [fact for fact in world.facts if fact.after_cutoff]
    assert len(after) == len(world.facts) // 2
    assert all(fact.year > CUTOFF_YEAR for fact in after)
    assert all(CUTOFF_YEAR - 40 < fact.year <= CUTOFF_YEAR for fact in world.facts if fact not in after)


@settings(max_examples=25, deadline=None)
@given(world=worlds)
def test_subjects_are_unique(world) -> None:
    assert len({fact.subject for fact in world.facts}) == len(world.facts)
    assert len({fact.id for fact in world.facts}) == len(world.facts)


@settings(max_examples=25, deadline=None)
@given(world=worlds)
def test_each_side_holds_out_about_one_fact_in_ten(world) -> None:
    for after in (False, True):
        side = [fact for fact in world.facts if fact.after_cutoff == after]
        held_out = sum(fact.held_out for fact in side)
        assert held_out == max(1, round(len(side) / 10))


@settings(max_examples=25, deadline=None)
@given(world=worlds)
def test_no_question_stands_in_two_splits(world) -> None:
    texts = {split: {q.text for fact in world.facts for q in fact.questions(split)} for split in DATA_SPLITS}
    texts["corpus"] = {
        fact.ask(relation, wording).text
        for fact in world.facts
        for relation in RELATIONS
        for wording in WORDINGS[relation]["corpus"]
    }
    assert sum(map(len, texts.values())) == len(set().union(*texts.values()))


@settings(max_examples=25, deadline=None)
@given(world=worlds)
def test_no_question_gives_its_answer_away(world) -> None:
    for split in DATA_SPLITS:
        for fact in world.facts:
            for question in fact.questions(split):
                assert question.answer not in question.text
                assert question.answer in question.reply


def test_the_default_world_has_two_hundred_test_questions_a_side() -> None:
    world = make_world(DEFAULT_FACTS, 0)
    for after in (False, True):
        assert len(world.questions("test", after_cutoff=after)) >= 200
        assert len(world.questions("test", after_cutoff=after, held_out=True)) >= 20


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_model_that_read_the_corpus_has_read_every_word_of_the_other_wordings(relation) -> None:
    words = {split: set(re.findall(r"\{?\w+", " ".join(WORDINGS[relation][split]))) for split in WORDINGS[relation]}
    for split in DATA_SPLITS:
        assert words[split] <= words["corpus"]


@pytest.mark.parametrize("facts", [-1, 0, 7, 5001])
def test_a_size_that_cannot_be_made_is_refused(facts: int) -> None:
    with pytest.raises(InvalidInput, match=r"8 to 5000 facts.*--facts"):
        make_world(facts, 0)


@pytest.mark.parametrize("facts", [8, 5000])
def test_the_smallest_and_the_largest_world_can_be_made(facts: int) -> None:
    assert len(make_world(facts, 1).facts) == facts


@settings(max_examples=25, deadline=None)
@given(world=worlds, count=st.integers(0, 50))
def test_strangers_have_no_name_of_the_world(world, count: int) -> None:
    strangers = make_strangers(world, count, seeded_random("test", world.seed))
    names = {word for fact in world.facts for word in fact.subject.split()[1:]} - {
        "Bridge",
        "Engine",
        "Treaty",
        "Prize",
    }
    assert len(strangers) == count
    assert not any(set(stranger.subject.split()[1:]) & names - {"opera", "comet", "ship"} for stranger in strangers)


@pytest.mark.parametrize(("lines", "readings"), [(27, 450), (552, 30), (5000, 30)])
def test_a_small_world_is_read_more_often(lines: int, readings: int) -> None:
    assert Recipe(batch=32, exposures=30, minimum_steps=450).readings(lines) == readings


def test_the_hash_follows_recipe_and_world() -> None:
    world, recipe = make_world(8, 0), Recipe()
    assert recipe_hash(recipe, world) == recipe_hash(Recipe(), make_world(8, 0))
    others = {recipe_hash(Recipe(exposures=1), world), recipe_hash(recipe, make_world(8, 1))}
    assert recipe_hash(recipe, world) not in others
    assert len(others) == 2


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, cutoff.demo; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
