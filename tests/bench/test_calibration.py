"""The yardstick: windows of known work by hand and at random; what this machine reaches is what a plain count says."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from octavo.bench.calibration import Way, _matrix, buffer_sizes, cache_bytes, calibrate
from octavo.bench.throughput import throughput, window_rates


def test_windows_by_hand() -> None:
    """Two workers, pieces of 2: one ends a piece every 10 ms, the other every 20 ms until it is held up for 40 ms."""
    quick = [0.01 * k for k in range(13)]
    slow = [0.0, 0.02, 0.04, 0.08, 0.12]
    rates = window_rates([quick, slow], 2.0)
    assert rates.max() == pytest.approx(2 / 0.01 + 2 / 0.02)  # w = 30 ms lies in the first 40
    assert rates.min() == pytest.approx(2 / 0.01 + 2 / 0.04)


def test_no_window_shows_more_than_was_done(seed: int) -> None:
    """Workers that never do a piece in less than 1 ms: at most a thousand pieces a second each, wherever the windows lie."""
    rng = np.random.default_rng(seed)
    for _ in range(50):
        count = int(rng.integers(1, 5))
        ends = [np.cumsum([rng.random(), *(0.001 + rng.exponential(0.003, 400))]).tolist() for _ in range(count)]
        rates = window_rates(ends, 1.0)
        assert (rates <= 1000.0 * count * (1 + 1e-9)).all() and (rates >= 0).all()


def test_workers_run_at_once_and_what_they_raise_is_raised() -> None:
    pieces = [0, 0]

    def work(place: int) -> None:
        pieces[place] += 1
        time.sleep(0.002)

    found = throughput([partial(work, 0), partial(work, 1)], 1.0, 0.05, "sleep")
    assert min(pieces) >= 4 and found.way == "sleep"
    assert 0 < found.worst <= found.median <= found.best <= 2 / 0.002

    def broken() -> None:
        raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match="no such kernel"):
        throughput([partial(work, 0), broken], 1.0, 0.05)


def test_ways_that_a_machine_has_not_are_left_out() -> None:
    def missing(size: int) -> object:
        raise NotImplementedError

    def there(size: int) -> object:
        return partial(time.sleep, size / 1e5)

    assert _matrix(1, [Way("missing", missing)], 0.05) is None
    found = _matrix(1, [Way("missing", missing), Way("there", there)], 0.05)
    assert found is not None and found.way.startswith("there, n = ")


def test_buffers_lie_beyond_the_cache(tmp_path: Path) -> None:
    mib = 1 << 20
    assert buffer_sizes(32 * mib, 64 << 30) == (128 * mib, 256 * mib)
    assert buffer_sizes(32 * mib, 64 << 30, 86 * mib) == (86 * mib, 128 * mib, 256 * mib)
    assert buffer_sizes(32 * mib, 800 * mib, 999 * mib) == (100 * mib,)
    assert buffer_sizes(1 << 30, 1 << 50) == (2 << 30,)
    assert buffer_sizes(512 * mib, 0) == (32 * mib,)
    for place, size in enumerate(("32K", "512K", "2M")):
        (tmp_path / f"index{place}").mkdir()
        (tmp_path / f"index{place}" / "size").write_text(f"{size}\n")
    assert cache_bytes(tmp_path) == 2 * mib
    assert cache_bytes(tmp_path / "none") == 32 * mib


@pytest.mark.filterwarnings("error")
def test_the_calibration_of_this_machine() -> None:
    """float32 against a count of our own: a product timed on one thread cannot beat the best window by much."""
    import torch

    before = torch.get_num_threads()
    found = calibrate(1, budget_s=0.05, weight_bytes=5)
    assert torch.get_num_threads() == before and found.num_threads == 1
    figures = [found.memory_gb_per_s, found.f32_gflops, *(one for one in (found.bf16_gflops, found.int8_gflops) if one)]
    for figure in figures:
        assert 0 < figure.worst <= figure.median <= figure.best and figure.num_tries >= 1 and figure.way
    assert found.fastest("int8") is not None
