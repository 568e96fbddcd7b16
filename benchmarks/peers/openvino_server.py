"""OpenVINO GenAI as a peer of ``octavo bench peers``: its own continuous batching behind the thinnest OpenAI surface.

The package has no server of its own (that is another product, OpenVINO Model Server), so this stands in: what it measures is
OpenVINO's engine, plus one thread that steps it and a queue for each request. It is no part of Octavo and imports none of it.
Runs in an environment of its own: ``pip install openvino-genai uvicorn starlette``. See docs/bench-peers.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import queue
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino
import openvino_genai
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

IDLE_S = 1.0


@dataclass
class Ask:
    """One completion: its prompt, and where its tokens go (None ends them; an exception ends them as well)."""

    token_ids: np.ndarray
    config: Any
    loop: asyncio.AbstractEventLoop
    tokens: asyncio.Queue[list[int] | Exception | None]

    def give(self, item: list[int] | Exception | None) -> None:
        self.loop.call_soon_threadsafe(self.tokens.put_nowait, item)


class Engine:
    """Steps the pipeline in a thread of its own while there is work, and sleeps on a queue while there is none."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline, self._asked = pipeline, queue.SimpleQueue()
        self._live: dict[int, tuple[Any, Ask]] = {}
        self._count = 0
        threading.Thread(target=self._work, daemon=True).start()

    def ask(self, ask: Ask) -> None:
        self._asked.put(ask)

    def _work(self) -> None:
        while True:
            self._take()
            if self._live:
                self._pipeline.step()
                for number, (handle, ask) in list(self._live.items()):
                    self._pass_on(number, handle, ask)

    def _take(self) -> None:
        """Everything that was asked meanwhile; waits only if there is nothing else to do."""
        try:
            while True:
                ask = self._asked.get(block=not self._live, timeout=IDLE_S)
                self._count += 1
                try:
                    tokens = openvino.Tensor(ask.token_ids[None])
                    self._live[self._count] = (self._pipeline.add_request(self._count, tokens, ask.config), ask)
                except RuntimeError as error:
                    ask.give(error)
        except queue.Empty:
            return

    def _pass_on(self, number: int, handle: Any, ask: Ask) -> None:
        while handle.can_read():
            for output in handle.read().values():
                ask.give(list(output.generated_ids))
        if handle.get_status() != openvino_genai.GenerationStatus.RUNNING:
            ask.give(None)
            del self._live[number]


class Server:
    """POST /v1/completions (streams only) and GET /v1/models."""

    def __init__(self, model: str, pipeline: Any) -> None:
        self._model, self._tokenizer, self._engine = model, pipeline.get_tokenizer(), Engine(pipeline)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/models", self.models),
                Route("/v1/completions", self.completions, methods=["POST"]),
            ]
        )

    async def models(self, request: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [{"id": self._model, "object": "model"}]})

    async def completions(self, request: Request) -> StreamingResponse:
        body = await request.json()
        prompt = body["prompt"]
        if isinstance(prompt, str):
            prompt = self._tokenizer.encode(prompt).input_ids.data[0]
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos = body.get("max_tokens", 16), body.get("ignore_eos", False)
        config.do_sample = False
        ask = Ask(np.asarray(prompt, dtype=np.int64), config, asyncio.get_running_loop(), asyncio.Queue())
        self._engine.ask(ask)
        return StreamingResponse(self._events(ask), media_type="text/event-stream")

    async def _events(self, ask: Ask) -> AsyncIterator[str]:
        count = 0
        while (tokens := await ask.tokens.get()) is not None:
            if isinstance(tokens, Exception):
                yield self._event({"error": {"message": str(tokens)}})
                return
            count += len(tokens)
            if tokens:
                yield self._event({"choices": [{"index": 0, "text": self._tokenizer.decode(tokens) or " "}]})
        usage = {"prompt_tokens": len(ask.token_ids), "completion_tokens": count}
        yield self._event({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]})
        yield self._event({"choices": [], "usage": usage | {"total_tokens": sum(usage.values())}})
        yield "data: [DONE]\n\n"

    def _event(self, content: dict[str, Any]) -> str:
        known = {"object": "text_completion", "created": int(time.time()), "model": self._model}
        return f"data: {json.dumps(known | content)}\n\n"


def main() -> None:
    """Load, then serve until told to end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a .gguf file, or a folder in OpenVINO's format")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as OpenVINO takes")
    parser.add_argument("--cache-gib", type=int, default=2, help="of the KV cache")
    parser.add_argument("--hint", default="", help="precision of its arithmetic: f32, bf16; empty: its own choice")
    args = parser.parse_args()
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size, scheduler.max_num_seqs = args.cache_gib, 256
    properties = {"INFERENCE_NUM_THREADS": args.threads} if args.threads else {}
    properties |= {"INFERENCE_PRECISION_HINT": args.hint} if args.hint else {}
    pipeline = openvino_genai.ContinuousBatchingPipeline(args.model, scheduler, "CPU", properties)
    app = Server(args.model.rsplit("/", 1)[-1], pipeline).app()
    uvicorn.run(app, host="127.0.0.1", port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
