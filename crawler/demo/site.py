"""The demo site: a journal of lighthouses, its handbook, and the small oddities that real sites have.

All pages are made at once: `responses` maps (host, target) to what is served.
Three hosts: `demo.test` redirects to `www.demo.test`, which links to `docs.demo.test`.
"""

import gzip
import struct
import zlib
from dataclasses import dataclass, field, replace
from enum import Enum
from html import escape
from typing import Final, Self

import brotli


def svg(n: int) -> str:
    """A lighthouse; its beam turns with `n`."""
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 120 120"><rect width="120" height="120" fill="#234"/>'
        f'<path d="M60 38 L120 {10 + 4 * n} L120 {40 + 4 * n} Z" fill="#fd8"/>'
        '<path d="M52 44 h16 l6 70 h-28 z" fill="#eee"/><rect x="52" y="32" width="16" height="12" fill="#a33"/></svg>'
    )


def png(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    """A plain 8-bit RGB picture (PNG specification, third edition, §5)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(colour) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


_REASONS: Final = {
    200: "OK", 301: "Moved Permanently", 302: "Found", 304: "Not Modified", 400: "Bad DemoRequest",
    404: "Not Found", 405: "Method Not Allowed", 429: "Too Many Requests", 500: "Internal Server Error",
    503: "Service Unavailable",
}  # fmt: skip
CHUNK: Final = 1_000


class DemoFraming(Enum):
    """How the end of a response is marked (RFC 9112 §6.3)."""

    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"  # no length: the end of the connection is the end of the body


@dataclass(frozen=True, slots=True)
class DemoRequest:
    """A request without a body. `host` is without its port; field names are lower case."""

    method: str
    target: str
    host: str
    fields: dict[str, str]

    @classmethod
    def parse(cls, head: bytes) -> Self:
        """Read a head up to its empty line. Raises ValueError for what is no request."""
        start, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, target, version = start.split(" ")
        if version != "HTTP/1.1":
            raise ValueError(f"{version} is not supported")
        fields: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError(f"not a field: {line!r}")
            fields[name.lower()] = value.strip()
        return cls(method, target, fields["host"].rpartition(":")[0] or fields["host"], fields)


@dataclass(frozen=True, slots=True)
class DemoResponse:
    """A response. `coding` is a content coding the client must accept to get it: "gzip" or "br"."""

    body: bytes = b""
    status: int = 200
    content_type: str | None = "text/html; charset=utf-8"
    fields: tuple[tuple[str, str], ...] = field(default=())
    framing: DemoFraming = DemoFraming.LENGTH
    coding: str | None = None

    def coded_for(self, request: DemoRequest) -> "DemoResponse":
        """The same with the content coding applied, if there is one and the client takes it (RFC 9110 §12.5.3)."""
        accepted = {item.partition(";")[0].strip() for item in request.fields.get("accept-encoding", "").split(",")}
        if self.coding is None or self.coding not in accepted:
            return self
        body = gzip.compress(self.body, mtime=0) if self.coding == "gzip" else brotli.compress(self.body, quality=5)
        fields = (*self.fields, ("Content-Encoding", self.coding), ("Vary", "Accept-Encoding"))
        return replace(self, body=body, fields=fields, coding=None)

    def encode(self, *, close: bool) -> bytes:
        """The bytes on the wire. `close` announces the end of the connection."""
        lines = [f"HTTP/1.1 {self.status} {_REASONS.get(self.status, '')}", "Server: crawler-demo"]
        lines += [f"{name}: {value}" for name, value in self.fields]
        if self.content_type is not None:
            lines.append(f"Content-Type: {self.content_type}")
        body = self.body
        if self.status == 304:  # has no body, and says no length of one (RFC 9110 §15.4.5)
            body = b""
        elif self.framing is DemoFraming.CHUNKED:
            lines.append("Transfer-Encoding: chunked")
            body = _chunked(body)
        elif self.framing is DemoFraming.LENGTH:
            lines.append(f"Content-Length: {len(body)}")
        lines.append("Connection: close" if close else "Connection: keep-alive")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def _chunked(body: bytes) -> bytes:
    pieces = [body[start : start + CHUNK] for start in range(0, len(body), CHUNK)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


BARE: Final = "demo.test"
WWW: Final = "www.demo.test"
DOCS: Final = "docs.demo.test"
HOSTS: Final = (BARE, WWW, DOCS)

ARTICLES: Final = 36
PER_PAGE: Final = 8
CHAPTERS: Final = 10

_PLACES: Final = (
    "Ar Bleiz", "Cape Morrow", "Dunmore Rock", "Eagle Shoal", "Farholm", "Gull Stack", "Hellick", "Inner Skerry",
    "Kettle Point", "Long Reef", "Mew Island", "North Haven",
)  # fmt: skip
_TOPICS: Final = ("The light of", "Winter on", "Last keeper of")
_SENTENCES: Final = (
    "The lamp is lit an hour before sunset and trimmed twice before midnight.",
    "On clear nights the beam is seen from nineteen miles out.",
    "Nothing is written in the log but the wind, the sea and the oil that was burnt.",
    "The lens floats on mercury, so that a child could turn it with one finger.",
    "In the third winter the boat could not land for eleven weeks.",
    "Each tower has its own rhythm, and a mariner counts it before he trusts it.",
    "The stair has one hundred and forty-two steps, and every one of them is worn on the left.",
    "Fog is announced by a horn, two blasts in each minute.",
    "Since the light was made automatic, only the gulls keep watch.",
    "The keeper's garden is four paces wide and walled against salt.",
    "A ship's bell hangs in the kitchen; nobody remembers from which ship.",
    "Paint is the better part of keeping: white for the day, red for the rock.",
)  # fmt: skip


class DemoSite:
    """All pages for a server on `port`; `respond` finds the one that is requested."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.responses: dict[tuple[str, str], DemoResponse] = {}
        self._add_journal()
        self._add_oddities()
        self._add_handbook()
        self._add_assets()
        self._add_robots()

    def respond(self, request: DemoRequest) -> DemoResponse:
        """The response to a request; never raises."""
        if request.method != "GET":
            return DemoResponse(status=405, fields=(("Allow", "GET"),))
        if request.host == BARE:
            return _redirect(301, self._url(WWW, request.target))
        found = self.responses.get((request.host, request.target))
        if found is None:
            return DemoResponse(_page("Not found", "<p>There is no such page.</p>"), status=404)
        if found.status != 200:
            return found
        etag = f'"{zlib.crc32(found.body):08x}"'
        if request.fields.get("if-none-match") == etag:
            return DemoResponse(status=304, content_type=None, fields=(("ETag", etag),))
        return replace(found, fields=(*found.fields, ("ETag", etag)))

    def _url(self, host: str, target: str) -> str:
        return f"https://{host}:{self._port}{target}"

    def _put(
        self,
        target: str,
        title: str,
        body: str,
        *,
        host: str = WWW,
        head: str = "",
        fields: tuple[tuple[str, str], ...] = (),
        framing: DemoFraming = DemoFraming.LENGTH,
        coding: str | None = None,
    ) -> None:
        page = _page(title, body, head)
        self.responses[host, target] = DemoResponse(page, fields=fields, framing=framing, coding=coding)

    def _add_journal(self) -> None:
        articles = [(_article_target(n), _article_title(n)) for n in range(ARTICLES)]
        latest = _list(articles[:6])
        self._put(
            "/",
            "The Keeper",
            f'<img src="/img/logo.svg" alt="logo" width="120"><p>A journal of lighthouses.</p>{latest}'
            '<p><a href="/articles/?page=1">All articles</a> · <a href="/about">About</a> · '
            f'<a href="{self._url(DOCS, "/")}">The handbook</a> · <a href="/gone">A broken link</a></p>'
            '<p><a href="/private/log">The log</a> · <a href="/login?session=8f3a2c" rel="nofollow">Sign in</a>'
            ' · <a href="/old/about">Old address</a> · <a href="/drafts/lens">A draft</a> · '
            '<a href="/visit">Visit us</a> · <a href="mailto:keeper@demo.test">Write to us</a></p>',
            coding="gzip",
        )
        pages = -(-ARTICLES // PER_PAGE)
        for page in range(1, pages + 1):
            shown = articles[(page - 1) * PER_PAGE : page * PER_PAGE]
            turn = f'<a href="?page={page + 1}" rel="next">Older</a>' if page < pages else ""
            turn += f' <a href="?page={page - 1}" rel="prev">Newer</a>' if page > 1 else ""
            self._put(
                f"/articles/?page={page}", f"Articles, page {page}", f"{_list(shown)}<p>{turn}</p>", coding="gzip"
            )
        for n, (target, title) in enumerate(articles):
            near = [articles[(n + step) % ARTICLES] for step in (1, 5, 12)]
            picture = f"/img/{n % 12}.{'svg' if n % 2 else 'png'}"
            self._put(
                target,
                title,
                f'<img src="{picture}" alt="{escape(title)}">{_prose(n, 6 + n % 5)}<h2>Read on</h2>{_list(near)}'
                f'<p>See <a href="{self._url(DOCS, f"/guide/{n % CHAPTERS + 1}")}">the handbook</a>.</p>',
                head=f'<link rel="canonical" href="{self._url(WWW, target)}">',
                coding="br" if n % 3 == 0 else "gzip",
                fields=(("Last-Modified", f"Sun, {1 + n % 28:02d} Nov 2026 08:00:00 GMT"),),
            )

    def _add_oddities(self) -> None:
        """Pages that a crawler must treat in a special way."""
        self._put("/about", "About", _prose(3, 4) + '<p id="visit">Boats leave at nine.</p>')
        self._put("/visit", "Visit", "<p>One moment …</p>", head='<meta http-equiv="refresh" content="0; url=/about">')
        self._put("/private/log", "Log", "<p>robots.txt asks crawlers to stay away from here.</p>")
        self._put("/login?session=8f3a2c", "Sign in", "<p>Nobody signs in here.</p>")
        self._put(
            "/drafts/lens",
            "Draft: the lens",
            '<p>Not to be indexed, its links not to be followed: <a href="/drafts/hidden">hidden</a>.</p>',
            head='<meta name="robots" content="noindex, nofollow">',
        )
        self._put("/drafts/hidden", "Hidden", "<p>Only a page that says nofollow leads here.</p>")
        self.responses[WWW, "/old/about"] = _redirect(302, "/old/about/")
        self.responses[WWW, "/old/about/"] = _redirect(301, "/about")

    def _add_handbook(self) -> None:
        chapters = [(f"/guide/{n}", f"Chapter {n}") for n in range(1, CHAPTERS + 1)]
        special = [("/notes", "Notes"), ("/tables", "Tables"), ("/glossaire", "Glossaire")]
        self._put("/", "The handbook", _list(chapters) + _list(special), host=DOCS)
        for n, (target, title) in enumerate(chapters):
            follow = f'<a href="/guide/{n + 2}" rel="next">Next</a>' if n + 1 < CHAPTERS else '<a href="/">Contents</a>'
            body = _prose(n * 5, 40) + f"<p>{follow}</p>"
            self._put(
                target,
                title,
                body,
                host=DOCS,
                coding="br",
                framing=DemoFraming.CHUNKED if n % 4 == 3 else DemoFraming.LENGTH,
            )
        self._put("/notes", "Notes", _prose(7, 12), host=DOCS, framing=DemoFraming.CLOSE)
        self._put("/tables", "Tables", _prose(9, 60), host=DOCS, framing=DemoFraming.CHUNKED)
        text = "<p>Le phare, l'été : première lentille à échelons, gardée près de la mer.</p>" + _list(chapters[:2])
        self.responses[DOCS, "/glossaire"] = DemoResponse(
            _document("Glossaire", text).encode("latin-1"), content_type="text/html; charset=iso-8859-1"
        )

    def _add_assets(self) -> None:
        """Styles, a script and pictures, on both hosts whose pages use them."""
        for host in (WWW, DOCS):
            style = '@import "/css/colours.css";\nbody { background: url("/img/paper.png"); max-width: 40em; }\n'
            self.responses[host, "/style.css"] = DemoResponse(style.encode(), content_type="text/css", coding="gzip")
            colours = "body { color: #223; }\na { color: #a33; }\n"
            self.responses[host, "/css/colours.css"] = DemoResponse(colours.encode(), content_type="text/css")
            script = 'document.documentElement.classList.add("ready");\n'
            self.responses[host, "/app.js"] = DemoResponse(script.encode(), content_type="text/javascript")
            self.responses[host, "/img/paper.png"] = DemoResponse(png(8, 8, (250, 247, 240)), content_type="image/png")
        self.responses[WWW, "/img/logo.svg"] = DemoResponse(svg(0).encode(), content_type="image/svg+xml")
        for n in range(12):
            self.responses[WWW, f"/img/{n}.svg"] = DemoResponse(
                svg(n).encode(), content_type="image/svg+xml", coding="gzip"
            )
            picture = png(160, 90, (20 * n, 90, 255 - 20 * n))
            self.responses[WWW, f"/img/{n}.png"] = DemoResponse(picture, content_type="image/png")

    def _add_robots(self) -> None:
        rules = f"User-agent: *\nDisallow: /private/\nSitemap: {self._url(WWW, '/sitemap.xml')}\n"
        self.responses[WWW, "/robots.txt"] = DemoResponse(rules.encode(), content_type="text/plain")
        self.responses[DOCS, "/robots.txt"] = DemoResponse(b"User-agent: *\nDisallow:\n", content_type="text/plain")
        entries = "".join(f"<url><loc>{self._url(WWW, _article_target(n))}</loc></url>" for n in range(ARTICLES))
        sitemap = f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{entries}</urlset>'
        self.responses[WWW, "/sitemap.xml"] = DemoResponse(sitemap.encode(), content_type="application/xml")


def _article_title(n: int) -> str:
    return f"{_TOPICS[n // len(_PLACES)]} {_PLACES[n % len(_PLACES)]}"


def _article_target(n: int) -> str:
    return f"/articles/{n + 1:02d}-{_article_title(n).lower().replace(' ', '-')}"


def _prose(seed: int, sentences: int) -> str:
    """Paragraphs of four sentences, the same for the same seed."""
    chosen = [_SENTENCES[(seed * 5 + n * 7 + n // 12) % len(_SENTENCES)] for n in range(sentences)]
    return "".join(f"<p>{' '.join(chosen[start : start + 4])}</p>" for start in range(0, sentences, 4))


def _list(links: list[tuple[str, str]]) -> str:
    return "<ul>" + "".join(f'<li><a href="{target}">{escape(title)}</a></li>' for target, title in links) + "</ul>"


def _page(title: str, body: str, head: str = "") -> bytes:
    return _document(title, body, head).encode()


def _document(title: str, body: str, head: str = "") -> str:
    return (
        f'<!doctype html><html lang="en"><head><title>{escape(title)}</title><link rel="stylesheet" href="/style.css">'
        f'<script src="/app.js" defer></script>{head}</head><body><nav><a href="/">Home</a></nav>'
        f"<h1>{escape(title)}</h1>{body}</body></html>"
    )


def _redirect(status: int, location: str) -> DemoResponse:
    return DemoResponse(b"", status=status, content_type=None, fields=(("Location", location),))
