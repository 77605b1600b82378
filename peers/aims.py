"""What rmom aims at, and how far it is reached: computed from what was measured, round by round.

Each check compares runs of the same round, so that what the machine did meanwhile is in both.
"""

import dataclasses
import statistics
import typing

from results import figure
from scenarios import (
    ACKNOWLEDGED,
    BATCHES,
    COMMIT,
    CORE_NATS,
    DELIVERED,
    DURABLE_PEERS,
    ORIGINAL,
    POSTGRES,
    RABBIT,
    REDIS,
    SERVED,
    SQLITE,
    STORED,
    UNARY,
)

BOTH = (POSTGRES, SQLITE)
# The same within what two runs on one machine differ by.
SAME = 1.2


@dataclasses.dataclass
class Check:
    """One number that has to be reached."""

    aim: str
    # From a round and a store to the number; no number (KeyError) if that was not measured.
    of: typing.Callable
    bound: float
    at_least: bool = True
    unit: str = "×"
    stores: tuple = BOTH
    # Wished for, not asked for.
    beyond: bool = False

    def reached(self, results, store):
        """Whether, and what it is; by how much not."""
        if store not in self.stores:
            return ""
        values = results.values(lambda one: self.of(one, store))
        if not values:
            return "not measured"
        value = statistics.median(values)
        good = value >= self.bound if self.at_least else value <= self.bound
        verdict = "**yes**" if good else "not yet" if self.beyond else "**no**"
        text = f"{verdict}: {self.show(value)}"
        if not good:
            text += (
                f", {value / self.bound:.0%} of it" if self.at_least else f", {value / self.bound:.2f} times as much"
            )
        if len(values) > 1:
            text += f" ({self.show(min(values))} to {self.show(max(values))})"
        return text

    def show(self, value):
        if self.unit == "%":
            return f"{value * 100:.3g}%"
        digits = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        return f"{digits} {self.unit}"


def to(scenario, other, path):
    """The store's figure by another system's."""
    return lambda one, store: figure(one, scenario, store, path) / figure(one, scenario, other, path)


def to_own(scenario, path, other_scenario, other_path):
    """… by its own in another scenario."""
    return lambda one, store: figure(one, scenario, store, path) / figure(one, other_scenario, store, other_path)


def below_peers(path):
    """The best durable peer's time by the store's."""

    def ratio(one, store):
        best = min(figure(one, "latency", peer, path) for peer in DURABLE_PEERS)
        return best / figure(one, "latency", store, path)

    return ratio


def _of_bare_parts(one, store):
    bare = figure(one, "one", COMMIT, ACKNOWLEDGED) + figure(one, "one", UNARY, ACKNOWLEDGED)
    return figure(one, "one", store, ACKNOWLEDGED) / bare


def _variant(scenario, name, path):
    return lambda one, store: figure(one, scenario, f"{store}, {name}", path)


def _between_variants(scenario, name, other, path):
    first, second = _variant(scenario, name, path), _variant(scenario, other, path)
    return lambda one, store: first(one, store) / second(one, store)


ONLY = (POSTGRES,)
QUEUES, SUBSCRIBERS = "10,000 queues of one channel", "10,000 subscribers"
PERCENT = {"unit": "%"}
AT_MOST = {"at_least": False}

# In the order of the report.
AIMS = {
    "durable stream push, one producer, 100 bytes": [
        Check("15 × RabbitMQ quorum", to("push-100", RABBIT, STORED), 15),
        Check("100 × the original's shape", to("push-100", ORIGINAL, STORED), 100),
        Check("50% of PostgreSQL batch rows", to("push-100", BATCHES, STORED), 0.5, stores=ONLY, **PERCENT),
        Check("beyond: 4 × Redis streams", to("push-100", REDIS, STORED), 4, beyond=True),
    ],
    "the same with 1 KiB messages": [
        Check("60% of PostgreSQL batch rows", to("push-1k", BATCHES, STORED), 0.6, stores=ONLY, **PERCENT)
    ],
    "durable stream push to 1,000 queues at once": [
        Check("40% of the single-queue figure", to_own("queues-1000", STORED, "push-100", STORED), 0.4, **PERCENT)
    ],
    "durable unary push, 256 in flight": [
        Check("60% of tonic's unary ceiling", to("unary", UNARY, STORED), 0.6, **PERCENT)
    ],
    "durable push, one in flight, median": [
        Check(
            "at most 1.4 × (a bare PostgreSQL commit + a bare unary call)", _of_bare_parts, 1.4, stores=ONLY, **AT_MOST
        )
    ],
    "delivery 1→1 while pushing": [
        Check("3 × Redis streams", to("deliver", REDIS, DELIVERED), 3),
        Check("60% of push alone", to_own("deliver", DELIVERED, "push-100", STORED), 0.6, **PERCENT),
    ],
    "delivery 1→10, total": [Check("ahead of core NATS", to("fan-out-10", CORE_NATS, DELIVERED), 1)],
    "delivery 1→100, total": [Check("ahead of core NATS", to("fan-out-100", CORE_NATS, DELIVERED), 1)],
    "end to end at 2,000 a second": [
        Check("median below every durable peer's: the best of them by it", below_peers("received_after_due_ms.p50"), 1),
        Check("99th percentile likewise", below_peers("received_after_due_ms.p99"), 1),
    ],
    "catch-up of a subscriber 1,000,000 messages behind": [
        Check("40% of reading the batch rows raw", to("catch-up", BATCHES, DELIVERED), 0.4, stores=ONLY, **PERCENT)
    ],
    "failover with 1,000,000 live messages, probe interval aside": [
        Check("at most 250 ms", _variant("failover", "100 bytes each", SERVED), 250, unit="ms", stores=ONLY, **AT_MOST),
        Check(
            "at most 250 ms with ten times the bytes",
            _variant("failover", "1,024 bytes each", SERVED),
            250,
            unit="ms",
            stores=ONLY,
            **AT_MOST,
        ),
        Check(
            f"independent of the bytes: the latter at most {SAME} × the former",
            _between_variants("failover", "1,024 bytes each", "100 bytes each", SERVED),
            SAME,
            stores=ONLY,
            **AT_MOST,
        ),
    ],
    "an idle broker": [
        Check(
            "at most 100 MB with 10,000 queues of one channel",
            _variant("idle", QUEUES, "broker.resident_mb"),
            100,
            unit="MB",
            **AT_MOST,
        ),
        Check(
            "at most 200 MB with 10,000 subscribers on 100 connections",
            _variant("idle", SUBSCRIBERS, "broker.resident_mb"),
            200,
            unit="MB",
            **AT_MOST,
        ),
        Check(
            "at most 1% of a core with those queues",
            _variant("idle", QUEUES, "broker.cores"),
            0.01,
            **AT_MOST,
            **PERCENT,
        ),
        Check(
            "at most 1% of a core with those subscribers",
            _variant("idle", SUBSCRIBERS, "broker.cores"),
            0.01,
            **AT_MOST,
            **PERCENT,
        ),
    ],
    "producer retry storm, every push sent three times": [
        Check(
            "stored once, at 40% of the clean rate",
            _between_variants("storm", "sent three times", "sent once", STORED),
            0.4,
            **PERCENT,
        )
    ],
}


def table(results):
    """A line for each check."""
    lines = [
        f"| figure | aim | {POSTGRES} | {SQLITE} |",
        "| --- | --- | --- | --- |",
    ]
    for name, checks in AIMS.items():
        for number, check in enumerate(checks):
            reached = " | ".join(check.reached(results, store) for store in BOTH)
            lines.append(f"| {name if number == 0 else ''} | {check.aim} | {reached} |")
    return lines
