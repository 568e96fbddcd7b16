"""Admission control: requests refused with a reason, and requests admitted at a lower class."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from octavo.config import EngineConfig, ServerConfig
from octavo.engine.build import build_engine
from octavo.engine.local_client import LocalEngineClient
from octavo.errors import ConfigError, SloUnattainableError, TooManyRequestsError
from octavo.kvcache.cache import KVCache
from octavo.scheduler.admission import Admission, TenantLimits
from octavo.scheduler.forecast import Forecast
from octavo.scheduler.policies import make_policy
from octavo.scheduler.scheduler import Scheduler
from octavo.scheduler.step_time import StepLoad
from octavo.server.app import create_app
from octavo.text.tokenizer import FakeTokenizer
from octavo.types import Request, ServiceClass
from support.scheduling import make_request, run_step

STRICT = ServiceClass(name="strict", ttft_s=0.5, tpot_s=0.05, max_wait_s=10.0, when_full="refuse")
SOFT = ServiceClass(name="soft", ttft_s=0.5, when_full="degrade")
SLOWER = ServiceClass(name="slower", ttft_s=3.0, when_full="degrade")
CLASSES = (STRICT, SOFT, SLOWER)


def make(limits: TenantLimits | None = None) -> Scheduler:
    forecast = Forecast(classes=CLASSES)
    for i in range(64):
        tokens, rows = (i * 37) % 900, i % 7
        forecast.step_time.observe(StepLoad(tokens, rows, 100 * rows), 0.005 + 1e-4 * (tokens + rows))
    admission = Admission(forecast, limits or TenantLimits(), CLASSES, kv_tokens=4096 * 16)
    return Scheduler(
        make_policy("slo", forecast), KVCache(4096, 16), max_num_running=8, max_step_tokens=1000, admission=admission
    )


def ask(name: str, num_tokens: int = 100, **fields: object) -> Request:
    return make_request(name, [1] * num_tokens, **fields)  # type: ignore[arg-type]


def test_a_promise_that_cannot_be_kept_is_refused_with_the_time_to_come_back() -> None:
    scheduler = make()
    for i in range(4):  # 0.1 s of prefill each
        scheduler.add(ask(f"r{i}", 1000, service_class=STRICT), 0.0)
    with pytest.raises(
        SloUnattainableError, match=r"the first token is due within 0\.5 s, but it would come 0"
    ) as refused:
        scheduler.add(ask("late", 1000, service_class=STRICT), 0.0)
    assert (refused.value.status, refused.value.retry_after_s) == (429, 1.0)
    scheduler.add(ask("unpromised", 1000), 0.0)
    assert scheduler.num_waiting == 5
    scheduler.check()


def test_a_class_may_degrade_instead() -> None:
    scheduler = make()
    for i in range(5):
        scheduler.add(ask(f"r{i}", 1000, service_class=SOFT), 0.0)
    classes = [scheduler._requests[f"r{i}"].service_class.name for i in range(5)]
    assert classes == ["soft"] * 4 + ["slower"]
    for i in range(60):
        scheduler.add(ask(f"s{i}", 1000, service_class=SLOWER), 0.0)
    last = scheduler._requests["s59"].service_class
    assert (last.name, last.ttft_s) == ("slower", None), "behind the last class there is no promise"


def test_requests_and_tokens_a_second_of_one_tenant() -> None:
    scheduler = make(TenantLimits(requests_per_s=2.0))
    for i in range(20):  # the burst
        scheduler.add(ask(f"r{i}", tenant="a"), 0.0)
    with pytest.raises(TooManyRequestsError, match="2 requests a second; try again in 1 s"):
        scheduler.add(ask("more", tenant="a"), 0.0)
    scheduler.add(ask("other", tenant="b"), 0.0)
    scheduler.add(ask("later", tenant="a"), 0.6)
    scheduler = make(TenantLimits(tokens_per_s=100.0))
    scheduler.add(ask("big", 5000, tenant="a"), 0.0)
    with pytest.raises(TooManyRequestsError, match="100 tokens a second; try again in 42 s"):
        scheduler.add(ask("next", 100, max_tokens=50, tenant="a"), 0.0)


def test_a_refused_request_costs_its_tenant_nothing() -> None:
    scheduler = make(TenantLimits(requests_per_s=1.0, tokens_per_s=10.0))
    scheduler.add(ask("first", 90, max_tokens=10), 0.0)
    for i in range(50):
        with pytest.raises(TooManyRequestsError):
            scheduler.add(ask(f"r{i}", 90, max_tokens=10), 0.0)
    scheduler.add(ask("second", 90, max_tokens=10), 10.0)


def test_how_many_and_how_much_of_the_cache_one_tenant_may_hold() -> None:
    scheduler = make(TenantLimits(max_requests=2))
    for name in "ab":
        scheduler.add(ask(name, tenant="t", max_tokens=1), 0.0)
    with pytest.raises(TooManyRequestsError, match="2 requests inside, at most 2"):
        scheduler.add(ask("c", tenant="t"), 0.0)
    run_step(scheduler)
    scheduler.add(ask("c", tenant="t"), 0.0)
    scheduler = make(TenantLimits(kv_share=0.1))
    scheduler.add(ask("huge", 60_000, tenant="t"), 0.0)  # alone it may: it would wait for ever otherwise
    with pytest.raises(TooManyRequestsError, match=r"tokens of the KV cache, at most 6554 \(0.1 of it\)"):
        scheduler.add(ask("small", 100, tenant="t"), 0.0)
    scheduler.add(ask("small", 100, tenant="u"), 0.0)


def config(**fields: object) -> EngineConfig:
    return EngineConfig(executor="fake", num_blocks=64, max_model_len=512, **fields)  # type: ignore[arg-type]


def test_over_http_with_classes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "classes.toml"
    path.write_text('[[class]]\nname = "gold"\nttft = "5s"\nmax_wait = "9s"\n')
    engine = build_engine(
        config(policy="slo", classes=str(path), tenant_requests_per_s=0.3), "fake", None, frozenset()
    ).engine

    async def talk() -> list[httpx.Response]:
        client = LocalEngineClient(engine)
        app = create_app(client, FakeTokenizer(), ServerConfig(), "fake")
        transport = httpx.ASGITransport(app=app)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://t") as http:
                bodies = [{"prompt": "x", "max_tokens": 2, "priority": 1} | {"service_class": one} for one in names]
                return [await http.post("/v1/completions", json=body) for body in bodies]
        finally:
            await client.close()

    names = ["gold", "silver", "gold", "gold", "gold"]
    good, unknown, *rest = asyncio.run(talk())
    assert good.status_code == 200, good.text
    assert unknown.status_code == 400
    assert "unknown service_class 'silver'; known: gold" in unknown.json()["error"]["message"]
    assert rest[-1].status_code == 429, "three a burst of ten seconds"
    assert int(rest[-1].headers["retry-after"]) >= 1
    assert rest[-1].json()["error"]["code"] == "rate_limit_exceeded"


def test_a_missing_class_file_is_one_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"classes /nowhere\.toml: No such file"):
        build_engine(config(classes="/nowhere.toml"), "fake", None, frozenset())
