"""Server-sent events: the same events however the stream is cut, whatever its line breaks."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.bench.client.sse import MAX_EVENT_BYTES, MalformedStreamError, SseParser

LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)


def feed_all(pieces: list[bytes]) -> list[bytes]:
    parser = SseParser()
    return [event for piece in pieces for event in parser.feed(piece)]


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(stream) + 1) for place in places} | {0, len(stream)})
    return [stream[start:end] for start, end in itertools.pairwise(ends)]


@given(
    events=st.lists(st.lists(LINE, min_size=1, max_size=3), max_size=5),
    noise=st.lists(st.sampled_from([": ping", "event: x", "id", "retry: 5", ":", "dat: no", " data: no"]), max_size=3),
    line_break=st.sampled_from(["\n", "\r\n", "\r"]),
    space=st.sampled_from(["", " "]),
    places=st.lists(st.integers(0, 10_000), max_size=12),
    mark=st.booleans(),
)
def test_events_do_not_depend_on_cuts_and_line_breaks(
    events: list[list[str]], noise: list[str], line_break: str, space: str, places: list[int], mark: bool
) -> None:
    stream = "\ufeff" if mark else ""
    for event in events:
        # A space after the colon is taken away, so a value that begins with one needs it.
        lines = [f"data:{space or (' ' if line.startswith(' ') else '')}{line}" for line in event]
        stream += "".join(f"{line}{line_break}" for line in [*noise, *lines, ""])
    expected = ["\n".join(event).encode() for event in events]
    data = stream.encode()
    assert feed_all([data]) == expected
    assert feed_all(cut(data, places)) == expected
    assert feed_all([data[i : i + 1] for i in range(len(data))]) == expected


def test_mixed_line_breaks_and_blank_lines() -> None:
    assert feed_all([b"\n\ndata: a\r\ndata: b\n\r\n\n\rdata:c\r\r"]) == [b"a\nb", b"c"]


def test_the_quick_way_sees_what_is_not_for_it() -> None:
    # each begins like a whole event and ends like one
    assert feed_all([b"data: a\n\n: note\n\n"]) == [b"a"]
    assert feed_all([b"data: a\ndata: b\n\n"]) == [b"a\nb"]
    assert feed_all([b"data: a\n\nevent: x\ndata: b\n\n"]) == [b"a", b"b"]
    assert feed_all([b"data: a\r\r\ndata: b\n\n"]) == [b"a", b"b"]
    assert feed_all([b"data: a\n\n\n\n"]) == [b"a"]
    assert feed_all([b"data: a\n", b"data: b\n\n"]) == [b"a\nb"]


def test_an_event_without_data_is_none_and_an_empty_one_is_one() -> None:
    assert feed_all([b"event: ping\n\n", b"data:\n\n", b"data\n\n"]) == [b"", b""]


def test_what_the_end_leaves_unfinished_is_known() -> None:
    parser = SseParser()
    assert parser.feed(b"data: a\n\ndata: b\n") == [b"a"]
    assert parser.unfinished
    assert parser.feed(b"\n") == [b"b"]
    assert not parser.unfinished


def test_an_event_without_end_is_refused() -> None:
    parser = SseParser()
    with pytest.raises(MalformedStreamError, match="larger than"):
        for _ in range(MAX_EVENT_BYTES // (1 << 20) + 1):
            parser.feed(b"data: " + b"x" * (1 << 20))
