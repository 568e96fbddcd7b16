"""The server's Prometheus metrics: in full before and after a run, a few gauges each second between."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client.parser import text_string_to_metric_families

from octavo.bench.client.connection_pool import ConnectionPool, Dialer
from octavo.bench.client.options import ClientOptions
from octavo.bench.client.response import Page, Receiver
from octavo.bench.client.target import RequestWriter

# column -> its names in the field: octavo, vLLM, SGLang, llama.cpp
GAUGES: Mapping[str, tuple[bytes, ...]] = {
    "running": (
        b"octavo_num_requests_running",
        b"vllm:num_requests_running",
        b"sglang:num_running_reqs",
        b"llamacpp:requests_processing",
    ),
    "waiting": (
        b"octavo_num_requests_waiting",
        b"vllm:num_requests_waiting",
        b"sglang:num_queue_reqs",
        b"llamacpp:requests_deferred",
    ),
    "kv_usage": (
        b"octavo_kv_cache_usage_ratio",
        b"vllm:kv_cache_usage_perc",
        b"vllm:gpu_cache_usage_perc",
        b"sglang:token_usage",
        b"llamacpp:kv_cache_usage_ratio",
    ),
}
NOT_ITS_OWN = ("python_", "process_")
TOO_MANY = ("_bucket", "_created")


def gauges(page: bytes) -> dict[str, float]:
    """The columns of ``GAUGES`` that the page has. Searched for, not parsed: a page may be 200 KB. Several engines behind
    one server: requests are added, the fullest cache counts."""
    found: dict[str, float] = {}
    text = b"\n" + page
    for column, names in GAUGES.items():
        for name in names:
            values = _values(text, name)
            if values:
                found[column] = max(values) if column == "kv_usage" else sum(values)
                break
    return found


def _values(text: bytes, name: bytes) -> list[float]:
    """The samples of one gauge."""
    values = []
    at = text.find(b"\n" + name)
    while at >= 0:
        start, end = at + 1 + len(name), text.find(b"\n", at + 1)
        line = text[start : end if end >= 0 else len(text)]
        if line[:1] in (b" ", b"{"):  # else another, longer name
            fields = line[line.rfind(b"}") + 1 :].split()
            try:
                values.append(float(fields[0]))
            except (ValueError, IndexError):
                return []
        at = text.find(b"\n" + name, start)
    return values


def snapshot(page: str) -> dict[str, float]:
    """Every counter and gauge of a page, and the sums and counts of its histograms: ``name{label="x"}`` -> value. Empty if it
    is not a Prometheus page."""
    try:
        return {
            _key(sample.name, sample.labels): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if not sample.name.endswith(TOO_MANY) and not sample.name.startswith(NOT_ITS_OWN)
        }
    except ValueError:
        return {}


def _key(name: str, labels: dict[str, str]) -> str:
    inside = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{inside}}}" if inside else name


class Scraper:
    """A row of the timeline each interval, on a connection of its own; what the client has in flight is always in it."""

    def __init__(
        self, dialer: Dialer, writer: RequestWriter, options: ClientOptions, clock: Callable[[], float]
    ) -> None:
        self._pool = ConnectionPool(dialer, options, clock, self._on_ended)
        self._get = writer.get("/metrics")
        self._interval_s = options.scrape_interval_s
        self._next_s = 0.0
        self._asked: Page | None = None
        self.offered = False  # set once the server has shown that it has such a page
        self.series: list[dict[str, float]] = []

    def tick(self, now_s: float, in_flight: int) -> None:
        if self._interval_s <= 0 or now_s < self._next_s:
            return
        self._next_s = max(self._next_s + self._interval_s, now_s)
        row = {"t_s": round(now_s, 3), "in_flight": float(in_flight)}
        self.series.append(row)
        if self.offered and self._asked is None:
            self._asked = Page(lambda page: row.update(gauges(page or b"")))
            self._pool.submit(self._asked, self._get)

    def close(self) -> None:
        self._pool.close()

    def _on_ended(self, receiver: Receiver) -> None:
        self._asked = None
