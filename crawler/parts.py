"""What one crawl is made of, as far as those around it need to reach it. Part of the composition root.

Values only: `app` fills it, `service` and `reload` use it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crawler.clients import Clients
from crawler.core.clock import Clock
from crawler.engine.admission import Admission
from crawler.engine.blocks import Blocks
from crawler.engine.books import Books
from crawler.engine.committer import Committer
from crawler.engine.crawl import Crawl
from crawler.engine.gate import AddressGate
from crawler.engine.listings import Listings
from crawler.engine.rejudge import Rejudger
from crawler.engine.report import Reporter
from crawler.engine.revisits import Revisits
from crawler.engine.scheduler import Scheduler
from crawler.engine.tally import Tally
from crawler.engine.valve import Valve
from crawler.engine.visit import Reader
from crawler.engine.worker import Worker
from crawler.frontier.base import Frontier
from crawler.obs.logs import Logs
from crawler.settings.settings import Mode


@dataclass(frozen=True, slots=True)
class Parts:
    """One crawl's parts."""

    crawl: Crawl
    scheduler: Scheduler
    books: Books
    gate: AddressGate
    admission: Admission
    committer: Committer
    reporter: Reporter
    tally: Tally
    clients: Clients
    reader: Reader
    workers: Sequence[Worker]
    blocks: Blocks
    valve: Valve
    frontier: Frontier
    clock: Clock
    logs: Logs
    output: Path
    rejudger: Rejudger
    revisits: Revisits
    listings: Listings
    mode: Mode
