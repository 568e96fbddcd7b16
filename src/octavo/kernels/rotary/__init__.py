"""``rotary(x, angles)``: rotary position embedding (Su et al., 2021) in the half-split layout."""

from octavo.kernels.rotary.checks import RotaryAngles
from octavo.kernels.rotary.cpu import rotary

__all__ = ["RotaryAngles", "rotary"]
