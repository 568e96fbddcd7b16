"""The two forecasts against what they are to forecast."""

from __future__ import annotations

import math
import random

import pytest

from octavo.scheduler.lengths import NoForecast, Oracle, RecentQuantile
from octavo.scheduler.step_time import StepLoad, StepTimeForecast
from octavo.types import Request, ServiceClass
from support.scheduling import make_request

TRUE = (0.004, 3e-5, 2e-5, 4e-8, 1e-9)


def load(rng: random.Random) -> StepLoad:
    rows, tokens = rng.randrange(200), rng.choice((0, rng.randrange(2000)))
    return StepLoad(tokens, rows, rows * rng.randrange(3000), tokens * rng.uniform(0.5, 8) * max(tokens, 1))


def seconds(load: StepLoad) -> float:
    return sum(c * v for c, v in zip(TRUE, (1.0, *load), strict=True))


def fitted(seed: int, noise: float = 0.0, wild: float = 0.0) -> StepTimeForecast:
    rng, forecast = random.Random(seed), StepTimeForecast()
    for _ in range(2000):
        one = load(rng)
        if one.prefill_tokens or one.decode_rows:
            factor = 100.0 if rng.random() < wild else rng.lognormvariate(0.0, noise)
            forecast.observe(one, seconds(one) * factor)
    return forecast


@pytest.mark.parametrize("seed", range(5))
def test_it_finds_a_linear_machine_and_its_room_inverts_it(seed: int) -> None:
    forecast, rng = fitted(seed), random.Random(seed)
    for _ in range(50):
        one = load(rng)
        assert forecast.seconds(one) == pytest.approx(seconds(one), rel=0.01)
        base, start = one._replace(prefill_tokens=0, attended_pairs=0.0), rng.randrange(5000)
        allowed = forecast.seconds(base) + rng.uniform(0.001, 0.2)
        room = forecast.prefill_room(allowed, base, start)
        pairs = room * (start + room / 2)
        assert forecast.seconds(base._replace(prefill_tokens=room, attended_pairs=pairs)) <= allowed * (1 + 1e-9)
        room += 2
        pairs = room * (start + room / 2)
        assert forecast.seconds(base._replace(prefill_tokens=room, attended_pairs=pairs)) > allowed


def test_noise_and_outliers_move_it_little() -> None:
    forecast, rng = fitted(7, noise=0.05, wild=0.01), random.Random(1)
    errors = [abs(forecast.seconds(one) / seconds(one) - 1) for one in (load(rng) for _ in range(300)) if any(one)]
    assert sum(errors) / len(errors) < 0.05
    assert forecast.error < 0.15


def test_the_first_steps_of_an_engine_do_not_count() -> None:
    forecast, rng = StepTimeForecast(), random.Random(3)
    for i in range(60):
        one = StepLoad(rng.randrange(1, 500), rng.randrange(50))
        forecast.observe(one, seconds(one) + (5.0 if i < 2 else 0.0))
    assert forecast.seconds(StepLoad(100, 5)) == pytest.approx(seconds(StepLoad(100, 5)), rel=0.02)


def test_the_first_prefill_after_many_decodes_is_learned_at_once() -> None:
    forecast = StepTimeForecast()
    for i in range(500):
        one = StepLoad(0, 8, 800 + 8 * i)
        forecast.observe(one, seconds(one) * (1.01 if i % 2 else 0.99))
    for _ in range(2):
        one = StepLoad(4000, 8, 5000, 8e6)
        forecast.observe(one, seconds(one))
    assert forecast.seconds(one) == pytest.approx(seconds(one), rel=0.1)


def test_hours_of_the_same_decodes_do_not_break_it() -> None:
    """Found by a replay: 25,000 steps alike, and rounding had made a variance negative; the engine died of its square root."""
    learned, rng = StepTimeForecast(), random.Random(1)
    for i in range(30_000):
        one = load(rng) if rng.random() < 0.003 else StepLoad(0, 1 + rng.randint(0, 2), 20_000 + i % 400)
        learned.observe(one, seconds(one))
    rows = learned._covariance
    assert all(rows[i][j] == rows[j][i] for i in range(5) for j in range(i)), "mirrored places drift apart"
    assert all(rows[i][i] > 0 for i in range(5))
    decode = StepLoad(0, 2, 20_200)
    assert learned.seconds(decode) == pytest.approx(seconds(decode), rel=0.05)


def test_nothing_impossible_is_learned() -> None:
    forecast = StepTimeForecast()
    for bad in (math.nan, math.inf, -1.0, 0.0):
        forecast.observe(StepLoad(10, 1), bad)
    forecast.observe(StepLoad(), 1.0)
    assert not forecast.ready
    assert forecast.num_observed == 0
    for tokens in range(1, 50):
        forecast.observe(StepLoad(tokens), 1.0 / tokens)  # more work, less time: no machine is like that
    assert min(forecast.coefficients) >= 0.0
    assert forecast.prefill_room(0.0, StepLoad(0, 5)) == 0


def request(tenant: str, name: str = "c", num_output: int = 0, max_tokens: int = 1000) -> Request:
    one = make_request("r", [1], max_tokens, tenant=tenant, service_class=ServiceClass(name=name))
    one.token_ids += [1] * num_output
    return one


def test_a_quantile_of_the_tenants_own_recent_answers() -> None:
    lengths = RecentQuantile(quantile=0.5, unknown=77)
    assert lengths.predict(request("a")) == 77
    for i in range(200):
        lengths.observe(request("a", num_output=10 + i % 3))
        lengths.observe(request("b", num_output=500))
    assert lengths.predict(request("a")) == 11
    assert lengths.predict(request("b")) == 500
    assert 11 <= lengths.predict(request("new")) <= 500
    assert lengths.predict(request("a", num_output=40)) == 41, "never below what is there already"
    assert lengths.predict(request("b", max_tokens=100)) == 100


def test_oracle_and_none() -> None:
    assert Oracle({"r": 5}).predict(request("a")) == 5
    assert NoForecast().predict(request("a", max_tokens=9)) == 9
