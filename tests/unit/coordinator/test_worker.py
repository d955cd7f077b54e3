"""What a further host is asked before it joins, and the Ray command that it joins with."""

import pytest

from cutoff.artifacts import artifacts_id, name_artifacts
from cutoff.coordinator import worker
from cutoff.coordinator.hosts import Addresses
from cutoff.errors import InvalidInput, Refused, Unavailable
from cutoff.v1 import run_pb2

ADDRESSES = Addresses("two-trainer:1", "two-merger:1", "two-gguf-converter:1", "two-evaluator:1")


@pytest.fixture
def seen(monkeypatch):
    """What each service calls its artifacts folder; a service that is not in it does not answer."""
    names = dict.fromkeys(("trainer", "merger", "gguf-converter", "evaluator"), "a" * 32)

    def ask(address, service):
        assert address == f"two-{service}:1"
        if service not in names:
            raise Unavailable("nobody answers")
        return run_pb2.ListRunsResponse(artifacts_id=names[service])

    monkeypatch.setattr(worker, "ask", ask)
    return names


def test_a_host_whose_services_see_one_folder_may_join(seen):
    worker.check_services(ADDRESSES)


def test_everything_that_is_wrong_is_said_at_once(seen):
    del seen["merger"]
    seen["trainer"] = ""
    seen["evaluator"] = "b" * 32
    with pytest.raises(InvalidInput) as caught:
        worker.check_services(ADDRESSES)
    faults = {fault.where: fault.what for fault in caught.value.faults}
    assert "does not answer at two-merger:1" in faults["merger"]
    assert "no coordinator has named" in faults["trainer"]
    assert "is not the same folder for all" in faults["CUTOFF_ARTIFACTS"]


def test_the_command_joins_under_the_hosts_name_with_what_it_lends(monkeypatch):
    for name, value in {"CUTOFF_HOST": "two", "CUTOFF_GPUS": "1", "CUTOFF_CPUS": "3", "CUTOFF_RAY_HEAD": ""}.items():
        monkeypatch.setenv(name, value)
    command = worker.join_command()
    assert command[:2] == ["ray", "start"]
    assert {"--address=ray-head:6379", "--labels=cutoff-host=two", "--num-cpus=3", "--num-gpus=1"} <= set(command)


@pytest.mark.parametrize(("name", "value"), [("CUTOFF_HOST", "head"), ("CUTOFF_HOST", ""), ("CUTOFF_GPUS", "one")])
def test_a_host_without_a_name_of_its_own_or_with_a_wrong_number_is_refused(monkeypatch, name, value):
    monkeypatch.setenv("CUTOFF_HOST", "two")
    monkeypatch.setenv(name, value)
    with pytest.raises(Refused, match=name if value == "one" else "first host's name"):
        worker.join_command()


def test_an_artifacts_folder_is_named_once_and_keeps_its_name(tmp_path):
    folder = tmp_path / "artifacts"
    assert artifacts_id(folder) == ""
    name = name_artifacts(folder)
    assert len(name) == 32
    assert name_artifacts(folder) == artifacts_id(folder) == name
    assert name_artifacts(tmp_path / "other") != name
