"""Shows the news that come out of `news-queue` at /news, and pushes comments on them into `comments-queue`."""

from __future__ import annotations

import itertools

from app import arguments, run
from exchange import Exchange, Item
from web import Page

REMARKS = ["at last", "who would have thought", "this again", "good to know", "my aunt said so years ago"]


def main() -> None:
    options = arguments(__doc__ or "", port=8081).parse_args()
    exchange = Exchange(options.manager, send_to="comments-queue", receive_from="news-queue", topic="news")
    remarks = itertools.cycle(REMARKS)

    def comment(item: Item) -> None:
        exchange.send(f"On {item.text.split(':')[0]}: {next(remarks)}", "comments")

    exchange.on_received(comment)
    page = Page(
        path="/news",
        title="News",
        explanation="What this application received, in order, each item once.",
        prompt="A comment",
        board=exchange.board,
        send=lambda text: exchange.send(text, "comments"),
    )
    run("news-consumer", page, exchange, options)


if __name__ == "__main__":
    main()
