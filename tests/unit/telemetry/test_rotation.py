"""Logs that processes hold open do not grow for ever."""

import os

import pytest

from cutoff.errors import Refused
from cutoff.telemetry.rotation import limit_bytes, rotate, rotated


def test_a_writer_goes_on_with_the_same_file(tmp_path):
    log = tmp_path / "log.txt"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"first\n" * 10)
        assert not rotate(log, 100)
        assert rotate(log, 50)
        writer.write(b"second\n")
    assert log.read_bytes() == b"second\n"
    assert rotated(log).read_bytes() == b"first\n" * 10
    os.truncate(log, 1000)
    assert rotate(log, 50)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.1.txt", "log.txt"]
    assert not rotate(rotated(log), 50)
    assert not rotate(log, 0)


def test_the_limit(monkeypatch):
    assert limit_bytes() == 64 << 20
    monkeypatch.setenv("CUTOFF_LOG_MIB", "1")
    assert limit_bytes() == 1 << 20
    monkeypatch.setenv("CUTOFF_LOG_MIB", "much")
    with pytest.raises(Refused, match="much"):
        limit_bytes()
