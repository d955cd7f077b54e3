"""Whose turn it is, and what the others are told."""

from hypothesis import given
from hypothesis import strategies as st

from cutoff.coordinator.gpu_memory import Lack
from cutoff.coordinator.queue import Entry, in_order, next_one, waiting
from cutoff.v1 import job_pb2


def entry(job, since=0.0, priority=0, gpus=1.0, arrival=0, **more):
    return Entry((job, "train", 1), gpus, priority, since, arrival, **more)


def names(entries):
    return [each.key[0] for each in entries]


def test_first_come_first_served_within_a_priority():
    entries = [entry("late", 9), entry("early", 1), entry("high", 5, priority=10), entry("low", 0, priority=-10)]
    assert names(in_order(entries)) == ["high", "early", "late", "low"]


def test_who_came_first_is_the_job_whatever_its_stage():
    assert names(in_order([entry("b", 2, arrival=0), entry("a", 1, arrival=1)])) == ["a", "b"]


def test_a_run_that_goes_on_already_takes_its_gpu_before_anything_else():
    assert names(in_order([entry("high", priority=100), entry("running", 9, attaching=True)])) == ["running", "high"]


def test_a_small_job_does_not_overtake_a_large_one():
    assert next_one([entry("large", 1, gpus=4), entry("small", 2, gpus=0.5)]).key[0] == "large"


def test_who_lacks_memory_that_others_hold_is_passed_over_and_keeps_his_place():
    lack = Lack("cuda:0 has 1 GiB free: held by lm-studio", foreign=True)
    entries = [entry("first", 1, lack=lack, resting=True), entry("second", 2)]
    assert next_one(entries).key[0] == "second"
    told = waiting(entries, [])
    assert told[entries[0].key].position == 1
    assert told[entries[0].key].reason == job_pb2.Waiting.REASON_MEMORY_HELD
    assert "lm-studio" in told[entries[0].key].message
    assert told[entries[1].key].reason == job_pb2.Waiting.REASON_GPUS_HELD


def test_everybody_is_told_his_place_and_why():
    entries = [entry("a", 1), entry("b", 2, gpus=2), entry("c", 3)]
    told = waiting(entries, [("x", "train", 1), ("y", "evaluate-base", 2)])
    first, second, third = (told[each.key] for each in entries)
    assert first.message == "no host has a GPU free; GPUs are held by x (train), y (evaluate-base)"
    assert (second.reason, second.message) == (job_pb2.Waiting.REASON_OTHERS_FIRST, "a (train) comes first")
    assert [(each.position, each.length) for each in (first, second, third)] == [(1, 3), (2, 3), (3, 3)]


ENTRIES = st.lists(
    st.builds(
        entry,
        st.uuids().map(str),
        since=st.floats(0, 9),
        priority=st.integers(-3, 3),
        gpus=st.sampled_from([0.5, 1, 4]),
        arrival=st.integers(0, 99),
        resting=st.booleans(),
        attaching=st.booleans(),
    ),
    max_size=9,
    unique_by=lambda each: each.key,
)


@given(ENTRIES)
def test_the_order_is_one_and_nobody_is_forgotten(entries):
    assert sorted(names(in_order(entries))) == sorted(names(entries))
    told = waiting(entries, [])
    assert sorted(each.position for each in told.values()) == list(range(1, len(entries) + 1))
    assert all(each.message and each.reason for each in told.values())
    first = next_one(entries)
    assert (first is None) == all(each.resting for each in entries)


@given(ENTRIES, st.randoms())
def test_the_order_does_not_depend_on_how_they_are_kept(entries, random):
    shuffled = list(entries)
    random.shuffle(shuffled)
    unique = {(each.attaching, each.priority, each.since, each.arrival) for each in entries}
    if len(unique) == len(entries):
        assert in_order(shuffled) == in_order(entries)
