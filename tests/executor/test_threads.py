"""The thread setting reaches the engine, and a user's own setting wins."""

from __future__ import annotations

import pytest

from octavo.executor.threads import SPIN_COUNT, calm_threads


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"GOMP_SPINCOUNT": SPIN_COUNT}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_the_users_setting_wins(before: dict[str, str], after: dict[str, str]) -> None:
    calm_threads(before)
    assert before == after
