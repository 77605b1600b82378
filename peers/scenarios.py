"""What is measured: of each scenario its figures, and the command of each system.

A scenario is known without anything being started, so that what was measured can be looked at again.
"""

import dataclasses
import pathlib

import systems

RELEASE = pathlib.Path(__file__).resolve().parents[1] / "target" / "release"
# Seconds that a system runs before it is measured.
WARM_UP = 1
# Many producers need time to connect, and their acknowledgements come in large portions, some in a second.
WARM_UP_OF_MANY, SECONDS_OF_MANY = 4, 6
# Messages in flight of each of them: a million in all.
IN_FLIGHT_OF_MANY = 1000
# What the Rust client has in flight, unless told otherwise.
CLIENTS_IN_FLIGHT = 16_384
# An idle system is measured for longer than others, to have something to see.
IDLE_SECONDS = 10

POSTGRES, SQLITE = "rmom on PostgreSQL", "rmom on SQLite"
REDIS, JETSTREAM, RABBIT = "Redis streams", "NATS JetStream", "RabbitMQ quorum queues"
BY_HAND, ORIGINAL, CORE_NATS = "PostgreSQL queue by hand", "the original's shape", "core NATS"
BATCHES = "limit: PostgreSQL batch rows"
COMMIT = "limit: a bare PostgreSQL commit"
UNARY = "limit: tonic, unary calls"
STREAM = "limit: tonic, a stream"
DELIVERY = "limit: tonic, framed before"
DISK = "limit: write and sync"
STORES_NOTHING = {CORE_NATS, UNARY, STREAM, DELIVERY}
DURABLE_PEERS = [REDIS, JETSTREAM, RABBIT]

STORED, DELIVERED, ACKNOWLEDGED = "stored_per_second", "delivered_per_second", "acknowledged_after_ms.p50"
SERVED = "from_assigned_to_next_delivery_ms.p50"


@dataclasses.dataclass
class Figure:
    """A number of a run: where it is, and what it is."""

    path: str
    title: str
    more_is_better: bool


@dataclasses.dataclass
class Scenario:
    """The first system is the one that the others are compared with."""

    title: str
    figures: list
    # For each system a function of a Bench that returns a Command.
    runs: dict
    # Seconds that a run takes beyond those that it measures: for the estimate.
    overhead: float = 1.5


@dataclasses.dataclass
class Command:
    """A run, and the servers that it loads beside those that it starts itself."""

    words: list
    servers: list = dataclasses.field(default_factory=list)
    # Seconds that it measures after its warm-up, in which what servers cost is counted; 0: over all of it.
    measures: float = 0


class Bench:
    """The servers, and how a system is run."""

    def __init__(self, folder, seconds):
        self.folder = folder
        self.seconds = seconds
        self.postgres = systems.Postgres(folder)
        self.redis = systems.Redis(folder)
        self.nats = systems.Nats(folder)
        self.rabbit = systems.Rabbit(folder)
        self.tonic = systems.Tonic(folder, RELEASE)
        self.original = systems.Original(folder, RELEASE, self.postgres)
        # In the order in which they start.
        self.servers = [self.postgres, self.redis, self.nats, self.rabbit, self.tonic, self.original]

    def times(self, seconds=None, warm_up=WARM_UP):
        return ["--duration", f"{int((seconds or self.seconds) * 1000)}ms", "--warm-up", f"{warm_up}s"]

    def rmom(self, store, *args):
        target = ["--embedded"] if store == SQLITE else ["--postgres", self.postgres.url]
        servers = [] if store == SQLITE else [self.postgres]
        return Command([RELEASE / "rmom", "bench", "--json", *args, *target], servers)

    def peer(self, system, at, *args, servers=()):
        words = [RELEASE / "rmom-peers", system, at, "--seconds", self.seconds, "--warm-up", WARM_UP, *args]
        return Command(words, list(servers), self.seconds)

    def on(self, server, system, *args, beside=()):
        return self.peer(system, f"127.0.0.1:{server.port}", *args, servers=[server, *beside])

    def sql(self, system, *args):
        return self.peer(system, self.postgres.url, *args, servers=[self.postgres])


def rmom(*args, stores=(POSTGRES, SQLITE), timed=True, seconds=None, warm_up=WARM_UP):
    """The same on each store."""

    def command(store):
        return lambda bench: bench.rmom(store, *args, *(bench.times(seconds, warm_up) if timed else []))

    return {store: command(store) for store in stores}


def variants(names):
    """Several runs of rmom on each store, told apart by names."""
    return {f"{store}, {name}": run for name, runs in names.items() for store, run in runs.items()}


def peers(*args, also=(), without=()):
    """Those that store durably, and `also` others, with the same arguments."""
    known = {
        REDIS: lambda bench: bench.on(bench.redis, "redis", *args),
        JETSTREAM: lambda bench: bench.on(bench.nats, "nats", *args),
        RABBIT: lambda bench: bench.on(bench.rabbit, "rabbit", *args),
        CORE_NATS: lambda bench: bench.on(bench.nats, "nats-core", *args),
        DELIVERY: lambda bench: bench.on(bench.tonic, "tonic-deliver", *(arg for arg in args if arg != "--deliver")),
    }
    return {name: known[name] for name in [*DURABLE_PEERS, *also] if name not in without}


def by_hand(*args):
    """A row per message; more connections than this are slower."""
    return {BY_HAND: lambda bench: bench.sql("postgres-queue", *args)}


def _original(*args):
    return {ORIGINAL: lambda bench: bench.on(bench.original, "tonic-unary", *args, beside=[bench.postgres])}


def _limit(name, run):
    return {name: run}


def _pushes(size, more):
    sizes = ["--size", size]
    return Scenario(
        f"Durable push, one producer, {size} bytes",
        [Figure(STORED, "stored a second", True)],
        {
            **rmom("push", *sizes),
            **peers(*sizes),
            **more(sizes),
            **by_hand("--in-flight", 20, *sizes),
            **_limit(BATCHES, lambda bench: bench.sql("postgres-batches", *sizes)),
        },
    )


def _fan_out(subscribers, without=()):
    several = ["--subscribers", subscribers]
    return Scenario(
        f"Delivered to {subscribers} subscribers in total while pushing, 100 bytes",
        [Figure(DELIVERED, "delivered a second", True)],
        {
            **rmom("subscribe", *several),
            **peers("--deliver", *several, also=[CORE_NATS, DELIVERY], without=without),
        },
    )


def _backlog(size):
    return rmom("failover", "--backlog", 1_000_000, "--size", size, "--rounds", 3, stores=[POSTGRES], timed=False)


def _idle(*args):
    return rmom("idle", *args, seconds=IDLE_SECONDS)


SCENARIOS = {
    "push-100": _pushes(
        100,
        lambda sizes: {
            **_original("--in-flight", 256, *sizes),
            **_limit(
                STREAM, lambda bench: bench.on(bench.tonic, "tonic-stream", "--in-flight", CLIENTS_IN_FLIGHT, *sizes)
            ),
        },
    ),
    "push-1k": _pushes(1024, lambda _: {}),
    "queues-1000": Scenario(
        "Durable push to 1,000 queues at once, one producer each, 100 bytes",
        [Figure(STORED, "stored a second", True)],
        rmom(
            "push", "--queues", 1000, "--in-flight", IN_FLIGHT_OF_MANY, seconds=SECONDS_OF_MANY, warm_up=WARM_UP_OF_MANY
        ),
        overhead=20,
    ),
    "unary": Scenario(
        "Durable push by unary calls, 256 in flight, 100 bytes",
        [Figure(STORED, "stored a second", True)],
        {
            **rmom("push", "--mode", "unary", "--in-flight", 256),
            **_original("--in-flight", 256),
            **_limit(UNARY, lambda bench: bench.on(bench.tonic, "tonic-unary", "--in-flight", 256)),
        },
    ),
    "one": Scenario(
        "Durable push, one in flight, 100 bytes",
        [Figure(ACKNOWLEDGED, "median, ms", False)],
        {
            **rmom("push", "--in-flight", 1),
            **peers("--in-flight", 1),
            **_original("--in-flight", 1),
            **by_hand("--in-flight", 1),
            **_limit(COMMIT, lambda bench: bench.sql("postgres-batches", "--in-flight", 1)),
            **_limit(UNARY, lambda bench: bench.on(bench.tonic, "tonic-unary", "--in-flight", 1)),
            **_limit(DISK, lambda bench: bench.peer("disk", bench.folder, "--in-flight", 1)),
        },
    ),
    "deliver": Scenario(
        "Delivered to one subscriber while pushing, 100 bytes",
        [Figure(DELIVERED, "delivered a second", True)],
        {
            **rmom("subscribe"),
            **peers("--deliver", also=[CORE_NATS]),
            **by_hand("--in-flight", 20, "--deliver"),
        },
    ),
    "fan-out-10": _fan_out(10),
    "fan-out-100": _fan_out(100, without=[RABBIT]),
    "latency": Scenario(
        "End to end at 2,000 a second, 100 bytes",
        [
            Figure("received_after_due_ms.p50", "median, ms", False),
            Figure("received_after_due_ms.p99", "99th percentile, ms", False),
        ],
        {**rmom("latency", "--rate", 2000), **peers("--rate", 2000, "--deliver")},
    ),
    "catch-up": Scenario(
        "A subscriber that is 1,000,000 messages behind, 100 bytes",
        [Figure(DELIVERED, "delivered a second", True)],
        {
            **rmom("subscribe", "--backlog", 1_000_000, timed=False),
            **_limit(BATCHES, lambda bench: bench.sql("postgres-batches", "--read", 1_000_000)),
        },
        overhead=5,
    ),
    "failover": Scenario(
        "The broker of a queue of 1,000,000 messages is killed",
        [
            Figure(SERVED, "from when the queue is assigned to another broker to the next delivery, median, ms", False),
            Figure("from_fault_to_next_delivery_ms.p50", "from kill -9 to the next delivery, median, ms", False),
        ],
        variants({"100 bytes each": _backlog(100), "1,024 bytes each": _backlog(1024)}),
        overhead=25,
    ),
    "idle": Scenario(
        "Nothing happens",
        [
            Figure("broker.resident_mb", "memory of the broker, MB", False),
            Figure("broker.cores", "cores that it keeps busy", False),
        ],
        variants(
            {
                "10,000 queues of one channel": _idle("--queues", 10_000),
                "10,000 subscribers": _idle("--queues", 100, "--subscribers", 10_000, "--connections", 100),
            }
        ),
        overhead=30,
    ),
    "storm": Scenario(
        "A retry storm: every push sent three times, stored once, 100 bytes",
        [Figure(STORED, "stored a second", True)],
        variants(
            {f"sent {word}": rmom("push", "--resend", times) for word, times in [("once", 1), ("three times", 3)]}
        ),
    ),
}
