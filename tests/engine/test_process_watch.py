"""Watchdog of the engine process: detection of a hung engine, limit on restarts."""

from __future__ import annotations

import pytest

from octavo.engine.watchdog import MAX_BACKOFF_S, ProgressWatch, RestartBudget


def ticking(watch: ProgressWatch, start: float, seconds: float, num_pending: int) -> float:
    now = start
    while now < start + seconds:
        watch.tick(now, num_pending)
        now += watch.interval_s
    return now


def test_silence_with_pending_work_is_a_hang():
    watch = ProgressWatch(10.0)
    now = ticking(watch, 100.0, 9.5, num_pending=1)
    assert watch.hung is None
    ticking(watch, now, 2.0, num_pending=1)
    assert watch.hung is not None
    assert "finished no step for" in watch.hung


def test_an_idle_engine_never_hangs_and_idle_time_does_not_count():
    watch = ProgressWatch(10.0)
    now = ticking(watch, 0.0, 1000.0, num_pending=0)
    watch.progressed()  # work begins
    now = ticking(watch, now, 9.0, num_pending=1)
    assert watch.hung is None
    ticking(watch, now, 2.0, num_pending=1)
    assert watch.hung is not None


def test_every_step_starts_the_wait_anew():
    watch = ProgressWatch(10.0)
    now = 0.0
    for _ in range(20):
        now = ticking(watch, now, 8.0, num_pending=3)
        assert watch.hung is None
        watch.progressed()


def test_the_engine_is_not_blamed_while_the_server_stood_still():
    watch = ProgressWatch(10.0)
    now = ticking(watch, 0.0, 5.0, num_pending=1)
    now += 3600.0  # blocked loop, SIGSTOP, sleeping laptop
    watch.tick(now, 1)
    assert watch.hung is None
    ticking(watch, now, 6.0, num_pending=1)
    assert watch.hung is not None  # but it is when the silence goes on


@pytest.mark.parametrize("hang_timeout_s", [0.2, 1.0, 60.0])
def test_ticks_are_frequent_enough_for_the_timeout(hang_timeout_s):
    watch = ProgressWatch(hang_timeout_s)
    assert watch.interval_s <= hang_timeout_s / 10
    assert watch.interval_s <= 1.0


def test_restarts_are_counted_within_the_window():
    budget = RestartBudget(max_restarts=2, window_s=60.0)
    assert [budget.died(now) for now in (0.0, 10.0, 70.0, 75.0, 80.0)] == [True, True, True, True, False]
    assert budget.num_recent == 3


def test_no_restart_allowed():
    assert RestartBudget(max_restarts=0, window_s=60.0).died(5.0) is False


def test_backoff_doubles_up_to_its_cap_and_forgets():
    budget = RestartBudget(max_restarts=100, window_s=60.0)
    waits = []
    for second in range(12):
        budget.died(float(second))
        waits.append(budget.backoff_s)
    assert waits[:3] == [0.1, 0.2, 0.4]
    assert waits[-1] == MAX_BACKOFF_S
    budget.died(1000.0)
    assert budget.backoff_s == 0.1
