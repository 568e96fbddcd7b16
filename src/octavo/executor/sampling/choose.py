"""Random token choice per row: scaled logits, truncation, one uniform number each.

A draw inverts the cumulative distribution in the order of token ids, so that rounding noise in the logits moves its
borders by as little and reorders nothing. Every operation works on each row by itself: a row's token does not depend on
the rows beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.executor.sampling.inverse import draw, first_above
from octavo.executor.sampling.truncation import Truncation, cut_candidates, cut_vocabulary


def draw_tokens(scaled: Tensor, truncation: Truncation, uniform: Tensor) -> Tensor:
    """Tokens ``[R]`` from ``softmax(scaled)``, cut to top_k, then min_p, then top_p.

    ``scaled`` float32 ``[R, V]`` with row maxima of 0 (overwritten); ``uniform`` float64 ``[R]`` in [0, 1).
    """
    is_active = truncation.is_active(scaled.shape[1])
    if not bool(is_active.any()):
        return draw(scaled.exp_(), uniform)
    tokens = torch.empty(len(scaled), dtype=torch.int64, device=scaled.device)
    whole = (~is_active).nonzero()[:, 0]
    narrow = (is_active & truncation.is_narrow(scaled.shape[1])).nonzero()[:, 0]
    wide = is_active.clone()
    if len(narrow):
        candidates = cut_candidates(_rows(scaled, narrow), truncation.take(narrow))
        done = narrow[candidates.settled]
        tokens[done] = _draw_candidates(
            candidates.weights[candidates.settled], candidates.ids[candidates.settled], uniform[done]
        )
        wide[done] = False
    rest = wide.nonzero()[:, 0]
    if len(rest):
        tokens[rest] = draw(cut_vocabulary(_rows(scaled, rest), truncation.take(rest)), uniform[rest])
    if len(whole):
        tokens[whole] = draw(_rows(scaled, whole).exp(), uniform[whole])
    return tokens


def _rows(scaled: Tensor, rows: Tensor) -> Tensor:
    return scaled if len(rows) == len(scaled) else scaled[rows]


def _draw_candidates(weights: Tensor, ids: Tensor, uniform: Tensor) -> Tensor:
    """One of ``ids`` ``[R, W]`` a row by its weight; put into the order of ids first."""
    ids, order = ids.sort(-1)
    running = weights.gather(1, order).cumsum(-1)
    return ids.gather(1, first_above(running, uniform[:, None] * running[:, -1:]))[:, 0]
