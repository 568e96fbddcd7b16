"""Jain's fairness index (Jain, Chiu & Hawe 1984): (sum x)^2 / (n sum x^2); 1 for equal shares, 1/n when one takes all."""

from __future__ import annotations

from collections.abc import Sequence


def jain(shares: Sequence[float]) -> float | None:
    """None for fewer than two shares, or when nobody got anything."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if len(shares) > 1 and squares > 0 else None
