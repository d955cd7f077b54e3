"""Users' tokens: kept as hashes, revoked and expired at once, never two of one name, never half-written."""

from __future__ import annotations

import datetime
import json
import os
import stat
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutoff.errors import AlreadyExists, InvalidInput, NotFound, Refused
from cutoff.rpc import tokens
from cutoff.rpc.tokens import FIRST, OneToken, TokenFile, hash_of


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "tokens.json"


def everything_below(folder):
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_only_the_hash_is_kept_and_only_its_user_can_read_it(path):
    token = TokenFile(path).create("alice")
    assert len(token) == 64
    assert TokenFile(path).holder(token) == "alice"
    assert token.encode() not in everything_below(path.parent)
    assert hash_of(token) in path.read_text()
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_a_running_server_hears_of_new_and_revoked_tokens(path):
    server, command = TokenFile(path), TokenFile(path)
    assert not server.required
    alice = command.create("alice")
    assert server.required
    assert server.holder(alice) == "alice"
    bob = command.create("bob")
    command.revoke("alice")
    assert (server.holder(alice), server.holder(bob)) == (None, "bob")
    command.revoke("bob")
    assert server.required, "the door stays shut when the last token is revoked"


def test_a_token_ends_on_its_day(path, monkeypatch):
    server = TokenFile(path)
    token = server.create("alice", days=2)
    assert server.holder(token) == "alice"
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=2, seconds=5)
    monkeypatch.setattr(tokens, "_now", lambda: later)
    assert server.holder(token) is None
    assert server.all()[0].state(later) == "expired"


def test_a_name_is_never_given_twice(path):
    file = TokenFile(path)
    file.create("alice")
    file.revoke("alice")
    with pytest.raises(AlreadyExists):
        file.create("alice")
    with pytest.raises(NotFound, match="alice"):
        file.revoke("bob")


@pytest.mark.parametrize("name", ["", ".x", "a b", "a\n", "../a", "a/b", "x" * 65, "ä", "a\0"])
def test_hostile_names_are_refused(path, name):
    with pytest.raises(InvalidInput):
        TokenFile(path).create(name)


@pytest.mark.parametrize("days", [0, -1, float("nan"), 1e9])
def test_senseless_days_are_refused(path, days):
    with pytest.raises(InvalidInput):
        TokenFile(path).create("alice", days)


def test_when_it_was_last_used_is_told(path):
    file = TokenFile(path)
    token = file.create("alice")
    assert file.uses() == {}
    TokenFile(path).holder(token)
    assert datetime.datetime.fromisoformat(file.uses()["alice"]).tzinfo is not None


def test_the_token_a_server_is_started_with_is_adopted_once_and_stays_revoked(path):
    old, new = hash_of("a" * 64), hash_of("b" * 64)
    TokenFile(path).adopt(old)
    TokenFile(path).adopt(old)
    assert [each.name for each in TokenFile(path).all()] == [FIRST]
    TokenFile(path).revoke(FIRST)
    TokenFile(path).adopt(old)
    assert TokenFile(path).holder("a" * 64) is None, "a restart brings no revoked token back"
    TokenFile(path).adopt(new)
    assert TokenFile(path).holder("b" * 64) == FIRST
    with pytest.raises(Refused):
        TokenFile(path).adopt("no hash")


def test_a_token_that_replaces_the_first_ends_it(path):
    TokenFile(path).adopt(hash_of("a" * 64))
    TokenFile(path).adopt(hash_of("b" * 64))
    assert TokenFile(path).holder("a" * 64) is None
    assert TokenFile(path).holder("b" * 64) == FIRST


def test_a_damaged_file_lets_nobody_in_that_was_not_known(path):
    server = TokenFile(path)
    token = server.create("alice")
    assert server.holder(token) == "alice"
    path.write_text("{")
    assert server.holder(token) == "alice"
    assert server.required
    assert TokenFile(path).holder(token) is None
    with pytest.raises(Refused, match="damaged"):
        server.create("bob")
    path.unlink()
    assert server.required


def test_many_writers_lose_nothing(path):
    threads = [threading.Thread(target=TokenFile(path).create, args=(f"user-{number}",)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each.name for each in TokenFile(path).all()} == {f"user-{number}" for number in range(20)}
    json.loads(path.read_text())


@given(st.text())
def test_no_other_text_opens(text):
    assert OneToken(hash_of("secret-secret-secret")).holder(text) is None or text == "secret-secret-secret"


def test_what_was_used_cannot_be_written_and_nobody_is_kept_out(path, monkeypatch):
    server = TokenFile(path)
    token = server.create("alice")

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(tokens, "_write", full)
    assert server.holder(token) == "alice"
