"""A site with every kind of trap, and with honest pages.

`honest`: the targets that a crawl must find; the others have no end. A response depends only on its target, except for
the session that each page view gets.
"""

import itertools
import random
import string
from typing import Final

from crawler.core.models import Fetched
from tests.support.scripted_web import page, response

WORDS: Final = tuple("".join(random.Random(n).choices(string.ascii_lowercase, k=6)) for n in range(4_000))
COLORS, SIZES, SORTS, PAGES = 6, 5, 4, 9
MISSING: Final = "Sorry, we have nothing called that. Perhaps one of these is of use to you"


def prose(key: str, words: int = 120) -> str:
    """The same text for the same key."""
    return " ".join(random.Random(key).choices(WORDS, k=words))


class TrapSite:
    """Paths: /article (honest), /item (honest, found through the shop), /wiki (honest, and soft 404 for other names),
    /calendar, /shop, /maze, /loop and /forum (honest threads, with a new session in every link).
    """

    def __init__(self) -> None:
        self._sessions = itertools.count(1)
        self.honest = {"/", "/wiki/"}
        self.honest |= {f"/article/{n}" for n in range(60)}
        self.honest |= {f"/item/{n}" for n in range(40)}
        self.honest |= {f"/wiki/{WORDS[n]}" for n in range(30)}
        self.honest |= {f"/forum/thread-{n}" for n in range(25)}

    def respond(self, target: str) -> Fetched:
        """The response to a target."""
        try:
            return self._respond(target)
        except ValueError:  # a name where a number belongs
            return response(404)

    def _respond(self, target: str) -> Fetched:
        path, _, query = target.partition("?")
        parts = path.strip("/").split("/")
        match parts[0]:
            case "":
                return self._page("Home", prose("home"), "/article/0", "/wiki/", "/calendar/2026/11", "/shop",
                                  "/maze/", "/loop/a/", f"/forum/thread-0?sid={self._session()}")  # fmt: skip
            case "article":
                n = int(parts[1])
                return self._page(
                    f"Article {n}",
                    prose(f"article{n}"),
                    *(f"/article/{m}" for m in range(3 * n + 1, min(3 * n + 4, 60))),
                    "/",
                )
            case "item":
                return self._page(f"Item {parts[1]}", prose(f"item{parts[1]}"), "/shop")
            case "wiki":
                return self._wiki(parts)
            case "calendar":
                return self._calendar(int(parts[1]), int(parts[2]))
            case "shop":
                return self._shop(dict(part.split("=") for part in query.split("&") if part))
            case "maze":
                rng = random.Random(path)
                below = [f"{path.rstrip('/')}/{rng.choice(WORDS)}/" for _ in range(3)]
                return self._page("Maze", "Turn left or right", *below)
            case "loop":
                return self._page("Loop", "Round and round", f"{path}a/", f"{path}b/a/")
            case "forum":
                n = int(parts[1].removeprefix("thread-"))
                near = [f"/forum/thread-{m % 25}?sid={self._session()}" for m in (n + 1, n + 2, n + 7)]
                return self._page(f"Thread {n}", prose(f"thread{n}"), *near)
        return response(404)

    def _session(self) -> str:
        return f"{random.Random(next(self._sessions)).getrandbits(128):032x}"

    def _page(self, title: str, text: str, *links: str) -> Fetched:
        body = page(*links, title=title).replace(b"</body>", f"<p>{text}</p></body>".encode())
        return response(200, body)

    def _wiki(self, parts: list[str]) -> Fetched:
        name = parts[1] if len(parts) > 1 else ""
        if not name:
            return self._page("Wiki", prose("wiki"), *(f"/wiki/{WORDS[n]}" for n in range(30)), "/wiki/nosuch")
        if name in WORDS[:30]:
            return self._page(f"On {name}", prose(name), "/wiki/", f"/wiki/{name}zz")
        rng = random.Random(name)
        others = [f"/wiki/{rng.choice(WORDS)}{rng.choice(WORDS)}" for _ in range(4)]
        return self._page("Not found", f"{MISSING}: {name}", *others)

    def _calendar(self, year: int, month: int) -> Fetched:
        at = [f"/calendar/{year + (month + step - 1) // 12}/{(month + step - 1) % 12 + 1}" for step in (-1, 1, -12, 12)]
        return self._page(f"Month {month} of {year}", f"month{month} {year}: there are no events", *at)

    def _shop(self, chosen: dict[str, str]) -> Fetched:
        items = [n for n in range(40) if all(int(value) == n % (len(name) + 2) for name, value in chosen.items())]
        links = [f"/item/{n}" for n in items]
        for name, count in (("color", COLORS), ("size", SIZES), ("sort", SORTS), ("page", PAGES), ("brand", 8)):
            for value in range(count):
                more = chosen | {name: str(value)}
                links.append("/shop?" + "&".join(f"{key}={more[key]}" for key in sorted(more)))
        listed = " ".join(f"item{n}" for n in items)
        return self._page("Shop", f"Our goods: {listed}", *links)
