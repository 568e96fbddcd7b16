"""Spin time of OpenMP threads: short for torch's pool, so that busy-waiting does not take cores from other threads.

A decode step crosses hundreds of barriers. libgomp's default is to spin for a long time, which is fine on an idle machine; but
when another process wants one of the cores, spinning threads keep the core from the very thread they wait for, and a step
can take ten times as long (docs/results/cpu-threads.md). Spinning briefly costs nothing measurable and avoids that.
"""

from __future__ import annotations

from collections.abc import MutableMapping

SPIN_COUNT = "10000"  # iterations; about 10 microseconds, longer than a barrier between equally loaded threads


def calm_threads(environ: MutableMapping[str, str]) -> None:
    """Add the setting to ``environ``, unless the user has one of their own. Takes effect where torch is imported later."""
    if "OMP_WAIT_POLICY" not in environ:
        environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
