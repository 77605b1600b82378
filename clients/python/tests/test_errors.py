"""What an error says about a repetition."""

from __future__ import annotations

import rmom


def test_a_refusal_says_whether_to_repeat_it_and_whether_it_took_effect() -> None:
    def says(code: str) -> tuple[bool, bool]:
        error = rmom.Refused("b:1", code, "no")
        return error.retryable, error.outcome_unknown

    assert says("NOT_HOSTED") == says("UNSETTLED") == (True, False)
    assert says("OUTCOME_UNKNOWN") == says("DEADLINE_EXCEEDED") == (True, True)
    assert says("QUEUE_EXISTS") == says("SOMETHING_NEWER") == (False, False)
