"""``silu_mul(x, act)``: the gated activation of the MLP, ``act(gate) * up``."""
