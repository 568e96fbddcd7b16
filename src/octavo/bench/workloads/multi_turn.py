"""Workload: conversations; every turn is sent after the response to the one before, with the whole history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from msgspec import Meta

from octavo.bench.lengths import parse_lengths
from octavo.bench.prompts import Draw
from octavo.bench.types import BenchRequest
from octavo.bench.workloads.base import Conversation, LengthSpec, Workload
from octavo.errors import ConfigError


class MultiTurn(Workload, frozen=True):
    """Conversations of several turns; a user thinks for an exponential time of mean ``think`` seconds between them.

    Lengths as in ShareGPT v3: a first question like that of ``chat``, later ones lognormal(18;1.20), responses
    lognormal(209;1.03). A conversation ends early where history, question and response would pass the longest prompt allowed.
    """

    FORM: ClassVar[str] = "messages"
    LENGTHS: ClassVar[tuple[str, ...]] = ("turns", "first", "prompt", "output")

    turns: LengthSpec = "uniform(2;6)"
    first: LengthSpec = "lognormal(45;1.70;2048)"
    prompt: LengthSpec = "lognormal(18;1.20;1024)"
    output: LengthSpec = "lognormal(209;1.03;1024)"
    system: Annotated[int, Meta(ge=0, le=1_000_000)] = 0  # tokens of a system prompt that all conversations share
    think: Annotated[float, Meta(ge=0, le=1e6)] = 2.0

    def conversations(self, draw: Draw) -> Iterator[Conversation]:
        if draw.form == "tokens":
            raise ConfigError(
                "multi-turn conversations are sent as messages or text, not as token ids: the responses come back as text",
                param="form",
            )
        turns = parse_lengths(self.turns)
        system = draw.block(0, self.system) if self.system else None
        while True:
            yield Conversation(self._conversation(draw, draw.count(turns), system))

    def _conversation(self, draw: Draw, num_turns: int, system: list[int] | None) -> list[BenchRequest]:
        first, prompt, output = (parse_lengths(text) for text in (self.first, self.prompt, self.output))
        limit = draw.options.max_prompt_tokens
        history, requests = self.system, []
        for turn in range(num_turns):
            num_prompt = draw.prompt_tokens(first if turn == 0 else prompt)
            num_output = draw.output_tokens(output)
            think_s = float(draw.pauses.exponential(self.think)) if turn else 0.0
            rendered = draw.render(draw.piece(num_prompt), system if turn == 0 else None)
            if turn and limit is not None and history + num_prompt > limit:
                draw.tally.remarks.append(f"conversations end where history and question pass {limit} tokens")
                break
            before = "\n" if turn else ""
            if draw.form == "text":  # the client puts the texts one after the other
                rendered = {"text": f"{before}{rendered['text']}\n"}
            requests.append(
                BenchRequest(
                    index=turn,
                    max_tokens=num_output,
                    after=turn - 1 if turn else None,
                    think_s=think_s,
                    **rendered,
                )
            )
            history += num_prompt + num_output
        return requests
