"""Gaussian working model of tail correlation, where the tail itself holds too few values to estimate it.

Three requests in 300 lie above the p99; nothing about their clustering can be read off three. So the ranks of all values, taken
to normal scores, are fitted by an autoregression; it predicts how often neighbours exceed a level together.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import fft, integrate, linalg, signal, stats

from octavo.bench.statistics.dependence import Array, autocovariance

MAX_LAGS = 4096


def normal_scores(values: Array) -> Array:
    """Phi^-1((rank - 1/2)/n); ties share their mean rank."""
    scores: Array = stats.norm.ppf((stats.rankdata(values) - 0.5) / len(values))
    return scores


def autoregression(values: Array) -> Array:
    """Coefficients by Yule-Walker, order by BIC. Their sum is freed of Kendall's (1954) downward bias (1 + 3 phi)/n."""
    size = len(values)
    highest = int(min(10 * math.log10(size), size // 4))
    covariance = autocovariance(values, highest)
    best, best_cost = np.zeros(0), size * math.log(covariance[0])
    for order in range(1, highest + 1):
        coefficients = linalg.solve_toeplitz(covariance[:order], covariance[1 : order + 1])
        residual = float(covariance[0] - coefficients @ covariance[1 : order + 1])
        if residual <= 0:
            break
        cost = size * math.log(residual) + order * math.log(size)
        if cost < best_cost:
            best, best_cost = coefficients, cost
    total = float(best.sum())
    if total > 0:
        best = best * (min(total + (1 + 3 * total) / size, 1 - 1 / size) / total)
    return best


def autocorrelation(coefficients: Array, num_lags: int) -> Array:
    """Correlations at lags 1..num_lags of that autoregression, from its impulse response."""
    if not len(coefficients):
        return np.zeros(num_lags)
    impulse = np.zeros(8 * num_lags)
    impulse[0] = 1.0
    response = signal.lfilter([1.0], np.concatenate(([1.0], -coefficients)), impulse)
    length = fft.next_fast_len(2 * len(response), real=True)
    covariance = fft.irfft(np.abs(fft.rfft(response, length)) ** 2, length)[: num_lags + 1]
    found: Array = np.clip(covariance[1:] / covariance[0], -0.999, 0.999)
    return found


def joint_exceedance(probability: float, correlation: Array) -> Array:
    """Correlation of the indicators {X > q}, {Y > q} of a bivariate normal with that correlation, at its p-quantile q.

    [Phi2(z, z; rho) - p^2]/(p (1 - p)), Phi2 - p^2 = int_0^rho exp(-z^2/(1 + r))/(2 pi sqrt(1 - r^2)) dr (Plackett 1954).
    """
    z = stats.norm.ppf(probability)
    grid = np.linspace(0.0, 0.999, 2000)
    density = np.exp(-z * z / (1 + grid)) / (2 * np.pi * np.sqrt(1 - grid**2))
    area = integrate.cumulative_trapezoid(density, grid, initial=0.0)
    joint: Array = np.sign(correlation) * np.interp(np.abs(correlation), grid, area)
    return joint / (probability * (1 - probability))


def model_inflation(values: Array, probabilities: tuple[float, ...]) -> list[float]:
    """tau >= 1 of {x <= p-quantile} for each p: 1 + 2 sum_k (1 - k/n) corr_k under the working model."""
    size = len(values)
    scores = normal_scores(values)
    if size < 16 or scores.var() == 0:
        return [1.0] * len(probabilities)
    num_lags = min(size // 2, MAX_LAGS)
    correlation = autocorrelation(autoregression(scores), num_lags)
    weight = 1 - np.arange(1, num_lags + 1) / size
    return [max(1.0, 1 + 2 * float(weight @ joint_exceedance(p, correlation))) for p in probabilities]
