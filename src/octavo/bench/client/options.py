"""Settings of the load generator: timeouts, connections, and the limits beyond which a run is invalid."""

from __future__ import annotations

import msgspec


class ClientOptions(msgspec.Struct, frozen=True, kw_only=True):
    request_timeout_s: float = 600.0  # from the intended send time; beyond it a request is TIMED_OUT
    max_connections: int = 4096  # needing more makes the run invalid: requests would queue in the client
    # Kept open ahead, so that connecting is rarely part of a latency. Not by default: in a server with a thread for each
    # connection (llama-server) they take threads from requests.
    spare_connections: int = 0
    # An idle connection older than this is not used again (uvicorn closes after 5 s); 0: a new one for each request.
    keep_alive_s: float = 4.0
    spin_s: float = 0.001  # the last stretch before a send is polled: the loop's timers tick in milliseconds
    server_gone_after_s: float = 2.0  # no connection for so long, though tried: the server is gone and the run ends
    continuous_usage: bool = False  # ask for the token count in each chunk (vLLM's name; others may refuse it)
    scrape_interval_s: float = 1.0  # of the server's /metrics; 0: never
    journal: str | None = None  # records are appended to this file as requests end
    # A run is invalid beyond these:
    max_lag_p99_s: float = 0.005  # send lag, 99th percentile, or
    max_lag_ttft_share: float = 0.05  # this share of the median TTFT, if that is more
    max_stall_s: float = 0.25  # one time in which the client's event loop stood still
    max_stall_share: float = 0.02  # all of them, as a share of the run
