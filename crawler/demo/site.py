"""The demo site: a journal of lighthouses, its handbook, and the small oddities that real sites have.

Owns every page, all made when the site is: `answers` maps (host, target) to what is served. It does not know of
connections.
Three hosts: `demo.test` redirects to `www.demo.test`, which links to `docs.demo.test`.
"""

import zlib
from dataclasses import replace
from html import escape
from typing import Final

from crawler.demo.art import png, svg
from crawler.demo.message import Answer, Framing, Request

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
    """All pages for a server on `port`; `answer` finds the one that is asked for."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answers: dict[tuple[str, str], Answer] = {}
        self._add_journal()
        self._add_oddities()
        self._add_handbook()
        self._add_assets()
        self._add_robots()

    def answer(self, request: Request) -> Answer:
        """What the site says to a request; never raises."""
        if request.method != "GET":
            return Answer(status=405, fields=(("Allow", "GET"),))
        if request.host == BARE:
            return _redirect(301, self._url(WWW, request.target))
        found = self.answers.get((request.host, request.target))
        if found is None:
            return Answer(_page("Not found", "<p>There is no such page.</p>"), status=404)
        if found.status != 200:
            return found
        etag = f'"{zlib.crc32(found.body):08x}"'
        if request.fields.get("if-none-match") == etag:
            return Answer(status=304, content_type=None, fields=(("ETag", etag),))
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
        framing: Framing = Framing.LENGTH,
        coding: str | None = None,
    ) -> None:
        page = _page(title, body, head)
        self.answers[host, target] = Answer(page, fields=fields, framing=framing, coding=coding)

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
        """Pages that a crawler must treat in a way of their own."""
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
        self.answers[WWW, "/old/about"] = _redirect(302, "/old/about/")
        self.answers[WWW, "/old/about/"] = _redirect(301, "/about")

    def _add_handbook(self) -> None:
        chapters = [(f"/guide/{n}", f"Chapter {n}") for n in range(1, CHAPTERS + 1)]
        special = [("/notes", "Notes"), ("/tables", "Tables"), ("/glossaire", "Glossaire")]
        self._put("/", "The handbook", _list(chapters) + _list(special), host=DOCS)
        for n, (target, title) in enumerate(chapters):
            follow = f'<a href="/guide/{n + 2}" rel="next">Next</a>' if n + 1 < CHAPTERS else '<a href="/">Contents</a>'
            body = _prose(n * 5, 40) + f"<p>{follow}</p>"
            self._put(
                target, title, body, host=DOCS, coding="br", framing=Framing.CHUNKED if n % 4 == 3 else Framing.LENGTH
            )
        self._put("/notes", "Notes", _prose(7, 12), host=DOCS, framing=Framing.CLOSE)
        self._put("/tables", "Tables", _prose(9, 60), host=DOCS, framing=Framing.CHUNKED)
        text = "<p>Le phare, l'été : première lentille à échelons, gardée près de la mer.</p>" + _list(chapters[:2])
        self.answers[DOCS, "/glossaire"] = Answer(
            _document("Glossaire", text).encode("latin-1"), content_type="text/html; charset=iso-8859-1"
        )

    def _add_assets(self) -> None:
        """Styles, a script and pictures, on both hosts where pages ask for them."""
        for host in (WWW, DOCS):
            style = '@import "/css/colours.css";\nbody { background: url("/img/paper.png"); max-width: 40em; }\n'
            self.answers[host, "/style.css"] = Answer(style.encode(), content_type="text/css", coding="gzip")
            colours = "body { color: #223; }\na { color: #a33; }\n"
            self.answers[host, "/css/colours.css"] = Answer(colours.encode(), content_type="text/css")
            script = 'document.documentElement.classList.add("ready");\n'
            self.answers[host, "/app.js"] = Answer(script.encode(), content_type="text/javascript")
            self.answers[host, "/img/paper.png"] = Answer(png(8, 8, (250, 247, 240)), content_type="image/png")
        self.answers[WWW, "/img/logo.svg"] = Answer(svg(0).encode(), content_type="image/svg+xml")
        for n in range(12):
            self.answers[WWW, f"/img/{n}.svg"] = Answer(svg(n).encode(), content_type="image/svg+xml", coding="gzip")
            picture = png(160, 90, (20 * n, 90, 255 - 20 * n))
            self.answers[WWW, f"/img/{n}.png"] = Answer(picture, content_type="image/png")

    def _add_robots(self) -> None:
        rules = f"User-agent: *\nDisallow: /private/\nSitemap: {self._url(WWW, '/sitemap.xml')}\n"
        self.answers[WWW, "/robots.txt"] = Answer(rules.encode(), content_type="text/plain")
        self.answers[DOCS, "/robots.txt"] = Answer(b"User-agent: *\nDisallow:\n", content_type="text/plain")
        entries = "".join(f"<url><loc>{self._url(WWW, _article_target(n))}</loc></url>" for n in range(ARTICLES))
        sitemap = f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{entries}</urlset>'
        self.answers[WWW, "/sitemap.xml"] = Answer(sitemap.encode(), content_type="application/xml")


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


def _redirect(status: int, location: str) -> Answer:
    return Answer(b"", status=status, content_type=None, fields=(("Location", location),))
