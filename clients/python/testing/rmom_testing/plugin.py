"""Fixtures: one cluster of each kind for all tests. Brokers that a test kills are started again before the next
test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Callable

import pytest

from .clusters import Cluster, DevCluster, ProcessCluster
from .postgres import Postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server."""
    server = Postgres()
    yield server
    server.close()


@pytest.fixture(scope="session")
def dev_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    """`rmom dev`."""
    cluster = DevCluster(tmp_path_factory.mktemp("dev"))
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def process_cluster(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[ProcessCluster]:
    """Separate processes with PostgreSQL."""
    cluster = ProcessCluster(tmp_path_factory.mktemp("cluster"), postgres.create_database())
    yield cluster
    cluster.close()


@pytest.fixture
def dev(dev_cluster: DevCluster) -> DevCluster:
    """`rmom dev` with all its brokers."""
    dev_cluster.restart_all()
    return dev_cluster


@pytest.fixture
def processes(process_cluster: ProcessCluster) -> ProcessCluster:
    """Separate processes, all of them."""
    process_cluster.restart_all()
    return process_cluster


@pytest.fixture(params=["dev", "processes"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """A cluster of either kind: the test runs on both."""
    found: Cluster = request.getfixturevalue(request.param)
    return found


_numbers = itertools.count(1)


@pytest.fixture
def fresh(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Names that no other test has used, in mixed case, as labels may be."""
    return lambda what: f"{what}-{request.node.originalname}-{next(_numbers)}"
