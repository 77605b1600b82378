"""What an error says about a repetition."""

from __future__ import annotations

import copy
import pickle

import grpc

import rmom


def test_a_refusal_says_whether_to_repeat_it_and_whether_it_took_effect() -> None:
    def says(code: str) -> tuple[bool, bool]:
        error = rmom.Refused("b:1", code, "no")
        return error.retryable, error.outcome_unknown

    assert says("NOT_HOSTED") == says("UNSETTLED") == (True, False)
    assert says("OUTCOME_UNKNOWN") == says("DEADLINE_EXCEEDED") == (True, True)
    assert says("QUEUE_EXISTS") == says("SOMETHING_NEWER") == (False, False)


def test_errors_can_be_copied_and_pickled() -> None:
    last = rmom.CallFailed("b:1", grpc.StatusCode.UNAVAILABLE, "gone")
    for error in (
        rmom.Refused("b:1", "NOT_HOSTED", "no", {"host": "b2"}),
        rmom.InvalidName("topic", "is long"),
        rmom.NotDelivered(rmom.DeliveryTimeout(1.0, last), outcome_unknown=True),
        rmom.DeadlineExceeded("a call", 1.0, sent=True),
    ):
        for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 (it is our own)
            assert (type(again), str(again), again.code, again.hint) == (
                type(error),
                str(error),
                error.code,
                error.hint,
            )
            assert (again.retryable, again.outcome_unknown) == (error.retryable, error.outcome_unknown)
