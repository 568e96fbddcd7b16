"""``octavo generate``: continue a text, streamed to stdout as it comes."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.cli.flags import FlagGroup, Given, GroupedCommand, with_flags
from octavo.cli.model_argument import fetch, reconcile
from octavo.config import DEFAULT_MODEL, EngineConfig
from octavo.errors import InvalidRequestError
from octavo.types import SamplingParams

if TYPE_CHECKING:
    from octavo.engine.llm import LLM, Output

# What one request on one machine can use; the rest is about serving many.
ENGINE_FLAGS = ("executor", "dtype", "kv_dtype", "num_threads", "max_model_len")


def register(app: typer.Typer) -> None:
    app.command("generate", cls=GroupedCommand, short_help="Continue a text.")(generate)


@with_flags(
    FlagGroup(SamplingParams, "Sampling", defaults={"max_tokens": 128}),
    FlagGroup(EngineConfig, "Engine", only=ENGINE_FLAGS),
)
def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="The text to continue; - or nothing: read it from stdin.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help=f"Registry name, folder, .gguf file or hf://org/name (default: {DEFAULT_MODEL})",
            metavar="MODEL",
            show_default=False,
        ),
    ] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Say on stderr where the time went.")] = False,
    *,
    given: Given,
) -> None:
    """Continue a text with a model; the new text goes to stdout as it comes.

    For a conversation, use `octavo chat`.
    """
    params = given.config(SamplingParams)
    name, config = reconcile(model, given.config(EngineConfig), DEFAULT_MODEL)
    text = _read_prompt(prompt)
    started_s = time.monotonic()
    llm = _load(name, config)
    load_s = time.monotonic() - started_s
    with llm:
        output = print_stream(llm.stream(text, params))
    if stats:
        print(_describe(output, load_s), file=sys.stderr)


def print_stream(stream: Generator[str, None, Output]) -> Output:
    """Write the chunks to stdout as they come; returns what the stream ends with."""
    try:
        while True:
            write(next(stream))
    except StopIteration as end:
        output: Output = end.value
    write("\n")
    return output


def write(text: str) -> None:
    """To stdout, at once. What a model says may not steer the user's terminal."""
    if sys.stdout.isatty():
        text = "".join(one for one in text if one.isprintable() or one in "\n\t")
    sys.stdout.write(text)
    sys.stdout.flush()


def _read_prompt(prompt: str | None) -> str:
    if prompt in (None, "-"):
        if prompt is None and sys.stdin.isatty():
            raise InvalidRequestError("no prompt; give one: octavo generate 'Once upon a time'")
        prompt = sys.stdin.read()
    if not prompt:
        raise InvalidRequestError("the prompt is empty; give some text to continue")
    return prompt


def _load(name: str, config: EngineConfig) -> LLM:
    if name != "fake":
        fetch(name)
    from octavo.engine.llm import LLM

    return LLM(name, config)


def _describe(output: Output, load_s: float) -> str:
    parts = [f"load {load_s:.2f} s", f"{len(output.prompt_token_ids)} prompt tokens"]
    if output.num_cached_tokens:
        parts.append(f"{output.num_cached_tokens} of them cached")
    parts.append(f"{len(output.token_ids)} output tokens")
    if (timings := output.timings) is not None:
        if timings.ttft_s is not None:
            parts.append(f"TTFT {timings.ttft_s * 1000:.0f} ms")
        if timings.tpot_s:
            parts.append(f"TPOT {timings.tpot_s * 1000:.1f} ms ({1 / timings.tpot_s:.1f} tokens/s)")
    parts.append(f"ended by {output.finish_reason}")
    return ", ".join(parts)
