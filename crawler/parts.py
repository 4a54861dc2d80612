"""What one crawl is made of, as far as those around it need to reach it. Part of the composition root.

Values only: `app` fills it, `service` and `reload` use it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crawler.clients import Clients
from crawler.core.clock import Clock
from crawler.engine.committer import Committer
from crawler.engine.crawl import Crawl
from crawler.engine.monitoring.counters import CrawlCounters
from crawler.engine.monitoring.event_log import EventLog
from crawler.engine.pages.response_processor import ResponseProcessor
from crawler.engine.pages.revisits import Revisits
from crawler.engine.pages.url_list_policy import UrlListPolicy
from crawler.engine.pages.url_policy import UrlPolicy
from crawler.engine.pages.worker import Worker
from crawler.engine.reevaluation import Reevaluation
from crawler.engine.scheduling.blocklist import Blocklist
from crawler.engine.scheduling.host_table import HostTable
from crawler.engine.scheduling.rate_limits import AddressRateLimiter, CrawlRateLimiter
from crawler.engine.scheduling.scheduler import Scheduler
from crawler.frontier.base import Frontier
from crawler.obs.logs import Logs
from crawler.settings.settings import Mode


@dataclass(frozen=True, slots=True)
class Parts:
    """One crawl's parts."""

    crawl: Crawl
    scheduler: Scheduler
    books: HostTable
    gate: AddressRateLimiter
    admission: UrlPolicy
    committer: Committer
    reporter: EventLog
    tally: CrawlCounters
    clients: Clients
    reader: ResponseProcessor
    workers: Sequence[Worker]
    blocks: Blocklist
    valve: CrawlRateLimiter
    frontier: Frontier
    clock: Clock
    logs: Logs
    output: Path
    rejudger: Reevaluation
    revisits: Revisits
    listings: UrlListPolicy
    mode: Mode
