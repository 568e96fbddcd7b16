"""The loop over the fake executor: what it accepts, what it promises, and that nothing is lost."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from octavo.config import EngineConfig
from octavo.engine.build import build_engine
from octavo.engine.core import Engine
from octavo.errors import ContextLengthError, EngineError, InvalidRequestError
from octavo.types import FinishReason, Plan, SamplingParams, Step, Submission, TokenEvent


@pytest.fixture(params=[1, 2, 3], ids=lambda steps: f"{steps}-in-flight")
def make_engine(request: pytest.FixtureRequest) -> Callable[..., Engine]:
    """Builds engines over the fake executor, with one step in flight as on a CPU, and with several as on a GPU."""

    def make(**settings: object) -> Engine:
        config = EngineConfig(executor="fake", **{"fake_steps_in_flight": request.param} | settings)  # type: ignore[arg-type]
        return build_engine(config, "fake", None, frozenset({1})).engine

    return make


MakeEngine = Callable[..., Engine]


def submission(request_id: str, prompt: list[int], **params: object) -> Submission:
    return Submission(
        request_id=request_id,
        prompt_token_ids=prompt,
        params=SamplingParams(**params),  # type: ignore[arg-type]
        arrival_s=0.0,
    )


def drain(engine: Engine) -> dict[str, list[TokenEvent]]:
    events: dict[str, list[TokenEvent]] = {}
    while engine.has_work:
        for event in engine.step().events:
            events.setdefault(event.request_id, []).append(event)
    return events


def tokens(events: list[TokenEvent]) -> list[int]:
    return [token for event in events for token in event.token_ids]


def test_the_same_request_gives_the_same_tokens_in_any_company(make_engine: MakeEngine) -> None:
    rng = random.Random(3)
    asked = submission("it", [rng.randrange(300) for _ in range(70)], max_tokens=40, ignore_eos=True, seed=5)
    alone = make_engine()
    alone.submit(asked)
    expected = tokens(drain(alone)["it"])
    assert len(expected) == 40
    crowded = make_engine(num_blocks=24, block_size=8, max_num_running=6, max_step_tokens=16, max_model_len=160)
    for i in range(20):
        crowded.submit(submission(f"r{i}", [rng.randrange(300) for _ in range(rng.randrange(1, 90))], max_tokens=30))
        if i == 10:
            crowded.submit(asked)
    assert tokens(drain(crowded)["it"]) == expected


def test_every_accepted_request_ends_exactly_once(make_engine: MakeEngine) -> None:
    rng = random.Random(11)
    engine = make_engine(num_blocks=20, block_size=4, max_num_running=5, max_step_tokens=9, max_model_len=70)
    ends: dict[str, FinishReason] = {}
    accepted: list[str] = []
    for i in range(120):
        name = f"r{i}"
        engine.submit(
            submission(name, [rng.randrange(400) for _ in range(rng.randrange(1, 40))], max_tokens=rng.randrange(1, 20))
        )
        accepted.append(name)
        if rng.random() < 0.3:
            engine.abort(rng.choice(accepted))
        for event in engine.step().events:
            assert event.request_id not in ends
            if event.finish_reason:
                ends[event.request_id] = event.finish_reason
    for name, events in drain(engine).items():
        assert [bool(event.finish_reason) for event in events] == [False] * (len(events) - 1) + [True]
        ends[name] = events[-1].finish_reason  # type: ignore[assignment]
    assert set(ends) == set(accepted)
    assert FinishReason.ABORT in ends.values()


def test_max_tokens_defaults_to_what_fits(make_engine: MakeEngine) -> None:
    engine = make_engine(num_blocks=4, block_size=8)
    engine.submit(submission("r", [3] * 10, ignore_eos=True))
    (*_, last) = drain(engine)["r"]
    assert last.finish_reason is FinishReason.LENGTH
    assert len([last]) == 1
    engine.submit(submission("s", [3] * 10, ignore_eos=True))
    assert len(tokens(drain(engine)["s"])) == 22


@pytest.mark.parametrize(
    ("prompt", "params", "error", "says"),
    [
        ([], {}, InvalidRequestError, "no tokens"),
        ([512], {}, InvalidRequestError, "512 is outside the vocabulary 0..511"),
        ([-1, 4], {}, InvalidRequestError, "-1 is outside"),
        ([5], {"logit_bias": {512: 1.0}}, InvalidRequestError, "logit_bias: token id 512"),
        ([5], {"logit_bias": {4: float("nan")}}, InvalidRequestError, r"logit_bias\[4\] = nan"),
        ([5], {"stop_token_ids": (9999,)}, InvalidRequestError, "stop_token_ids: token id 9999"),
        ([5], {"temperature": -0.1}, InvalidRequestError, "temperature = -0.1: expected 0 to 100"),
        ([5], {"temperature": float("nan")}, InvalidRequestError, "temperature = nan"),
        ([5], {"top_p": 0.0}, InvalidRequestError, "top_p = 0.0"),
        ([5], {"top_k": -2}, InvalidRequestError, "top_k = -2: expected -1 to inf"),
        ([5], {"min_p": 1.5}, InvalidRequestError, "min_p = 1.5"),
        ([5], {"repetition_penalty": 0.0}, InvalidRequestError, "repetition_penalty = 0.0"),
        ([5], {"max_tokens": 0}, InvalidRequestError, "max_tokens = 0: expected 1 to inf"),
        ([5], {"max_tokens": 3, "min_tokens": 4}, InvalidRequestError, "min_tokens = 4: expected 0 to 3"),
        ([5], {"logprobs": 10**9}, InvalidRequestError, "logprobs = 1000000000: expected 0 to 512"),
        ([1] * 8192, {}, ContextLengthError, "can never fit"),
        ([1] * 10, {"max_tokens": 8190}, ContextLengthError, "10 prompt tokens \\+ 8190 output tokens = 8200"),
    ],
)
def test_what_cannot_run_is_refused_at_once(
    make_engine: MakeEngine, prompt: list[int], params: dict[str, object], error: type[Exception], says: str
) -> None:
    engine = make_engine()
    with pytest.raises(error, match=says):
        engine.submit(submission("r", prompt, **params))
    assert not engine.has_work


def test_an_abort_is_reported_once_and_frees_the_blocks(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.submit(submission("r", [5] * 40, max_tokens=1000, ignore_eos=True))
    assert engine.step().stats.num_blocks_used == 3
    engine.abort("r")
    engine.abort("r")
    report = engine.step()
    assert [event.finish_reason for event in report.events] == [FinishReason.ABORT]
    assert report.stats.num_blocks_used == 0
    assert not engine.has_work


def test_a_seed_makes_the_text_and_no_seed_makes_it_differ(make_engine: MakeEngine) -> None:
    def text(request_id: str, engine_seed: int, **params: object) -> list[int]:
        engine = make_engine(seed=engine_seed)
        engine.submit(submission(request_id, [5, 6, 7], max_tokens=12, ignore_eos=True, **params))
        return tokens(drain(engine)[request_id])

    assert text("a", 0, seed=3) == text("b", 9, seed=3)
    assert text("a", 0) == text("a", 0)
    assert text("a", 0) != text("b", 0)
    assert text("a", 0) != text("a", 1)


class BrokenExecutor:
    max_in_flight = 1

    def launch(self, plan: Plan) -> Step:
        raise RuntimeError("the card fell off the bus")

    def close(self) -> None:
        pass


def test_an_engine_given_up_answers_everybody_once(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine._executor = BrokenExecutor()
    for name in "abc":
        engine.submit(submission(name, [4, 5], max_tokens=3))
    engine.abort("b")
    with pytest.raises(RuntimeError):
        engine.step()
    events = engine.fail_all("the engine failed; try again")
    assert sorted((e.request_id, str(e.finish_reason)) for e in events) == [
        ("a", "error"),
        ("b", "abort"),
        ("c", "error"),
    ]
    assert not engine.has_work


def test_a_scheduler_that_plans_nothing_is_a_bug_that_is_said(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.submit(submission("r", [4], max_tokens=3))
    engine._scheduler.plan = lambda now: Plan(step=1, requests=())  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="planned nothing"):
        engine.step()
