"""``gated(x, act)``: the gated activation of the MLP, ``act(gate) * up``."""

from octavo.kernels.silu_mul.cpu import gated

__all__ = ["gated"]
