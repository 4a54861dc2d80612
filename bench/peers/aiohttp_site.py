"""The crawler everybody writes first: aiohttp, BeautifulSoup, a queue and a set. A script: URL CONNECTIONS CA."""

import asyncio
import ssl
import sys
from urllib.parse import urldefrag, urljoin, urlsplit

import aiohttp
from bs4 import BeautifulSoup


async def crawl(start: str, connections: int, ca_file: str) -> None:
    """Fetch every page of one host that links lead to."""
    host = urlsplit(start).netloc
    seen = {start}
    queue: asyncio.Queue[str] = asyncio.Queue()
    queue.put_nowait(start)
    connector = aiohttp.TCPConnector(limit=connections, ssl=ssl.create_default_context(cafile=ca_file))
    async with aiohttp.ClientSession(connector=connector) as session:

        async def work() -> None:
            while True:
                url = await queue.get()
                try:
                    async with session.get(url) as response:
                        body = await response.read()
                        if response.content_type == "text/html":
                            for anchor in BeautifulSoup(body, "html.parser").find_all("a", href=True):
                                found = urldefrag(urljoin(str(response.url), anchor["href"]))[0]
                                if urlsplit(found).netloc == host and found not in seen:
                                    seen.add(found)
                                    queue.put_nowait(found)
                except aiohttp.ClientError:
                    pass
                finally:
                    queue.task_done()

        workers = [asyncio.create_task(work()) for _ in range(connections)]
        await queue.join()
        for worker in workers:
            worker.cancel()


if __name__ == "__main__":
    asyncio.run(crawl(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
