"""Who may use a GPU: one run all of it, or several their shares; the locks are real files."""

import multiprocessing
import os
import signal
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutoff.errors import DeviceBusy
from cutoff.stage.devices import holding, show_only


def hold(folder, share=1.0, device="cuda:0"):
    return holding([device], folder, patience=0, share=share)


def test_two_halves_share_a_device_and_a_third_waits(tmp_path):
    with hold(tmp_path, 0.5), hold(tmp_path, 0.5), pytest.raises(DeviceBusy, match="less than 1 % of cuda:0"):
        hold(tmp_path, 0.01).__enter__()
    with hold(tmp_path, 1.0):
        pass


@pytest.mark.parametrize(("first", "second"), [(1.0, 0.1), (0.1, 1.0), (1.0, 1.0)])
def test_a_whole_device_is_never_shared(tmp_path, first, second):
    with hold(tmp_path, first), pytest.raises(DeviceBusy, match=f"process {os.getpid()}"):
        hold(tmp_path, second).__enter__()


def test_other_devices_are_free(tmp_path):
    with hold(tmp_path), hold(tmp_path, 0.5, "cuda:1"):
        pass


@given(st.lists(st.integers(1, 99), min_size=1, max_size=8))
def test_no_more_than_the_whole_is_ever_given(tmp_path_factory, hundredths):
    folder = tmp_path_factory.mktemp("locks")
    given_out = 0
    with ExitStack() as held:
        for wanted in hundredths:
            fits = given_out + wanted <= 100
            try:
                held.enter_context(hold(folder, wanted / 100))
            except DeviceBusy:
                assert not fits
            else:
                assert fits
                given_out += wanted


def _hold_for_ever(folder, ready):
    with hold(folder, 0.7):
        ready.set()
        signal.pause()


def test_a_killed_run_frees_its_share(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    other = context.Process(target=_hold_for_ever, args=(tmp_path, ready))
    other.start()
    assert ready.wait(30)
    with pytest.raises(DeviceBusy):
        hold(tmp_path, 0.5).__enter__()
    other.kill()
    other.join()
    with hold(tmp_path, 0.5):
        pass


def test_devices_are_counted_as_the_scheduler_counts_them(monkeypatch):
    for name in ("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "")
    assert show_only(["cuda:3", "cuda:1"]) == ("cuda:0", "cuda:1")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == os.environ["HIP_VISIBLE_DEVICES"] == "3,1"
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID", "not the fastest first"
