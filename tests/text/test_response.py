"""Response deltas from engine events: stop tokens, stop strings, finish reasons, token texts, log-probabilities, timings."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.errors import RequestFailedError
from octavo.text.response import ResponseDecoder, ResponseDelta
from octavo.text.tokenizer import FakeTokenizer
from octavo.types import FinishReason, RequestTimings, SamplingParams, Submission, TokenEvent, TokenLogprobs

FAKE = FakeTokenizer()
EOS = 257
ENGINE_TIMINGS = RequestTimings(queue_s=0.5, ttft_s=1.0, tpot_s=0.25, e2e_s=2.0, num_preemptions=1)


def decoder(**params: Any) -> ResponseDecoder:
    submission = Submission(request_id="r", prompt_token_ids=[65], params=SamplingParams(**params), arrival_s=100.0)
    return ResponseDecoder(FAKE, submission)


def event(text: str | tuple[int, ...], finish: FinishReason | None = None, **fields: Any) -> TokenEvent:
    token_ids = tuple(text.encode()) if isinstance(text, str) else text
    return TokenEvent(request_id="r", token_ids=token_ids, finish_reason=finish, **fields)


def end(delta: ResponseDelta) -> tuple[FinishReason | None, int | str | None]:
    return delta.finish_reason, delta.stop_reason


def test_a_stop_token_is_counted_and_not_shown() -> None:
    for params in ({}, {"skip_special_tokens": False}):
        response = decoder(**params)
        delta = response.decode(event((104, 105, EOS), FinishReason.STOP))
        assert (delta.text, delta.token_texts) == ("hi", ("h", "i", ""))
        assert end(delta) == (FinishReason.STOP, None)
        assert response.num_tokens == 3
    named = decoder(stop_token_ids=(105,)).decode(event("hi", FinishReason.STOP, stop_reason=105))
    assert (named.text, *end(named)) == ("h", FinishReason.STOP, 105)


def test_a_stop_token_is_shown_if_asked_for() -> None:
    shown = decoder(skip_special_tokens=False, include_stop_str_in_output=True)
    assert shown.decode(event((104, EOS), FinishReason.STOP)).text == "h<eos>"


def test_a_stop_string_ends_the_response_before_the_engine_does() -> None:
    response = decoder(stop=("END",))
    assert response.decode(event("a EN")).text == "a "
    delta = response.decode(event("D b"))
    assert (delta.text, *end(delta)) == ("", FinishReason.STOP, "END")
    assert response.num_tokens == 7  # all that was sampled, also behind the stop string


@pytest.mark.parametrize("last", ["D", ""])
def test_a_stop_string_outranks_the_engines_reason(last: str) -> None:
    response = decoder(stop=("END", "EN\ufffd"))
    assert response.decode(event("EN")).text == ""
    token_ids = tuple(last.encode()) or (0xE2,)  # half a character: the end itself turns it into U+FFFD
    delta = response.decode(event(token_ids, FinishReason.LENGTH, timings=ENGINE_TIMINGS))
    assert (delta.text, *end(delta)) == ("", FinishReason.STOP, "END" if last else "EN\ufffd")
    assert delta.timings == ENGINE_TIMINGS


def test_text_held_back_is_released_at_the_end() -> None:
    response = decoder(stop=("END",))
    assert response.decode(event("the EN")).text == "the "
    delta = response.decode(event((), FinishReason.LENGTH))
    assert (delta.text, *end(delta)) == ("EN", FinishReason.LENGTH, None)


@pytest.mark.parametrize(
    ("finish", "error", "words"),
    [
        (FinishReason.ERROR, "non-finite logits", "non-finite logits"),
        (FinishReason.ERROR, None, "the engine failed"),
        (FinishReason.ABORT, None, "the engine aborted"),
    ],
)
def test_a_failed_or_aborted_request_is_an_error(finish: FinishReason, error: str | None, words: str) -> None:
    response = decoder()
    response.decode(event("a"))
    with pytest.raises(RequestFailedError, match=words):
        response.decode(event((), finish, error=error))


def test_timings_of_a_stop_string_come_from_the_events() -> None:
    response = decoder(stop=("c",))
    early = RequestTimings(queue_s=0.5, ttft_s=1.0, num_preemptions=2)
    assert response.decode(event("a", time_s=101.0, timings=early)).timings is None
    response.decode(event("b", time_s=101.5))
    delta = response.decode(event("c", time_s=102.0))
    assert delta.timings == RequestTimings(queue_s=0.5, ttft_s=1.0, tpot_s=0.5, e2e_s=2.0, num_preemptions=2)
    at_once = decoder(stop=("a",)).decode(event("a", time_s=101.0))
    assert at_once.timings == RequestTimings(ttft_s=1.0, e2e_s=1.0)


def test_timings_of_any_other_end_are_the_engines() -> None:
    delta = decoder().decode(event((EOS,), FinishReason.STOP, timings=ENGINE_TIMINGS))
    assert delta.timings == ENGINE_TIMINGS


def test_cached_tokens_are_remembered() -> None:
    response = decoder()
    response.decode(event("a", num_cached_tokens=16))
    response.decode(event("b"))
    assert response.num_cached_tokens == 16


def test_logprobs_are_decoded_token_by_token() -> None:
    entries = (TokenLogprobs(0xC3, -0.5, ((0xC3, -0.5), (98, -1.5))), TokenLogprobs(0xB6, -0.25))
    delta = decoder(logprobs=2).decode(event("ö", logprobs=entries))
    assert (delta.text, delta.token_texts) == ("ö", ("", "ö"))
    assert delta.logprobs is not None
    first, second = delta.logprobs
    assert (first.token.text, first.token.data, first.token.logprob) == ("bytes:\\xc3", b"\xc3", -0.5)
    assert [(one.text, one.logprob) for one in first.top] == [("bytes:\\xc3", -0.5), ("b", -1.5)]
    assert (second.token.data, second.top) == (b"\xb6", ())
