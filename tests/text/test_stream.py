"""Incremental detokenisation equals decoding at once; stop strings across tokens and pushes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.errors import InvalidRequestError
from octavo.text.detokenizer import Detokenizer
from octavo.text.stream import TextStream
from octavo.text.tokenizer import FakeTokenizer
from octavo.types import SamplingParams

FAKE = FakeTokenizer()


def cut(ids: list[int], sizes: list[int]) -> list[list[int]]:
    """``ids`` in consecutive chunks of the given sizes, the rest in one."""
    chunks, start = [], 0
    for size in sizes:
        chunks.append(ids[start : start + size])
        start += size
    return [*chunks, ids[start:]]


@given(st.lists(st.integers(0, 600), max_size=60), st.booleans())
def test_joined_deltas_equal_decoding_all_at_once(ids: list[int], skip: bool) -> None:
    detokenizer = Detokenizer(FAKE, skip_special_tokens=skip)
    joined = "".join(detokenizer.push([token]) for token in ids) + detokenizer.finish()
    assert joined == FAKE.decode(ids, skip_special_tokens=skip)


@given(st.text(max_size=30))
def test_a_character_appears_with_its_last_byte_and_never_broken(text: str) -> None:
    detokenizer = Detokenizer(FAKE)
    shown = ""
    for position, token in enumerate(FAKE.encode(text, add_special_tokens=False)):
        shown += detokenizer.push([token])
        assert shown == text.encode()[: position + 1].decode(errors="ignore")
    assert shown == text
    assert detokenizer.finish() == ""


def test_incomplete_characters_become_one_replacement_at_the_end_only() -> None:
    detokenizer = Detokenizer(FAKE)
    euro = list("€".encode())
    assert detokenizer.push(euro[:2]) == ""
    assert detokenizer.finish() == "\ufffd"
    assert detokenizer.push([euro[0], ord("a")]) == "\ufffda"  # and it is ready for a new sequence


def test_special_tokens_are_hidden_or_shown() -> None:
    assert Detokenizer(FAKE).push([256, 104, 257]) == "h"
    assert Detokenizer(FAKE, skip_special_tokens=False).push([256, 104, 257]) == "<bos>h<eos>"


def reference(text: str, stops: tuple[str, ...], include: bool) -> tuple[str, str | None]:
    """Read character by character; at the first end of a stop string, the longest that ends there."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if stop and text[:end].endswith(stop)]
        if found:
            stop = max(found, key=len)
            return text[:end] if include else text[: end - len(stop)], stop
    return text, None


@settings(max_examples=200)
@given(
    st.text(alphabet="abé", max_size=24),
    st.lists(st.text(alphabet="abé", min_size=1, max_size=5), max_size=4),
    st.lists(st.integers(0, 5), max_size=12),
    st.booleans(),
)
def test_stop_strings_wherever_they_fall(text: str, stops: list[str], sizes: list[int], include: bool) -> None:
    params = SamplingParams(stop=tuple(stops), include_stop_str_in_output=include)
    stream = TextStream(FAKE, params)
    shown, seen = "", []
    for chunk in cut(FAKE.encode(text, add_special_tokens=False), sizes):
        seen += chunk
        delta = stream.push(chunk)
        shown += delta.text
        assert delta.stopped_by == stream.stopped_by
        if stream.stopped_by is None:
            # what is held back is the longest end of the text so far that begins a stop string, and no more
            arrived = b"".join(FAKE.token_bytes(token) for token in seen).decode(errors="ignore")
            sizes_held = [n for stop in stops for n in range(len(stop)) if arrived.endswith(stop[:n])]
            assert shown == arrived[: len(arrived) - max(sizes_held, default=0)]
    shown += stream.finish()
    assert (shown, stream.stopped_by) == reference(text, tuple(stops), include)


def test_only_what_may_be_a_stop_string_is_held_back() -> None:
    stream = TextStream(FAKE, SamplingParams(stop=("\n\nUser:",)))
    assert stream.push(list(b"Hello")).text == "Hello"
    assert stream.push(list(b"!\n")).text == "!"
    assert stream.push(list(b"\n")).text == ""
    assert stream.push(list(b"\n")).text == "\n"  # the first line break cannot belong to it any more
    assert stream.push(list(b"Use")).text == ""
    assert stream.push(list(b"d")).text == "\n\nUsed"
    assert stream.push(list(b"\n\nUser: more")).text == ""
    assert stream.stopped_by == "\n\nUser:"
    assert stream.push(list(b"ignored")).text == ""
    assert stream.finish() == ""


def test_finish_flushes_a_beginning_that_stayed_one() -> None:
    stream = TextStream(FAKE, SamplingParams(stop=("END",)))
    assert stream.push(list(b"the EN")).text == "the "
    assert stream.finish() == "EN"
    assert stream.stopped_by is None


def test_text_of_the_stop_token_is_left_out_unless_asked_for() -> None:
    hidden = TextStream(FAKE, SamplingParams(skip_special_tokens=False))
    assert hidden.push([104, 105, 257], ends_with_stop_token=True).text == "hi"
    shown = TextStream(FAKE, SamplingParams(skip_special_tokens=False, include_stop_str_in_output=True))
    assert shown.push([104, 105, 257], ends_with_stop_token=True).text == "hi<eos>"


@pytest.mark.parametrize("size", [1, 2, 5, 20])
def test_stop_strings_do_not_count_before_min_tokens(size: int) -> None:
    ids = FAKE.encode("a STOP b STOP c", add_special_tokens=False)  # one token a character
    stream = TextStream(FAKE, SamplingParams(stop=("STOP",), min_tokens=4))
    text = ""
    for start in range(0, len(ids), size):
        text += stream.push(ids[start : start + size]).text
    assert text + stream.finish() == "a STOP b "
    assert stream.stopped_by == "STOP"


def test_token_texts_line_up_with_tokens() -> None:
    ids = FAKE.encode("aé🤗b", add_special_tokens=False)
    stream = TextStream(FAKE, SamplingParams(stop=("zzz",)))
    texts = [text for token in ids for text in stream.push([token]).token_texts]
    assert texts == ["a", "", "é", "", "", "", "🤗", "b"]


def test_unpaired_surrogates_and_negative_ids_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="character 2"):
        FAKE.encode("ab\ud83d")
    with pytest.raises(InvalidRequestError, match="-7"):
        FAKE.decode([1, -7])
