"""From `octavo serve` to ready, and the memory of the whole default server: at ready, and after 16 concurrent requests."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from octavo.config import DEFAULT_MODEL
from octavo.models.registry import find_model
from record import show, spread

ROUNDS = 3


def run() -> dict[str, Any]:
    find_model(DEFAULT_MODEL)  # fetched before: a download is not a start
    rounds = [_round() for _ in range(ROUNDS)]
    return {name: spread([figures[name] for figures in rounds]) for name in rounds[0]}


def _round() -> dict[str, float]:
    started = time.perf_counter()
    command = [str(Path(sys.executable).with_name("octavo")), "serve", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        url = _address(server)
        while httpx.get(f"{url}/ready").status_code != 200:
            time.sleep(0.01)
        ready_s = time.perf_counter() - started
        before = _memory_bytes(server.pid)
        asyncio.run(_load(url))
        after = _memory_bytes(server.pid)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    return {"ready_s": ready_s, "memory_at_ready_mib": before / 2**20, "memory_after_load_mib": after / 2**20}


def _address(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    for line in server.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return found.group()
    raise RuntimeError(f"the server ended with {server.wait()} before it had an address")


def _memory_bytes(pid: int) -> int:
    """Proportional set size of the process and all its children: shared pages are counted once."""
    root = psutil.Process(pid)
    return sum(process.memory_full_info().pss for process in (root, *root.children(recursive=True)))


async def _load(url: str) -> None:
    body = {"model": DEFAULT_MODEL, "max_tokens": 128, "ignore_eos": True, "temperature": 0}
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        prompts = [[(7 * i + 13 * j) % 40000 + 100 for j in range(128)] for i in range(16)]
        answers = await asyncio.gather(*(client.post("/v1/completions", json=body | {"prompt": p}) for p in prompts))
    for answer in answers:
        answer.raise_for_status()


def describe(figures: dict[str, Any]) -> list[str]:
    return [
        f"`octavo serve` to ready: {show(figures['ready_s'], 2, ' s')}",
        f"memory of all its processes: at ready {show(figures['memory_at_ready_mib'], 0, ' MiB')}, after 16 x (128 + 128) "
        f"at once {show(figures['memory_after_load_mib'], 0, ' MiB')}",
    ]


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    print("\n".join(describe(run())))
