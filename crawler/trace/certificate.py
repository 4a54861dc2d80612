"""What a server's certificate says, for a person: who it is for, who signed it, how long it holds.

It verifies nothing (OpenSSL does, in the handshake). Invariant: a certificate that cannot be read raises ValueError and
nothing else.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

MAX_NAMES: Final = 100  # names kept of a certificate; some hold thousands


@dataclass(frozen=True, slots=True)
class Certificate:
    """`names` are the subject's alternative names, without their type; `key` is in words ("RSA 2048")."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    serial: str
    sha256: str
    key: str


def read_certificate(der: bytes) -> Certificate:
    """Raises ValueError."""
    try:
        found = x509.load_der_x509_certificate(der)
        return Certificate(
            subject=found.subject.rfc4514_string(),
            issuer=found.issuer.rfc4514_string(),
            names=_names(found),
            not_before=found.not_valid_before_utc,
            not_after=found.not_valid_after_utc,
            serial=f"{found.serial_number:x}",
            sha256=found.fingerprint(hashes.SHA256()).hex(),
            key=_key(found),
        )
    except ValueError:
        raise
    except Exception as error:  # the parser has exceptions of its own for each way to be wrong
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _names(found: x509.Certificate) -> tuple[str, ...]:
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in names)[:MAX_NAMES]


def _key(found: x509.Certificate) -> str:
    key = found.public_key()
    match key:
        case rsa.RSAPublicKey() | dsa.DSAPublicKey():
            return f"{'RSA' if isinstance(key, rsa.RSAPublicKey) else 'DSA'} {key.key_size}"
        case ec.EllipticCurvePublicKey():
            return f"ECDSA {key.curve.name}"
        case ed25519.Ed25519PublicKey():
            return "Ed25519"
        case ed448.Ed448PublicKey():
            return "Ed448"
        case _:
            return type(key).__name__
