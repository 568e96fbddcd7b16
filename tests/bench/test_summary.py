"""A summary of records that were made by hand, so that every metric in it can be said beforehand."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest

from octavo.bench.slo_attainment import meets
from octavo.bench.summary import FEWEST_EFFECTIVE, FORMULAS, count, summarise
from octavo.bench.types import Interval, Outcome, RequestRecord, Slo, Summary

NOTHING = Interval(None, None, None)


def record(
    index: int, due: float = 0.0, ttft: float = 0.1, gap: float = 0.02, tokens: int = 11, **more: object
) -> RequestRecord:
    """Answered, one token per chunk; 10 ms late in the client; e2e = ttft + 10 gaps."""
    first = due + ttft
    chunks = [first + gap * step for step in range(tokens)]
    fields: dict[str, object] = {
        "index": index,
        "intended_s": due,
        "sent_s": due + 0.01,
        "first_token_s": first,
        "end_s": chunks[-1],
        "chunk_s": chunks,
        "chunk_tokens": [1] * tokens,
        "output_tokens": tokens,
        "prompt_tokens": 30,
    }
    return RequestRecord(**(fields | more))  # type: ignore[arg-type]


def failed(index: int, due: float = 0.0, outcome: Outcome = Outcome.FAILED, **more: object) -> RequestRecord:
    return RequestRecord(index=index, intended_s=due, sent_s=due, outcome=outcome, error="x", **more)  # type: ignore[arg-type]


def steady_records(num: int = 400, rate: float = 10.0, seed: int = 0) -> list[RequestRecord]:
    rng = np.random.default_rng(seed)
    return [record(i, i / rate, float(rng.lognormal(-2, 0.3)), float(rng.lognormal(-4, 0.1))) for i in range(num)]


def summary_of(records: list[RequestRecord], slo: Slo | None = None) -> Summary:
    return summarise(records, slo or Slo(), seed=1)


def test_every_metric_of_a_regular_run() -> None:
    found = summary_of([record(i, i * 0.5) for i in range(100)], Slo(ttft_s=0.2))
    assert found.ttft_s.mean.value == pytest.approx(0.1)
    assert found.ttft_s.p99.value == pytest.approx(0.1)
    assert found.uncorrected_ttft_s.p50.value == pytest.approx(0.09), "measured from the actual send, 10 ms later"
    assert found.tpot_s.p50.value == pytest.approx(0.02)
    assert found.e2e_s.p90.value == pytest.approx(0.3)
    assert found.uncorrected_e2e_s.mean.value == pytest.approx(0.29)
    assert found.inter_chunk_s.p50.value == pytest.approx(0.02)
    assert found.tokens_per_chunk == 1.0
    assert found.request_rate_rps.value == pytest.approx(2.0)
    assert found.goodput_rps.value == pytest.approx(2.0)
    assert found.output_tokens_per_s.value == pytest.approx(22.0, rel=0.01)
    assert found.total_tokens_per_s.value == pytest.approx(82.0, rel=0.01)
    assert found.warm_up_s == 0.0 and found.jain_fairness is None and found.groups == {}
    assert found.stationary is True


def test_nothing_at_all() -> None:
    found = summary_of([])
    assert found.ttft_s.mean == found.inter_chunk_s.p99 == found.goodput_rps == NOTHING
    assert found.tokens_per_chunk is None and found.stationary is None and found.slope_p_value is None


def test_one_request_has_metrics_and_no_intervals() -> None:
    found = summary_of([record(0, 5.0)])
    assert found.ttft_s.p99.value == pytest.approx(0.1) and found.ttft_s.p99.low is None
    assert found.request_rate_rps.value == pytest.approx(1 / 0.3), "one response in the 0.3 s that it took"
    assert found.output_tokens_per_s.value == pytest.approx(11 / 0.3)


def test_two_requests() -> None:
    found = summary_of([record(0, 0.0, 0.1), record(1, 1.0, 0.3)])
    assert found.ttft_s.mean.value == pytest.approx(0.2)
    assert found.ttft_s.mean.low is not None and 0.0 <= found.ttft_s.mean.low <= 0.2
    assert found.stationary is None


def test_all_failed() -> None:
    kinds = [Outcome.FAILED, Outcome.TIMED_OUT]
    records = [failed(i, i * 0.1, kinds[i % 2], tenant="ab"[i % 2]) for i in range(10)]
    found = summary_of(records)
    assert found.ttft_s.p50 == found.e2e_s.mean == NOTHING
    assert found.goodput_rps == Interval(0.0, 0.0, 0.0) == found.output_tokens_per_s
    assert found.jain_fairness is None and found.groups["tenant:a"]["slo_met_share"] == 0.0
    assert msgspec.to_builtins(count(records)) == {"ok": 0, "failed": 5, "timed_out": 5, "warm_up": 0}


def test_identical_values_have_no_width() -> None:
    whole_seconds = [record(i, float(i), ttft=0.5, gap=0.25, tokens=3) for i in range(64)]
    found = summary_of(whole_seconds).ttft_s
    assert found.p50 == found.p99 == found.mean == Interval(0.5, 0.5, 0.5)


def test_failed_requests_are_counted_and_never_averaged() -> None:
    good = steady_records()
    bad = [failed(1000 + i, i * 2.0) for i in range(20)] + [failed(2000, 3.0, Outcome.CANCELLED, tenant="ghost")]
    alone, mixed = summary_of(good), summary_of(good + bad)
    assert mixed.ttft_s == alone.ttft_s and mixed.e2e_s == alone.e2e_s
    assert mixed.output_tokens_per_s == alone.output_tokens_per_s
    assert "tenant:ghost" not in mixed.groups
    counts = count(good + bad, 1.0)
    assert (counts.ok, counts.failed, counts.timed_out, counts.warm_up) == (400, 20, 0, 10)


def test_the_order_of_the_records_does_not_matter() -> None:
    records = steady_records()
    mixed = list(records)
    random.Random(3).shuffle(mixed)
    assert summary_of(mixed, Slo(ttft_s=0.15)) == summary_of(records, Slo(ttft_s=0.15))


def test_warm_up_is_cut_from_latencies_and_rates() -> None:
    records = steady_records()
    slow = [record(i, i / 10.0, 2.0 + 0.01 * (i % 7)) for i in range(40)]
    found = summary_of(slow + records[40:])
    assert 3.0 <= found.warm_up_s <= 6.0
    assert found.ttft_s.p99.value < 1.0  # type: ignore[operator]
    assert found.request_rate_rps.value == pytest.approx(10.0, rel=0.1)


def test_goodput_takes_a_requests_own_slo_before_the_runs() -> None:
    strict = {"service_class": "strict", "slo": Slo(ttft_s=0.05)}
    records = [record(i, i * 0.1, **(strict if i % 4 == 0 else {"service_class": "loose"})) for i in range(100)]
    found = summary_of(records, Slo(ttft_s=0.2))
    assert found.goodput_rps.value == pytest.approx(7.5, rel=0.05)
    assert found.groups["class:strict"]["slo_met_share"] == 0.0
    assert found.groups["class:loose"]["slo_met_share"] == 1.0
    assert found.groups["class:loose"]["requests"]["ok"] == 75
    assert found.groups["class:loose"]["ttft_s"]["p50"]["value"] == pytest.approx(0.1)


def test_an_slo_is_checked_as_a_statement_on_the_server() -> None:
    found = summary_of([record(i, i * 0.1) for i in range(400)], Slo(ttft_s=0.2))
    (ttft,) = found.slo_checks
    assert (ttft.what, ttft.limit_s, ttft.num_requests, ttft.num_over, ttft.attained) == ("ttft_s", 0.2, 400, 0, True)
    assert ttft.share_low == pytest.approx(0.05 ** (1 / 400)) and ttft.effective_requests == 400
    short = summary_of([record(i, i * 0.1) for i in range(200)], Slo(ttft_s=0.2)).slo_checks[0]
    assert not short.attained and short.num_needed == 299
    violated = summary_of([record(i, i * 0.1, ttft=0.3 if i % 20 == 0 else 0.1) for i in range(400)], Slo(ttft_s=0.2))
    assert (
        not violated.slo_checks[0].attained
        and violated.slo_checks[0].num_needed == 0
        and violated.slo_checks[0].num_over == 20
    )
    assert summary_of(steady_records()).slo_checks == [], "no SLO"


def test_failed_requests_violate_every_slo_and_own_slos_count_under_all() -> None:
    records = [record(i, i * 0.1, slo=Slo(e2e_s=0.1) if i % 2 else None) for i in range(100)]
    found = {one.what: one for one in summary_of([*records, failed(100, 10.0)], Slo(ttft_s=0.2, tpot_s=0.5)).slo_checks}
    assert [(one.num_requests, one.num_over) for one in found.values()] == [(51, 1), (51, 1), (101, 51)]
    assert list(found) == ["ttft_s", "tpot_s", "all"] and found["all"].limit_s is None
    (own,) = summary_of(records).slo_checks
    assert own.what == "all" and own.num_over == 50


def test_the_effective_number_of_requests() -> None:
    records = steady_records()
    found = summary_of(records).ttft_s
    assert found.num == 400 and 300 < found.effective_mean <= 400 and 200 < found.effective_p99 <= 400  # type: ignore[operator]
    assert summary_of(records).warnings == []
    slow = [record(i, i / 10, 1 + np.sin(i / 60)) for i in range(400)]
    assert summary_of(slow).ttft_s.effective_mean < FEWEST_EFFECTIVE  # type: ignore[operator]
    assert "worth" in summary_of(slow).warnings[0] and "times as long" in summary_of(slow).warnings[0]
    nothing = summary_of([]).ttft_s
    assert (nothing.num, nothing.effective_mean, nothing.effective_p99) == (0, None, None)


def test_without_slo_goodput_is_what_was_answered() -> None:
    records = steady_records()
    found = summary_of([*records[:-50], *(failed(i, i / 10.0) for i in range(350, 400))])
    assert found.goodput_rps == found.request_rate_rps
    assert found.goodput_rps.value == pytest.approx(350 / 39.9, rel=0.02)


@pytest.mark.parametrize(
    ("slo", "attained"),
    [
        (Slo(), True),
        (Slo(ttft_s=0.1001, tpot_s=0.0201, e2e_s=0.3001), True),
        (Slo(ttft_s=0.0999), False),
        (Slo(tpot_s=0.0199), False),
        (Slo(e2e_s=0.2999), False),
    ],
)
def test_meets(slo: Slo, attained: bool) -> None:
    assert meets(record(0), slo) is attained
    assert not meets(failed(0), slo)


def test_a_single_token_has_no_tpot_to_break_and_no_first_token_breaks_a_ttft() -> None:
    assert meets(record(0, tokens=1), Slo(tpot_s=1e-9))
    assert not meets(record(0, first_token_s=None, chunk_s=[], chunk_tokens=[]), Slo(ttft_s=10.0))
    assert meets(record(0, output_tokens=None), Slo(tpot_s=0.0201)), "a server without usage: the chunks' tokens count"
    assert not meets(record(0, output_tokens=None), Slo(tpot_s=0.0199))


def test_speculative_decoding_does_not_divide_the_chunk_interval() -> None:
    """Four tokens every 80 ms: chunks come every 80 ms, a token takes 20 ms."""
    chunks = [0.1 + 0.08 * step for step in range(6)]
    fields = {"chunk_s": chunks, "end_s": chunks[-1]}
    counted = [record(i, output_tokens=21, chunk_tokens=[1, 4, 4, 4, 4, 4], **fields) for i in range(30)]
    found = summary_of(counted)
    assert found.inter_chunk_s.p50.value == pytest.approx(0.08)
    assert found.tpot_s.p50.value == pytest.approx(0.02)
    assert found.tokens_per_chunk == pytest.approx(3.5)
    uncounted = [record(i, output_tokens=21, chunk_tokens=[1] * 6, **fields) for i in range(30)]
    assert summary_of(uncounted).tokens_per_chunk == pytest.approx(3.5), "the server's usage, not one token per chunk"
    assert summary_of(uncounted).output_tokens_per_s.value == pytest.approx(found.output_tokens_per_s.value)


def test_a_burst_is_taken_to_its_last_response_and_a_drain_is_left_out() -> None:
    burst = [record(i, 0.0, ttft=0.1 * (i + 1)) for i in range(20)]
    assert summary_of(burst).request_rate_rps.value == pytest.approx(20 / 2.2)
    drain = [record(i, i * 0.1) for i in range(200)] + [record(200, 19.9, ttft=60.0)]
    assert summary_of(drain).request_rate_rps.value == pytest.approx(10.0, rel=0.02), (
        "one straggler does not stretch the window"
    )


def test_responses_without_a_stream() -> None:
    whole = [record(i, i * 0.1, first_token_s=None, chunk_s=[], chunk_tokens=[]) for i in range(100)]
    found = summary_of(whole)
    assert found.ttft_s.mean == found.tpot_s.mean == found.inter_chunk_s.mean == NOTHING
    assert found.e2e_s.p50.value == pytest.approx(0.3)
    assert found.output_tokens_per_s.value == pytest.approx(110, rel=0.05)
    assert found.stationary is True


def test_fairness_over_tenants_counts_those_who_got_nothing() -> None:
    records = [record(i, i * 0.1, tenant="ab"[i % 2]) for i in range(100)]
    assert summary_of(records).jain_fairness == pytest.approx(1.0)
    starved = records + [failed(100 + i, i * 0.1, tenant="c") for i in range(10)]
    assert summary_of(starved).jain_fairness == pytest.approx(2 / 3)


def test_an_overload_is_called_not_stationary() -> None:
    rng = np.random.default_rng(5)
    records = [record(i, i * 0.1, ttft=0.1 + 0.01 * i + float(rng.exponential(0.1))) for i in range(400)]
    found = summary_of(records)
    assert found.stationary is False and found.slope_p_value is not None and found.slope_p_value < 0.01


def test_a_summary_is_plain_json_and_every_metric_has_its_formula() -> None:
    records = [record(i, i * 0.1, tenant="t", service_class="c") for i in range(50)]
    found = summary_of(records)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Summary) == found
    metrics = {name for name in Summary.__struct_encode_fields__ if name not in ("groups", "slope_p_value", "warnings")}
    assert metrics <= set(FORMULAS)
    inside = {"window", "mean", "quantiles", "rates", "effective_mean", "effective_p99"}
    assert set(FORMULAS) - metrics == inside
