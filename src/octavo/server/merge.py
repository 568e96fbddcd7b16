"""Several async generators of batches merged into one, whose batches are what has arrived."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")

_Queue = asyncio.Queue["list[T] | Exception | None"]  # None: one source has ended


async def merged(sources: list[AsyncGenerator[list[T], None]]) -> AsyncGenerator[list[T], None]:
    """All sources at once. The first error ends it; closing it closes the sources."""
    queue: _Queue[T] = asyncio.Queue()
    pumps = [asyncio.create_task(_pump(source, queue)) for source in sources]
    num_open = len(pumps)
    try:
        while num_open:
            items = [await queue.get()]
            while not queue.empty():
                items.append(queue.get_nowait())
            num_open -= sum(item is None for item in items)
            batch = [value for item in items if isinstance(item, list) for value in item]
            if batch:
                yield batch
            for item in items:
                if isinstance(item, Exception):
                    raise item
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(source: AsyncGenerator[list[T], None], queue: _Queue[T]) -> None:
    try:
        async with aclosing(source) as batches:
            async for batch in batches:
                queue.put_nowait(batch)
    except Exception as error:
        queue.put_nowait(error)
    else:
        queue.put_nowait(None)
