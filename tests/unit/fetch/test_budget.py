"""Bytes in memory are counted from any thread, and who stopped reading is let on in turn."""

import asyncio
import threading

from crawler.fetch.limits import ByteBudget


async def test_giving_back_lets_the_waiting_on_in_turn():
    """First come, first served, and each looks at what the one before has taken."""
    budget = ByteBudget(100)
    budget.take(100)
    assert budget.is_spent()
    resumed = []
    done = asyncio.Event()

    def resume(name):
        resumed.append(name)
        if len(resumed) == 3:
            done.set()

    for name in "abc":
        budget.wait(lambda finishes, name=name: resume(name))
    budget.give(1)
    async with asyncio.timeout(5):
        await done.wait()
    assert resumed == ["a", "b", "c"]
    assert not budget._waiting


async def test_nobody_waits_for_ever_for_memory_that_nobody_gives_back():
    """With every byte in half-read bodies, one is let on after a while though the budget stays spent."""
    budget = ByteBudget(100)
    budget.take(500)
    on = asyncio.Event()
    budget.wait(lambda finishes: on.set())
    budget.wait(lambda finishes: None)
    async with asyncio.timeout(5):
        await on.wait()
    assert budget.is_spent()
    assert len(budget._waiting) == 1
    budget.give(500)


async def test_one_at_a_time_is_let_on_to_its_end():
    """The others that come by then get a piece each, until it says that it has finished."""
    budget = ByteBudget(100)
    budget.take(500)
    let_on = []
    done = asyncio.Event()

    def resume(finishes):
        let_on.append(finishes)
        if len(let_on) == 2:
            budget.finished()
        if len(let_on) == 3:
            budget.give(500)
        if len(let_on) == 4:
            done.set()

    for _ in range(4):
        budget.wait(resume)
    async with asyncio.timeout(10):
        await done.wait()
    assert let_on == [True, False, True, False]


def test_counting_holds_across_threads():
    """Bodies are dropped in whatever thread: not a byte is lost or counted twice."""
    budget = ByteBudget(1)

    def work():
        for _ in range(20_000):
            budget.take(3)
            budget.give(2)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert budget.held >= 0
    assert budget.held == 80_000
