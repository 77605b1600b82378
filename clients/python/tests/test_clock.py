"""The clock includes the machine's sleep."""

from __future__ import annotations

import time

import pytest

from rmom import _clock
from rmom._settings import Settings


def test_time_asleep_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.__dataclass_fields__["clock"].default is _clock.now
    if not hasattr(time, "CLOCK_BOOTTIME"):
        assert isinstance(_clock.now, _clock.SecondOpinion)
        return
    shown = {time.CLOCK_BOOTTIME: 4_200.0}
    monkeypatch.setattr(time, "clock_gettime", shown.__getitem__)
    assert _clock.now() == 4_200.0


def test_the_second_opinion_never_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {"monotonic": 100.0, "wall": 1_000_000.0}
    monkeypatch.setattr(time, "monotonic", lambda: shown["monotonic"])
    monkeypatch.setattr(time, "time", lambda: shown["wall"])
    clock = _clock.SecondOpinion()
    assert clock() == 100.0
    shown.update(monotonic=105.0, wall=1_000_005.0)
    assert clock() == 105.0
    # Asleep for an hour.
    shown.update(monotonic=106.0, wall=1_003_606.0)
    assert clock() == 3_706.0
    # The wall clock is set back.
    shown.update(monotonic=107.0, wall=5.0)
    assert clock() == 3_707.0
