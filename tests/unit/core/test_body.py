"""The digest of a payload is what WARC readers verify."""

from io import BytesIO

from warcio.utils import Digester

from crawler.core.body import EMPTY, BytesBody, payload_digest


def test_digests_are_those_of_warcio() -> None:
    """The same bytes have the digest that warcio computes."""
    digester = Digester("sha256")
    digester.update(BytesIO(b"payload").read())
    assert str(digester) == payload_digest(BytesBody(b"payload"))


def test_the_digest_of_nothing() -> None:
    """An empty payload has the digest of no bytes."""
    assert payload_digest(EMPTY) == "sha256:4OYMIQUY7QOBJGX36TEJS35ZEQT24QPEMSNZGTFESWMRW6CSXBKQ===="
