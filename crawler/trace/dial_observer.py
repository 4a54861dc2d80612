"""An observed opening of a connection: the addresses of a name, the TCP attempts, TLS and the certificate.

Invariant: dialer and resolver are those of the crawl. Only after a failed TLS handshake a second one is made to get the
certificate of the server; no request is sent over it.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from crawler.core.clock import Clock
from crawler.core.enums import Stage
from crawler.core.models import Origin
from crawler.fetch.net.address import AddressDenied, AddressPolicy
from crawler.fetch.net.dial import Dialled, NetworkDialer
from crawler.fetch.net.errors import DialError, ResolveError, describe
from crawler.fetch.net.resolver import CachingResolver
from crawler.fetch.net.tls import server_name

MAX_NAMES: Final = 100  # names kept of a certificate; some hold thousands
_SECOND_HANDSHAKE_S: Final = 5.0

_Protocol = TypeVar("_Protocol", bound=asyncio.Protocol)


@dataclass(slots=True)
class Dial:
    """The opening of one connection, which is `dialled` or `failed`. `resolved` names, TCP `attempts` and `certificate`
    are as `crawler fetch --json` has them.
    """

    origin: Origin
    resolved: list[dict[str, Any]] = field(default_factory=list)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    certificate: dict[str, Any] = field(default_factory=dict)
    dialled: Dialled | None = None
    failed: DialError | None = None


class DialObserver(NetworkDialer):
    """A dialer that records what it does in `dials`. It is its own resolver, to see the results of the real one."""

    def __init__(self, *, dials: list[Dial], resolver: CachingResolver, clock: Clock, **more: Any) -> None:
        super().__init__(resolver=self, clock=clock, **more)
        self._dials = dials
        self._names = resolver

    async def dial(self, origin: Origin, factory: Callable[[], _Protocol]) -> tuple[_Protocol, Dialled]:
        """See NetworkDialer."""
        dial = Dial(origin)
        self._dials.append(dial)
        try:
            protocol, dial.dialled = await super().dial(origin, factory)
        except DialError as error:
            dial.failed = error
            if error.stage is Stage.TLS and error.peer is not None:
                dial.certificate = await self._repeat_handshake(origin, error.peer)
            raise
        if dial.dialled.ssl_object is not None:
            dial.certificate = _certificate_of(dial.dialled.ssl_object)
        return protocol, dial.dialled

    async def resolve(self, host: str) -> tuple[str, ...]:
        """See Resolver."""
        note: dict[str, Any] = {"name": host, "source": "dns", "addresses": [], "failed": None}
        if (configured := self._names.configured(host)) is not None:
            note["source"] = "literal" if configured == (host.strip("[]").rstrip("."),) else "network.resolve"
        self._dials[-1].resolved.append(note)
        begun_mono = self._clock.mono()
        try:
            addresses = await self._names.resolve(host)
        except ResolveError as error:
            note["failed"] = f"{error.error_type.value}: {error.detail}"
            raise
        finally:
            note["ms"] = round((self._clock.mono() - begun_mono) * 1e3, 2)
        note["addresses"] = [self._judge(address) for address in addresses]
        return addresses

    async def connect_socket(self, address: str, port: int) -> socket.socket:
        """See NetworkDialer."""
        note = {"address": address, "port": port, "failed": None}
        self._dials[-1].attempts.append(note)
        begun_mono = self._clock.mono()
        try:
            return await super().connect_socket(address, port)
        except asyncio.CancelledError:
            note["failed"] = "given up: another address was faster, or it took too long"
            raise
        except OSError as error:
            note["failed"] = describe(error)
            raise
        finally:
            note["ms"] = round((self._clock.mono() - begun_mono) * 1e3, 2)

    def _judge(self, address: str) -> dict[str, Any]:
        """Whether an address may be dialled, and why."""
        if self._proxy is not None:
            return {"address": address, "allowed": True, "why": "the proxy's, not checked"}
        refused = _refusal(self._policy, address)
        why = "network.allow_private" if _refusal(AddressPolicy(), address) else "public"
        return {"address": address, "allowed": not refused, "why": refused or why}

    async def _repeat_handshake(self, origin: Origin, peer: tuple[str, int]) -> dict[str, Any]:
        """Get the certificate of a server whose handshake failed; nothing is sent over the connection."""
        if self._proxy is not None:
            return {"not_shown": "not read: the server is behind a proxy"}
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # only the certificate is wanted
        try:
            async with asyncio.timeout(_SECOND_HANDSHAKE_S):
                sock = await super().connect_socket(*peer)
                transport, _ = await asyncio.get_running_loop().create_connection(
                    asyncio.Protocol, sock=sock, ssl=context, server_hostname=server_name(origin.host)
                )
        except TimeoutError:
            return {"not_shown": f"none was shown within {_SECOND_HANDSHAKE_S:g} s"}
        except OSError as error:
            return {"not_shown": f"none was shown: {describe(error)}"}
        certificate = _certificate_of(transport.get_extra_info("ssl_object"))
        transport.abort()
        return certificate


def _refusal(policy: AddressPolicy, address: str) -> str:
    try:
        policy.check(address)
    except AddressDenied as denied:
        return str(denied)
    return ""


def _certificate_of(ssl_object: ssl.SSLObject) -> dict[str, Any]:
    """What the server's certificate says, verified or not; or why it is `not_shown`."""
    der = ssl_object.getpeercert(binary_form=True)
    if not der:
        return {"not_shown": "none was shown"}
    try:
        found = x509.load_der_x509_certificate(der)
        extensions = [extension.value for extension in found.extensions]
        names = [name for one in extensions if isinstance(one, x509.SubjectAlternativeName) for name in one]
        return {
            "subject": found.subject.rfc4514_string(),
            "issuer": found.issuer.rfc4514_string(),
            "names": [str(name.value) for name in names[:MAX_NAMES]],
            "not_before": found.not_valid_before_utc.isoformat(),
            "not_after": found.not_valid_after_utc.isoformat(),
            "serial": f"{found.serial_number:x}",
            "sha256": found.fingerprint(hashes.SHA256()).hex(),
            "key": _key_name(found.public_key()),
        }
    except Exception as error:  # the parser has many exceptions of its own
        return {"not_shown": f"cannot be read: {describe(error)}"}


def _key_name(key: object) -> str:
    match key:
        case rsa.RSAPublicKey():
            return f"RSA {key.key_size}"
        case dsa.DSAPublicKey():
            return f"DSA {key.key_size}"
        case ec.EllipticCurvePublicKey():
            return f"ECDSA {key.curve.name}"
        case _:  # Ed25519, Ed448
            return type(key).__name__.removesuffix("PublicKey")
