"""Pushes news into `news-queue`, one headline after the other, and shows the comments on them at /comments."""

from __future__ import annotations

import argparse
import itertools
import threading
import time

from app import arguments, run
from exchange import Exchange
from web import Page

HEADLINES = [
    "Rain in Bergen for the third day",
    "Library opens on Sundays",
    "Old bridge gets a new deck",
    "Town orchestra looks for a second oboe",
    "Ferry timetable changes in spring",
    "Chess club beats its neighbours",
    "Market moves to the harbour",
    "Lost cat found in the town hall",
]


def main() -> None:
    parser = arguments(__doc__ or "", port=8080)
    parser.add_argument(
        "--every", type=float, default=3, metavar="SECONDS", help="how often there is news [%(default)s]"
    )
    options: argparse.Namespace = parser.parse_args()
    exchange = Exchange(options.manager, send_to="news-queue", receive_from="comments-queue", topic="comments")

    def report() -> None:
        for number, headline in enumerate(itertools.cycle(HEADLINES), 1):
            exchange.send(f"News {number}: {headline}", "news")
            time.sleep(options.every)

    threading.Thread(target=report, daemon=True).start()
    page = Page(
        path="/comments",
        title="Comments",
        explanation="What readers say about the news that this application pushes.",
        prompt="News of your own",
        board=exchange.board,
        send=lambda text: exchange.send(text, "news"),
    )
    run("news-pusher", page, exchange, options)


if __name__ == "__main__":
    main()
