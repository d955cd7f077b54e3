"""`cutoff init`: what it writes, with which modes, what it leaves alone and what it renews."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from cutoff.client import certificates
from cutoff.client.certificates import issue, make_authority, still_good
from cutoff.client.init import COORDINATOR, STAGE_SERVICES, init
from cutoff.errors import InvalidInput, Refused

SERVICES = (COORDINATOR, *STAGE_SERVICES)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names_of(path: Path) -> list[str]:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_everything_is_written_with_its_mode(tmp_path):
    made = init(tmp_path)
    assert set(made.written) == set(contents(tmp_path))
    public = {name for name in made.written if name.endswith(".crt")}
    assert {name for name in made.written if mode(tmp_path / name) == 0o644} == public
    assert all(mode(tmp_path / name) == 0o600 for name in set(made.written) - public)
    for service in SERVICES:
        assert names_of(tmp_path / service / "tls.crt") == [service, "localhost", "127.0.0.1", "::1"]
    kept = (tmp_path / "coordinator/token.sha256").read_text().strip()
    assert kept == hashlib.sha256((tmp_path / "client/token").read_bytes().strip()).hexdigest()
    assert not (tmp_path / "coordinator/token").exists(), "the server keeps the hash only"
    assert (tmp_path / "client/token").read_bytes() != (tmp_path / "coordinator/ray-token").read_bytes()


def test_a_second_time_changes_nothing(tmp_path):
    init(tmp_path)
    before = contents(tmp_path)
    assert init(tmp_path).written == ()
    assert contents(tmp_path) == before


def test_another_host_renews_the_coordinators_certificate_and_keeps_the_tokens_and_the_authority(tmp_path):
    init(tmp_path)
    before = contents(tmp_path)
    written = init(tmp_path, ["gpu.example", "10.0.0.7"]).written
    assert set(written) == {"coordinator/tls.crt", "coordinator/tls.key"}, "users reach the coordinator only"
    assert names_of(tmp_path / "coordinator/tls.crt")[-2:] == ["gpu.example", "10.0.0.7"]
    assert {name for name, text in contents(tmp_path).items() if before[name] != text} == set(written)
    assert set(init(tmp_path).written) == set(written), "a name that is taken back is taken out"


@pytest.mark.parametrize("lost", ["trainer/tls.key", "trainer/tls.crt"])
def test_half_a_pair_is_made_anew(tmp_path, lost):
    init(tmp_path)
    (tmp_path / lost).unlink()
    assert set(init(tmp_path).written) == {"trainer/tls.key", "trainer/tls.crt"}


def test_a_key_of_another_certificate_is_noticed(tmp_path):
    """A process killed between the two renames leaves a new key beside an old certificate."""
    init(tmp_path)
    (tmp_path / "trainer/tls.key").write_bytes((tmp_path / "merger/tls.key").read_bytes())
    assert set(init(tmp_path).written) == {"trainer/tls.key", "trainer/tls.crt"}


def test_a_lost_authority_renews_everything_it_signed(tmp_path):
    init(tmp_path)
    (tmp_path / "ca/tls.key").unlink()
    written = init(tmp_path).written
    assert {"ca/tls.crt", "client/ca.crt", "trainer/tls.crt", "trainer/ca.crt"} <= set(written)
    assert "client/token" not in written


def test_a_certificate_is_renewed_in_its_last_month(monkeypatch):
    authority, names = make_authority(), ("trainer",)
    assert still_good(issue(authority, names), authority, names)
    monkeypatch.setattr(certificates, "SERVICE_DAYS", 29)
    assert not still_good(issue(authority, names), authority, names)
    assert not still_good(issue(make_authority(), names), authority, names), "another authority's"
    assert not still_good(certificates.Certificate(b"x", b"y"), authority, names)


def test_the_authority_signs_services_and_no_further_authorities():
    certificate = x509.load_pem_x509_certificate(make_authority().certificate)
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert certificate.not_valid_after_utc > datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3600)


def test_keys_are_not_shown():
    assert "PRIVATE" not in repr(make_authority())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_files_are_given_to_the_containers_user(tmp_path):
    init(tmp_path, owner=(1000, 1001))
    assert {(path.stat().st_uid, path.stat().st_gid) for path in tmp_path.rglob("*")} == {(1000, 1001)}


@pytest.mark.skipif(os.geteuid() != 0, reason="root becomes another user for this")
def test_a_folder_of_somebody_elses_is_named_with_the_remedy(tmp_path):
    script = (
        "import os, sys; from pathlib import Path; from cutoff.client.init import init\n"
        "os.setgid(1000); os.setuid(1000)\n"
        "try: init(Path(sys.argv[1]) / 'secrets')\n"
        "except Exception as error: print(error)"
    )
    for folder in (tmp_path, *tmp_path.parents[:2]):  # pytest's own, which let nobody else in
        folder.chmod(0o755)
    said = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "belongs to 0:0, and this is 1000:1000" in said.stdout
    assert "CUTOFF_UID" in said.stdout


def test_the_command_says_what_it_did(tmp_path):
    command = [str(Path(sys.executable).with_name("cutoff")), "init", "--out", str(tmp_path), "--json"]
    first, second = (json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(2))
    assert "client/token" in first["written"]
    assert second["written"] == []
    wrong = subprocess.run([*command, "--owner", "me"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "1000:1000" in wrong.stderr


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "trainer").write_text("in the way")
    with pytest.raises(Refused, match="trainer is not a folder"):
        init(tmp_path)


def test_a_link_that_leads_elsewhere_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/coordinator").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused, match="symbolic link"):
        init(tmp_path / "out")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_modes_and_owners_of_what_is_there_are_mended(tmp_path):
    init(tmp_path)
    (tmp_path / "client/token").chmod(0o666)
    token = (tmp_path / "client/token").read_bytes()
    init(tmp_path)
    assert mode(tmp_path / "client/token") == 0o600
    if os.geteuid() == 0:
        init(tmp_path, owner=(1000, 1000))
        assert (tmp_path / "client/token").stat().st_uid == 1000
    assert (tmp_path / "client/token").read_bytes() == token


def test_no_host_may_pass_for_a_service(tmp_path):
    with pytest.raises(InvalidInput, match="coordinator is the name of a service"):
        init(tmp_path, ["gpu.example", "coordinator"])
    assert contents(tmp_path) == {}, "wrong input is refused before anything is written"


def test_a_token_the_coordinator_was_given_earlier_counts_on_and_is_kept_as_its_hash(tmp_path):
    init(tmp_path)
    (tmp_path / "coordinator/token").write_text("a" * 64 + "\n")
    init(tmp_path)
    assert (tmp_path / "client/token").read_text() == "a" * 64 + "\n"
    assert (tmp_path / "coordinator/token.sha256").read_text().strip() == hashlib.sha256(b"a" * 64).hexdigest()
    assert not (tmp_path / "coordinator/token").exists()
