"""The whole example in a real browser, while brokers are killed under it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from rmom_testing.process import Process, http

EXAMPLE = Path(__file__).parent.parent
PATIENCE_MILLIS = 60_000
#: How many items have to have come before and after something breaks.
SOME = 8


class Example:
    """Where its parts are."""

    def __init__(self, process: Process) -> None:
        def address(name: str) -> str:
            return process.wait_for_line(f"{name}: ", log=False).split(": ")[1]

        self.manager = address("rmom")
        self.brokers = address("brokers").split()
        self.comments = address("news-pusher")
        self.news = address("news-consumer")

    def kill_host_of(self, queue: str) -> None:
        """Crashes the broker that hosts a queue, and starts the one that was crashed before."""
        place = json.loads(http("GET", f"{self.manager}/queues/{queue}")[1])
        number = self.brokers.index(f"{place['host']}:{place['port']}") + 1
        assert http("POST", f"{self.manager}/v1/dev/brokers/{number}/crash")[0] == 204


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Example]:
    ports = ["--news-port", "0", "--comments-port", "0", "--manager-port", "0"]
    process = Process("news", [sys.executable, str(EXAMPLE), *ports, "--every", "0.25"], tmp_path)
    yield Example(process)
    process.signal(signal.SIGTERM)
    assert process.wait() == 0, process.log


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        program = shutil.which("chromium")
        assert program, "there is no chromium: apt-get install chromium"
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


def items(page: Page) -> list[str]:
    """What the page shows, as its reader sees it: number and text."""
    rows = page.locator("#items li")
    shown: list[str] = rows.evaluate_all("rows => rows.map(row => row.value + ' ' + row.textContent)")
    return shown


def wait_for(page: Page, count: int) -> None:
    """Until the page shows so many items, without being loaded again."""
    expression = f"document.querySelectorAll('#items li').length >= {count}"
    page.wait_for_function(expression, timeout=PATIENCE_MILLIS)


def news_of(shown: list[str]) -> list[int]:
    """The numbers of the news among the items; each item has the number of its row."""
    assert [int(item.split()[0]) for item in shown] == list(range(1, len(shown) + 1))
    found = [re.match(r"\d+ (?:On )?News (\d+)", item) for item in shown]
    return [int(match.group(1)) for match in found if match]


def test_news_and_comments_arrive_live_once_and_in_order_while_brokers_die(example: Example, browser: Browser) -> None:
    news, comments = browser.new_page(), browser.new_page()
    problems: list[str] = []
    for page, address in ((news, example.news), (comments, example.comments)):
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(address)
        page.wait_for_function("document.getElementById('state').textContent == 'live'", timeout=PATIENCE_MILLIS)
        wait_for(page, SOME)

    for queue in ("news-queue", "comments-queue"):
        example.kill_host_of(queue)
        for page in (news, comments):
            wait_for(page, len(items(page)) + SOME)

    # A comment of a reader, and a headline of the editor, find their way to the other page.
    for page, other, text in ((news, comments, "<b>First!</b> & last"), (comments, news, "Extra: an extra")):
        page.fill("input", text)
        page.click("button")
        other.get_by_text(text, exact=True).wait_for(timeout=PATIENCE_MILLIS)

    # The headline was commented on as the others are, so that page shows one more.
    for page, extras in ((news, 1), (comments, 2)):
        wait_for(page, len(items(page)) + SOME)
        shown = items(page)
        numbers = news_of(shown)
        assert numbers == list(range(1, len(numbers) + 1)), shown
        assert len(numbers) == len(shown) - extras, shown
        # A refresh shows the same, and what has come meanwhile.
        page.reload()
        assert items(page)[: len(shown)] == shown
        wait_for(page, len(shown) + 2)
        assert news_of(items(page))[: len(numbers)] == numbers
    assert problems == []

    folder = os.environ.get("RMOM_SCREENSHOTS")
    if folder:
        for page, name in ((news, "news"), (comments, "comments")):
            page.set_viewport_size({"width": 800, "height": 640})
            page.reload()
            page.screenshot(path=Path(folder) / f"example-{name}.png")
