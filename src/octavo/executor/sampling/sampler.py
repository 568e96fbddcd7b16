"""The sampler: logits -> one ``Sample`` per request; order of the stages; rows without finite logits fail alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octavo.executor.requests import RequestState
from octavo.executor.sampling.choose import draw_tokens
from octavo.executor.sampling.edits import edit
from octavo.executor.sampling.history import History
from octavo.executor.sampling.logprobs import Alternatives, entries
from octavo.executor.sampling.parameters import SamplingBatch, unsound
from octavo.executor.sampling.truncation import Truncation
from octavo.types import Sample, TokenLogprobs

SLICE = 16  # rows drawn at a time on the CPU: a few megabytes, which stay in its cache


class Sampler:
    """Chooses the next token of each row. Holds the token counts of the rows it saw last, and nothing else."""

    def __init__(self) -> None:
        self._history = History()

    def sample(self, logits: Tensor, requests: Sequence[RequestState]) -> dict[str, Sample]:
        """Row ``i`` of ``logits`` (float32 ``[S, V]``, edited in place) decides the next token of ``requests[i]``.

        A row that holds NaN or +inf, or nothing above -inf, fails alone: its ``Sample`` carries the error.
        """
        batch = SamplingBatch.from_requests(requests)
        raw = logits[batch.with_logprobs] if batch.with_logprobs else None
        edit(logits, batch, self._history.advance(batch.at(batch.penalised)), lambda a: _tensor(a, logits.device))
        greedy, peaks = _argmax(logits)
        sound = np.isfinite(peaks)
        tokens = _draw_rows(logits, batch, greedy, torch.from_numpy(peaks).to(logits.device), sound)

        samples = {
            request.request_id: Sample((token,)) if ok else Sample((), error=_why(logits[row], peaks[row]))
            for row, (request, token, ok) in enumerate(zip(requests, tokens.tolist(), sound.tolist(), strict=True))
        }
        if raw is not None:
            keep = [place for place, row in enumerate(batch.with_logprobs) if sound[row]]
            rows = [batch.with_logprobs[place] for place in keep]
            made = token_logprobs(raw if len(keep) == len(raw) else raw[keep], tokens[rows], batch.num_top(rows))
            for request, entry in zip(batch.at(rows), made, strict=True):
                samples[request.request_id] = Sample((entry.token_id,), (entry,))
        return samples


def _argmax(logits: Tensor) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Most likely token of each row (the lowest id among equals) and its logit; a NaN counts as the largest."""
    if logits.device.type == "cpu":  # numpy's argmax is vectorised, torch's is not: 5 times slower
        values = logits.numpy()
        tokens = values.argmax(-1)
        return tokens, values[np.arange(len(tokens)), tokens]
    peaks, indices = logits.max(-1)
    return indices.cpu().numpy(), peaks.cpu().numpy()


def _draw_rows(
    logits: Tensor, batch: SamplingBatch, greedy: NDArray[np.int64], peaks: Tensor, sound: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """``greedy`` with the tokens of the sound rows that draw at random put in."""
    use = np.flatnonzero(sound[batch.drawn])
    result = greedy.copy()
    num_rows = SLICE if logits.device.type == "cpu" else max(len(use), 1)
    for start in range(0, len(use), num_rows):
        part = use[start : start + num_rows]
        tokens = _draw_slice(logits, batch, peaks, part)
        result[batch.drawn[part]] = tokens.cpu().numpy()
    return result


def _draw_slice(logits: Tensor, batch: SamplingBatch, peaks: Tensor, part: NDArray[np.int64]) -> Tensor:
    def tensor(array: NDArray[Any]) -> Tensor:
        return _tensor(array[part], logits.device)

    rows = tensor(batch.drawn)
    temperature = tensor(batch.temperature).to(torch.float32)
    scaled = logits[rows].sub_(peaks[rows][:, None]).div_(temperature[:, None])
    truncation = Truncation(tensor(batch.top_k), tensor(batch.min_p), tensor(batch.top_p))
    return draw_tokens(scaled, truncation, tensor(batch.uniform))


def token_logprobs(logits: Tensor, chosen: NDArray[np.int64], num_top: NDArray[np.int64]) -> list[TokenLogprobs]:
    """What ``logprobs.token_logprobs`` gives, worked out where the logits ``[R, V]`` are."""
    log_z = torch.logsumexp(logits, -1, keepdim=True)
    picked = (logits.gather(1, _tensor(chosen, logits.device)[:, None]) - log_z)[:, 0].tolist()
    width = min(int(num_top.max(initial=0)), logits.shape[1])
    alternatives = Alternatives.none()
    if width:
        last = _tensor(np.clip(num_top, 1, width) - 1, logits.device)[:, None]
        rows, ids = (logits >= logits.topk(width).values.gather(1, last)).nonzero(as_tuple=True)
        values = (logits[rows, ids] - log_z[rows, 0]).cpu().numpy()
        alternatives = Alternatives(rows.cpu().numpy(), ids.cpu().numpy(), values)
    return entries(chosen, picked, alternatives, num_top)


def _tensor(array: NDArray[Any], device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)


def _why(row: Tensor, peak: np.float32) -> str:
    return unsound(peak, int((~torch.isfinite(row)).sum()), len(row))
