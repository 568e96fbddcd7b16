"""``rms_norm(x, weight, eps)``: root-mean-square normalisation (Zhang and Sennrich, 2019)."""

from octavo.kernels.rms_norm.cpu import rms_norm

__all__ = ["rms_norm"]
