"""Frames and messages between server and engine process."""

from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo import errors
from octavo.config import EngineConfig
from octavo.engine import messages as m
from octavo.errors import EngineError, InvalidRequestError, OctavoError, OverloadedError
from octavo.types import EngineInfo, EngineStats, FinishReason, RequestTimings, TokenEvent, TokenLogprobs
from support.engine_client import submission

EVENT = TokenEvent(
    request_id="r",
    token_ids=(5, 6),
    logprobs=(TokenLogprobs(5, -0.25, ((5, -0.25), (7, -1.5))), TokenLogprobs(6, -3.0)),
    time_s=12.5,
    finish_reason=FinishReason.STOP,
    stop_reason=6,
    num_cached_tokens=16,
    timings=RequestTimings(queue_s=0.1, ttft_s=0.2, num_preemptions=1),
)
INFO = EngineInfo(model="x", vocab_size=512, max_model_len=64, block_size=16, num_blocks=8)
COMMANDS = [
    m.Start(config=EngineConfig(num_blocks=7), model=m.ModelSource(name="n", path="p"), eos_token_ids=(1, 2)),
    m.Submit(submission(stop=("a", "é"), logit_bias={7: -100.0}, seed=2**63, logprobs=3)),
    m.Abort("r"),
    m.Shutdown(),
]
WORDS = [
    m.EngineReady(info=INFO, reasons={"dtype": "because"}),
    m.Report([EVENT, TokenEvent(request_id="s", token_ids=(1,))], EngineStats(num_running=3, step_time_s=0.5)),
    m.Report([], EngineStats()),
    m.Refused(request_id="r", code="queue_full", message="full", retry_after_s=2.5),
    m.Failed(code="config_error", message="no", param="dtype"),
]


def body(message: object) -> bytes:
    return bytes(m.FrameWriter().frame(message)[4:])


@pytest.mark.parametrize("message", COMMANDS, ids=lambda message: type(message).__name__)
def test_commands_arrive_as_they_were_sent(message):
    assert m.CommandDecoder().decode(body(message)) == message


@pytest.mark.parametrize("message", WORDS, ids=lambda message: type(message).__name__)
def test_engine_messages_arrive_as_they_were_sent(message):
    assert m.EngineMessageDecoder().decode(body(message)) == message


@given(st.lists(st.binary(max_size=300), max_size=12), st.data())
def test_frames_survive_any_portioning(bodies, data):
    stream = b"".join(struct.pack(">I", len(part)) + part for part in bodies)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20).map(sorted))
    reader, seen = m.FrameReader(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        seen += reader.feed(stream[start:end])
    assert seen == bodies


def test_a_frame_over_the_cap_is_refused_before_it_is_buffered():
    reader = m.FrameReader()
    whole = struct.pack(">I", 3) + b"abc"
    with pytest.raises(EngineError, match="a frame claims 67108865 bytes, the limit is 67108864"):
        reader.feed(whole + struct.pack(">I", m.MAX_FRAME_BYTES + 1))


def test_a_message_over_the_cap_is_not_sent():
    huge = submission(stop=("x" * (m.MAX_FRAME_BYTES + 1),))
    with pytest.raises(InvalidRequestError, match="over the limit"):
        m.FrameWriter().frame(m.Submit(huge))


@pytest.mark.parametrize("params", [{"seed": 2**64}, {"stop": ("\ud800",)}, {"stop": (object(),)}])
def test_what_msgpack_cannot_carry_is_the_clients_error(params):
    with pytest.raises(InvalidRequestError, match="Submit message holds a value that cannot be sent"):
        m.FrameWriter().frame(m.Submit(submission(**params)))


@given(st.binary(max_size=200))
def test_garbage_is_a_clear_error(garbage):
    for decoder in (m.EngineMessageDecoder(), m.CommandDecoder()):
        try:
            decoded = decoder.decode(garbage)
        except EngineError as error:
            assert f"unreadable message of {len(garbage)} bytes" in error.message
        else:  # hypothesis found bytes that are a message
            assert isinstance(decoded, msgspec.Struct)


def test_a_submission_of_wrong_types_is_refused_and_names_its_request():
    wrong = body(m.Submit(submission(request_id="the-one", max_tokens="many")))
    refused = m.CommandDecoder().decode(wrong)
    assert isinstance(refused, m.Refused)
    assert refused.request_id == "the-one"
    assert "max_tokens" in refused.message
    assert type(m.restore(refused)) is InvalidRequestError


ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, OctavoError)]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_comes_back_as_its_own_class(kind):
    original = kind("what and why")
    for message in (m.refusal("r", original), m.failure(original)):
        restored = m.restore(message)
        assert (type(restored), restored.message) == (kind, "what and why")


def test_what_an_error_carries_comes_back():
    assert m.restore(m.refusal("r", InvalidRequestError("no", param="top_k"))).param == "top_k"
    restored = m.restore(m.refusal("r", OverloadedError("full", retry_after_s=7.0)))
    assert isinstance(restored, OverloadedError)
    assert restored.retry_after_s == 7.0


def test_foreign_errors_are_named_and_become_engine_errors():
    restored = m.restore(m.refusal("r", KeyError("block")))
    assert (type(restored), restored.message) == (EngineError, "KeyError: 'block'")
    assert m.describe(ValueError()) == "ValueError"
    assert type(m.restore(m.Failed(code="from the future", message="?"))) is EngineError
