"""Scrapy on a whole site: follow every link of one host, keep nothing. Run as a script: URL CONNECTIONS."""

import sys

import scrapy
from scrapy.crawler import CrawlerProcess
from scrapy.linkextractors import LinkExtractor
from scrapy.spiders import CrawlSpider, Rule


class Site(CrawlSpider):
    """Everything under one host."""

    name = "site"
    allowed_domains = ("localhost",)
    rules = (Rule(LinkExtractor(), callback="note", follow=True),)

    def note(self, response: scrapy.http.Response) -> None:
        """A page was read; its links were followed by the rule."""


def main() -> None:
    url, connections = sys.argv[1], int(sys.argv[2])
    process = CrawlerProcess(
        {
            "LOG_ENABLED": False,
            "ROBOTSTXT_OBEY": True,
            "DEPTH_LIMIT": 0,
            "CONCURRENT_REQUESTS": connections,
            "CONCURRENT_REQUESTS_PER_DOMAIN": connections,
            "DOWNLOAD_DELAY": 0,
            "TELNETCONSOLE_ENABLED": False,
        }
    )
    process.crawl(Site, start_urls=[url])
    process.start()


if __name__ == "__main__":
    main()
