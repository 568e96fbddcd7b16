"""Autocorrelation of a series: block length, long-run variance.

Latencies in one run are correlated: a queue that is long for one request is long for the next. A mean of n of them is worth as
much as one of n/tau independent ones, tau = long-run variance / variance. Everything here is in the series' own unit, squared
for variances, and takes the series in the order in which it was observed.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Array = NDArray[np.float64]


def autocovariance(values: Array, max_lag: int) -> Array:
    """c_k = 1/n sum_t (x_t - mean)(x_{t+k} - mean) for k = 0..max_lag, by FFT (Wiener-Khinchin)."""
    size = len(values)
    length = fft.next_fast_len(size + max_lag + 1, real=True)
    spectrum = fft.rfft(values - values.mean(), length)
    found: Array = fft.irfft(spectrum * spectrum.conj(), length)[: max_lag + 1] / size
    return found


def block_length(values: Array) -> int:
    """The moving-block bootstrap's mean-square optimal block length for the variance of a mean.

    b = (2 G^2 / D)^(1/3) n^(1/3), with G and D from the flat-top lag window: Politis & White (2004), "Automatic block-length
    selection for the dependent bootstrap", Econometric Reviews 23; D = (4/3) g(0)^2 by the correction of Patton, Politis &
    White (2009), Econometric Reviews 28. Between 1 and min(3 sqrt(n), n/3).
    """
    size = len(values)
    if size < 8:
        return 1
    run_length = max(5, math.ceil(math.sqrt(math.log10(size))))
    furthest = math.ceil(math.sqrt(size)) + run_length
    covariance = autocovariance(values, min(furthest, size - 1))
    furthest = len(covariance) - 1
    if covariance[0] <= 0:
        return 1
    correlated = np.abs(covariance[1:]) >= 2 * math.sqrt(math.log10(size) / size) * covariance[0]
    quiet = np.lib.stride_tricks.sliding_window_view(correlated, min(run_length, furthest)).any(axis=1)
    last = int(np.argmin(quiet)) if not quiet.all() else int(np.flatnonzero(correlated)[-1]) + 1
    lags = np.arange(1, min(2 * max(last, 1), furthest) + 1)
    window = np.minimum(1.0, 2 * (1 - lags / lags[-1]))
    weighted = window * covariance[lags]
    slope, density = 2 * float(weighted @ lags), float(covariance[0] + 2 * weighted.sum())
    if density <= 0:
        return 1
    best = (2 * slope**2 / (4 / 3 * density**2) * size) ** (1 / 3)
    return int(np.clip(math.ceil(best), 1, max(1, min(math.ceil(3 * math.sqrt(size)), size // 3))))


def block_means(values: Array, length: int) -> Array:
    """Means of all n - length + 1 overlapping blocks."""
    total = np.concatenate(([0.0], np.cumsum(values)))
    means: Array = (total[length:] - total[:-length]) / length
    return means


def block_variance(values: Array, length: int) -> float:
    """n Var(mean) as the moving-block bootstrap with blocks of ``length`` has it (Künsch 1989), freed of the bias that comes
    from measuring from the series' own mean. Exact: nothing needs to be resampled."""
    size = len(values)
    means = block_means(values - values.mean(), length)
    return float(length * np.mean(means**2) * size / max(size - length, 1))


def long_run_variance(values: Array, length: int | None = None) -> float:
    """n Var(mean), biased upwards if at all: the larger of block variance and its lugsail 2 V(b) - V(b/3).

    V(b) ignores what lies beyond b and so is too small under positive correlation, which makes intervals too narrow; the
    lugsail takes that first-order bias away: Vats & Flegal (2022), "Lugsail lag windows for estimating time-average
    covariance matrices", Biometrika 109.
    """
    length = max(3, block_length(values) if length is None else length)
    length = min(length, max(1, len(values) // 2))
    whole = block_variance(values, length)
    return max(whole, 2 * whole - block_variance(values, max(1, length // 3)))


def inflation(values: Array) -> float:
    """tau >= 1: this many correlated values are worth one independent value for their mean."""
    variance = float(values.var())
    return max(1.0, long_run_variance(values) / variance) if variance > 0 else 1.0
