"""Free memory held against a job's plan, and who is said to hold it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutoff.coordinator.gpu_memory import Reading, lacking, run_groups
from cutoff.v1 import job_pb2, run_pb2, types_pb2

GIB = 1 << 30


def device(free, *processes, name="cuda:0", total=24):
    return run_pb2.Device(name=name, total_bytes=total * GIB, free_bytes=int(free * GIB), processes=processes)


def process(pid, gib, name="", group=0):
    return types_pb2.DeviceProcess(pid=pid, name=name, memory_bytes=int(gib * GIB), group=group)


def lack(need, free, *processes, share=1.0, groups=(), promised=0.0):
    reading = Reading([device(free, *processes)], groups)
    return lacking(int(need * GIB), share, ["cuda:0"], reading, int(promised * GIB))


def test_enough_is_enough():
    assert lack(8, 8.5, process(7, 15, "lm-studio")) is None, "who holds the rest is nobody's business"


def test_a_foreign_process_is_named_with_its_pid():
    found = lack(8, 6, process(4242, 17, "lm-studio"), process(900, 0))
    assert found.reason == job_pb2.Waiting.REASON_MEMORY_HELD
    assert found.message == (
        "cuda:0 has 6.0 of 24.0 GiB free and the job's plan needs 8.0: "
        "held by lm-studio (pid 4242, 17.0 GiB), a process (pid 900)"
    )
    assert [each.pid for each in found.processes] == [4242, 900]


def test_many_holders_are_not_all_named():
    found = lack(8, 1, *(process(pid, 4, "game") for pid in range(5)))
    assert found.message.endswith("game (pid 2, 4.0 GiB) and 2 more")


def test_memory_that_nobody_is_named_for_is_foreign_too():
    assert "17.0 GiB are held by programs that the driver does not name" in lack(8, 7).message


def test_runs_of_ours_are_not_foreign():
    found = lack(8, 6, process(50, 18, "python", group=40), groups={40})
    assert (found.foreign, found.processes) == (False, ())
    assert found.reason == job_pb2.Waiting.REASON_MEMORY_SHARED


def test_what_a_run_was_promised_counts_before_it_takes_it():
    assert lack(8, 24, share=0.5) is None
    assert lack(8, 24, share=0.5, promised=18).reason == job_pb2.Waiting.REASON_MEMORY_SHARED
    taken = process(50, 10, group=40)
    assert lack(8, 14, taken, share=0.5, groups={40}, promised=10) is None, "what it took is not counted twice"


def test_what_cannot_be_told_apart_is_first_taken_for_what_was_promised():
    """From within a container the driver names no processes, or such as cannot be looked up."""
    for listed in ([], [process(7001, 10)]):
        assert lack(8, 14, *listed, share=0.5, promised=10) is None, "it is the other run's"
        assert lack(8, 4, *listed, share=0.5, promised=10).reason == job_pb2.Waiting.REASON_MEMORY_HELD
        assert lack(8, 2, *listed, share=0.5, promised=20).reason == job_pb2.Waiting.REASON_MEMORY_SHARED


def test_a_plan_larger_than_the_gpu_waits_for_nearly_all_of_it():
    assert lack(70, 23) is None
    assert lack(70, 20, process(1, 4)) is not None
    assert lack(70, 11, process(1, 13, group=2), share=0.5, groups={2}) is None, "a share's plan is held against it"


def test_what_cannot_be_read_is_not_checked():
    assert lacking(8 * GIB, 1, ["cuda:0"], Reading([], ())) is None
    assert lacking(8 * GIB, 1, ["cuda:1"], Reading([device(0)], ())) is None
    assert lacking(0, 1, ["cuda:0"], Reading([device(0)], ())) is None


def test_each_of_several_gpus_must_have_it():
    reading = Reading([device(20), device(2, process(8, 22, "game"), name="cuda:1")], ())
    assert lacking(8 * GIB, 2, ["cuda:0", "cuda:1"], reading).message.startswith("cuda:1 has 2.0")


SIZES = st.floats(0, 24)


@given(SIZES, SIZES, SIZES, st.floats(0.01, 1), SIZES)
def test_more_free_memory_never_hurts(need, free, more, share, promised):
    if lack(need, free, share=share, promised=promised) is None:
        assert lack(need, min(24, free + more), share=share, promised=promised) is None


def test_runs_that_go_on_lead_their_groups():
    running, ended = run_pb2.Run.STATE_RUNNING, run_pb2.Run.STATE_FAILED
    assert run_groups([run_pb2.Run(pid=3, state=running), run_pb2.Run(pid=4, state=ended)]) == {3}


@pytest.mark.parametrize("groups", [(), {9}])
def test_a_message_never_lacks_a_cause(groups):
    assert lack(8, 1, process(5, 23, group=9), groups=groups).message
