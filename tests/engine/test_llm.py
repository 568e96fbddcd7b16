"""octavo.LLM over the fake executor: order of outputs, stop strings, concurrent streams, invalid requests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import octavo
from octavo import SamplingParams
from octavo.errors import ConfigError, ContextLengthError, InvalidRequestError
from octavo.types import FinishReason


@pytest.fixture
def llm() -> Iterator[octavo.LLM]:
    with octavo.LLM("fake", executor="fake", max_num_running=8) as llm:
        yield llm


def test_outputs_come_in_the_order_of_the_prompts(llm: octavo.LLM) -> None:
    params = SamplingParams(max_tokens=12, ignore_eos=True, temperature=0)
    prompts = [f"prompt number {i}" for i in range(20)]
    together = llm.generate(prompts, params)
    assert [o.token_ids for o in together] == [llm.generate(p, params)[0].token_ids for p in prompts]
    assert all(o.finish_reason is FinishReason.LENGTH and o.timings is not None for o in together)
    assert llm.generate([65, 66, 67], params)[0].prompt_token_ids == [65, 66, 67]
    assert llm.generate([]) == []


def test_a_stream_says_what_generate_says(llm: octavo.LLM) -> None:
    params = SamplingParams(max_tokens=30, ignore_eos=True, seed=4)
    assert "".join(llm.stream("hello", params)) == llm.generate("hello", params)[0].text


def test_streams_side_by_side_do_not_lose_each_others_text(llm: octavo.LLM) -> None:
    params = SamplingParams(max_tokens=20, ignore_eos=True, seed=1)
    expected = [llm.generate(p, params)[0].text for p in ("left", "right")]
    left, right = llm.stream("left", params), llm.stream("right", params)
    texts = [next(left), next(right)]
    texts[0] += "".join(left)
    texts[1] += "".join(right)
    assert texts == expected


def test_leaving_a_stream_frees_its_blocks(llm: octavo.LLM) -> None:
    stream = llm.stream("hello", SamplingParams(max_tokens=4000, ignore_eos=True))
    next(stream)
    stream.close()
    llm.generate("next", SamplingParams(max_tokens=1))
    assert llm._engine._scheduler.kv.num_used_blocks == 0


def test_a_stop_string_ends_the_text_before_it(llm: octavo.LLM) -> None:
    params = SamplingParams(max_tokens=60, ignore_eos=True, seed=2)
    text = llm.generate("hello", params)[0].text
    stop = text[10:13]
    cut = llm.generate("hello", SamplingParams(max_tokens=60, ignore_eos=True, seed=2, stop=(stop,)))[0]
    assert cut.text == text[: text.index(stop)]
    assert (cut.finish_reason, cut.stop_reason) == (FinishReason.STOP, stop)
    assert cut.timings is not None
    assert cut.timings.e2e_s is not None
    assert cut.timings.ttft_s is not None
    assert cut.timings.e2e_s >= cut.timings.ttft_s >= 0


def test_all_or_nothing_when_one_prompt_is_refused(llm: octavo.LLM) -> None:
    with pytest.raises(ContextLengthError):
        llm.generate(["fine", "x" * 9000], SamplingParams(max_tokens=5))
    assert llm.generate("fine", SamplingParams(max_tokens=1))[0].finish_reason is not None
    assert llm._engine._scheduler.kv.num_used_blocks == 0


def test_chat_uses_the_models_template(llm: octavo.LLM) -> None:
    messages = [{"role": "user", "content": "hi"}]
    params = SamplingParams(max_tokens=5, temperature=0)
    assert "".join(llm.chat_stream(messages, params)) == llm.chat(messages, params).text


def test_bad_arguments_are_named(llm: octavo.LLM) -> None:
    with pytest.raises(InvalidRequestError, match="2 prompts but 1 sampling params"):
        llm.generate(["a", "b"], [SamplingParams()])
    with pytest.raises(ConfigError, match="did you mean 'block_size'"):
        octavo.LLM("fake", executor="fake", block_sise=4)
