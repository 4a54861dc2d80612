"""Reads untrusted XML as a stream of elements, within bounds.

expat parses it. This module refuses what expat would accept: a document type declaration (with all entities except the
five of XML), an endless tag or comment, endless nesting, and more elements than any honest list has. It repairs common
errors first: bytes that are no character, control characters, a bare "&". Prefixes are not resolved, since many files
have a wrong or undeclared namespace. Pages in XML (`read_document`) may declare a document type, and their namespaces
count.

Invariant: time and memory are proportional to the bytes, and no bytes raise anything but `XmlRefused`.
"""

import codecs
import re
from collections.abc import Iterator
from html.entities import html5
from typing import Any, Final, Protocol
from xml.parsers import expat

import endec
import webencodings

from crawler.content.charset import sniff_xml

# Decoded by Python, whose decoders keep a character that is cut; ISO-2022-JP has a state as well.
_PYTHONS: Final = frozenset(("utf-8", "utf-16le", "utf-16be", "iso-2022-jp"))
SLICE: Final = 64 * 1024  # bytes given to expat at a time
# expat keeps a tag, comment or instruction until it ends, and parses it from its begin with each slice. Without a bound
# that takes time in the square of its length (CVE-2023-52425).
MAX_TOKEN: Final = 256 * 1024
MAX_DEPTH: Final = 64  # the formats read here have at most 8 levels, with extensions
MAX_ELEMENTS: Final = 2_000_000  # 50,000 entries of 40 elements; half a second a million
MAX_DEFAULTS: Final = 64  # attributes declared in a document type, each of which costs time at every element
_NO_CHARACTER: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_SUSPECT: Final = re.compile(r"<!\[CDATA\[|\]\]>|&(?:(#?[A-Za-z0-9]{1,31});)?")
_REACH: Final = (("&", 33), ("<", 8), ("]]", 2), ("]", 1))  # how far from the end of a piece something may be cut
_XML_ENTITIES: Final = frozenset(("amp", "lt", "gt", "quot", "apos"))


class XmlRefused(Exception):
    """A document that is made to do harm or exceeds a bound. The message says which."""


class Handler(Protocol):
    """Receives the parts of a document in order. Names are lower case, with their prefix: "image:loc"."""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """An element begins. Attributes keep their prefix: "xml:base"."""

    def text(self, data: str) -> None:
        """A run of characters, or a part of one."""

    def end(self, name: str) -> None:
        """The element that began last ends."""


class DocumentHandler(Handler, Protocol):
    """A handler of documents with namespaces: names of elements and attributes are "namespace local", or "local", in
    their own case.
    """

    def instruction(self, target: str, data: str) -> None:
        """A processing instruction."""


class StopReading(Exception):
    """Raised by a handler that needs no more."""


def read_xml(pieces: Iterator[bytes], handler: Handler, *, content_type: str | None) -> str | None:
    """Pass a document to `handler` until it ends, is not well-formed, or the handler raises StopReading.

    Returns what is wrong with it, None if nothing; all before that was passed on. Raises XmlRefused.
    """
    return _Walk(handler).run(_texts(pieces, content_type))


def read_document(text: str, handler: DocumentHandler) -> str | None:
    """Pass a whole document to `handler`, as `read_xml` does. Raises XmlRefused.

    It may declare a document type. Entities of its own stay as written: only those of XML and HTML are expanded.
    """
    declared = 0

    def attribute_declared(*_: object) -> None:
        nonlocal declared
        declared += 1
        if declared > MAX_DEFAULTS:
            raise XmlRefused(f"more than {MAX_DEFAULTS} attributes declared")

    parser = expat.ParserCreate("utf-8", " ")
    parser.buffer_text = True
    parser.buffer_size = SLICE
    parser.specified_attributes = True
    parser.StartElementHandler = handler.start
    parser.EndElementHandler = handler.end
    parser.CharacterDataHandler = handler.text
    parser.ProcessingInstructionHandler = handler.instruction
    parser.AttlistDeclHandler = attribute_declared
    try:
        parser.Parse(_XmlRepair().feed(text, final=True).encode("utf-8", "replace"), True)
    except StopReading:
        return None
    except expat.ExpatError as error:
        return _error_text(error)
    return None


def _texts(pieces: Iterator[bytes], content_type: str | None) -> Iterator[str]:
    """The document as repaired text."""
    decoder: codecs.IncrementalDecoder | None = None
    repair = _XmlRepair()
    for piece in pieces:
        for at in range(0, len(piece), SLICE):
            data = piece[at : at + SLICE]
            if decoder is None:
                decoder = _decoder(data, content_type)
            yield repair.feed(decoder.decode(data))
    if decoder is not None:
        yield repair.feed(decoder.decode(b"", True), final=True)


def _decoder(data: bytes, content_type: str | None) -> codecs.IncrementalDecoder:
    """A decoder that replaces errors by U+FFFD."""
    encoding = sniff_xml(data, content_type)
    if encoding not in _PYTHONS:
        return _Legacy(encoding)
    decoder: codecs.IncrementalDecoder = webencodings.lookup(encoding).codec_info.incrementaldecoder("replace")
    return decoder


class _Legacy(codecs.BufferedIncrementalDecoder):
    """A decoder by encoding_rs. It decodes up to a byte that is a character of its own in every encoding."""

    def __init__(self, encoding: str) -> None:
        super().__init__("replace")
        self._encoding = encoding

    def _buffer_decode(self, data: Any, errors: str, final: bool) -> tuple[str, int]:
        held = bytes(data)
        end = len(held) if final else max(held.rfind(mark) for mark in (b"<", b">", b"\n")) + 1
        if end == 0 and len(held) >= SLICE:  # no markup: it is no XML
            end = len(held)
        return endec.decode(held[:end], self._encoding, "replace", bom="ignore"), end


class _XmlRepair:
    """Repairs text for a strict parser, piece by piece. What the end of a piece may cut is kept for the next one."""

    def __init__(self) -> None:
        self._kept = ""
        self._began = False
        self._in_cdata = False

    def feed(self, text: str, *, final: bool = False) -> str:
        text = self._kept + text
        self._kept = ""
        if not self._began:
            text = text.lstrip("\ufeff \t\r\n")  # for expat, white space before the declaration is an error
            self._began = bool(text)
        if not final:
            cuts = [at for mark, reach in _REACH if (at := text.rfind(mark, max(0, len(text) - reach))) >= 0]
            if cuts:
                text, self._kept = text[: min(cuts)], text[min(cuts) :]
        text = _NO_CHARACTER.sub(" ", text)
        if "&" not in text and "]]>" not in text and "<![" not in text:
            return text
        return _SUSPECT.sub(self._repair, text)

    def _repair(self, match: re.Match[str]) -> str:
        found = match[0]
        if found == "]]>" and not self._in_cdata:
            return "]]&gt;"
        if found[0] != "&":
            self._in_cdata = found[0] == "<"
            return found
        name = match[1]
        if self._in_cdata or name in _XML_ENTITIES or (name is not None and name[0] == "#" and _is_character(name)):
            return found
        known = html5.get(f"{name};") if name is not None else None
        if known is not None:
            return "".join(f"&#{ord(char)};" for char in known)
        return "&amp;" + found[1:]


def _is_character(reference: str) -> bool:
    """Whether "#233" or "#xE9" names a character that XML allows."""
    digits = reference[2:] if reference[1:2] in ("x", "X") else reference[1:]
    try:
        code = int(digits, 16 if reference[1:2] in ("x", "X") else 10)
    except ValueError:
        return False
    return reference[1:2] != "X" and (
        code in (9, 10, 13) or 0x20 <= code < 0xD800 or 0xE000 <= code < 0xFFFE or 0x10000 <= code <= 0x10FFFF
    )


def _error_text(error: expat.ExpatError) -> str:
    return f"not well-formed: {expat.errors.messages.get(error.code, error.code)}, line {error.lineno}"


class _Walk:
    """Parses one document with expat."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._depth = 0
        self._elements = 0
        parser = expat.ParserCreate("utf-8")
        parser.buffer_text = True
        parser.buffer_size = SLICE
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = handler.text
        parser.StartDoctypeDeclHandler = self._doctype
        self._parser = parser

    def run(self, texts: Iterator[str]) -> str | None:
        fed = 0
        parser = self._parser
        try:
            for text in texts:
                data = text.encode("utf-8", "replace")
                for at in range(0, len(data), SLICE):
                    piece = data[at : at + SLICE]
                    parser.Parse(piece, False)
                    fed += len(piece)
                    if fed - parser.CurrentByteIndex > MAX_TOKEN:
                        raise XmlRefused(f"a tag or comment longer than {MAX_TOKEN} bytes")
            parser.Parse(b"", True)
        except StopReading:
            return None
        except expat.ExpatError as error:
            return _error_text(error)
        finally:
            # break the reference cycle: the handlers are bound to this object
            parser.StartElementHandler = parser.EndElementHandler = parser.CharacterDataHandler = None
            parser.StartDoctypeDeclHandler = None
        return None

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._elements += 1
        if self._depth > MAX_DEPTH:
            raise XmlRefused(f"elements nested deeper than {MAX_DEPTH}")
        if self._elements > MAX_ELEMENTS:
            raise XmlRefused(f"more than {MAX_ELEMENTS} elements")
        self._handler.start(name.lower(), attributes)

    def _end(self, name: str) -> None:
        self._depth -= 1
        self._handler.end(name.lower())

    def _doctype(self, name: str, *_: object) -> None:
        raise XmlRefused(f"a document type declaration ({name[:40]})")
