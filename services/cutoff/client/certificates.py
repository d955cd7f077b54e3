"""X.509 certificates for services that only talk to each other: one authority, elliptic-curve keys."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3650
SERVICE_DAYS = 825
RENEW_DAYS = 30
"""A certificate with less than this left is made anew."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its private key, in PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


def make_authority() -> Certificate:
    """A self-signed authority that may sign services' certificates, and no further authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("cutoff authority")
    usage = x509.KeyUsage(
        key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        _builder(name, name, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return _pem(builder.sign(key, hashes.SHA256()), key)


def issue(authority: Certificate, names: Sequence[str]) -> Certificate:
    """A service's certificate, good as a server's and as a client's.

    Args:
        authority: Who signs it.
        names: Host names and IP addresses; the first one is who the service is.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        _builder(_name(names[0]), issuer.subject, key.public_key(), SERVICE_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(_alternative_names(names)), critical=False)
    )
    signer = serialization.load_pem_private_key(authority.key, password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey), "authorities are made by make_authority"
    return _pem(builder.sign(signer, hashes.SHA256()), key)


def still_good(pair: Certificate, authority: Certificate, names: Sequence[str]) -> bool:
    """Whether key and certificate belong together, are this authority's, have these names, and last a month more."""
    try:
        found = x509.load_pem_x509_certificate(pair.certificate)
        key = serialization.load_pem_private_key(pair.key, password=None)
        found.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))
        present = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    left = found.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    same_names = list(present) == _alternative_names(names)
    return key.public_key() == found.public_key() and left.days >= RENEW_DAYS and same_names


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # clocks of other machines may be behind
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _alternative_names(names: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Certificate:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Certificate(certificate.public_bytes(serialization.Encoding.PEM), private)
