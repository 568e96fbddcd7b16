"""Isolation of failing requests: one that cannot be computed fails alone, the others of its step go on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from octavo.executor.requests import Row
from octavo.types import Sample

logger = logging.getLogger(__name__)

Step = Callable[[Sequence[Row]], dict[str, Sample]]


def run_isolated(step: Step, requests: Sequence[Row], fatal: tuple[type[BaseException], ...] = ()) -> dict[str, Sample]:
    """One step; if it raises, each request by itself, so that the one at fault (or too big for the memory) fails alone.

    That is sound because a step may be repeated: it writes the same keys and values to the same places. ``fatal`` errors, after
    which no step can run, pass.
    """
    if not requests:
        return {}
    try:
        return step(requests)
    except fatal:
        raise
    except Exception as error:
        logger.exception("a step of %d requests failed", len(requests))
        if len(requests) == 1:
            return {requests[0].request.request_id: Sample((), error=f"{type(error).__name__}: {error}")}
    samples: dict[str, Sample] = {}
    for row in requests:
        samples |= run_isolated(step, [row], fatal)
    return samples
