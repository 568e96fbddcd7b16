"""The connection pool of the load generator: a free connection or a new one for each request, never a queue.

Only at ``max_connections`` do requests wait, and then the run is invalid (``limit``).
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from octavo.bench.client.connection import Connection
from octavo.bench.client.options import ClientOptions
from octavo.bench.client.response import Receiver
from octavo.bench.client.target import Address, Target
from octavo.errors import ConfigError


class Pending(NamedTuple):
    receiver: Receiver
    data: bytes


def tls_context(target: Target, address: Address) -> ssl.SSLContext | None:
    """None: plain HTTP. Raises ``ConfigError`` if ``ca_file`` cannot be used."""
    if not address.tls:
        return None
    try:
        return ssl.create_default_context(cafile=target.ca_file or None)
    except OSError as error:
        raise ConfigError(f"cannot read the certificates in {target.ca_file}: {error}") from None


class Dialer:
    """Opens connections to one target. Its host is looked up once; the first address that accepts is used from then on."""

    def __init__(self, target: Target, address: Address) -> None:
        self._address = address
        self._uds = target.uds
        self._found: str | None = None
        self._tls = tls_context(target, address)

    async def dial(self, make: Callable[[], Connection]) -> Connection:
        """Raises ``OSError``."""
        loop = asyncio.get_running_loop()
        if self._uds:
            return (await loop.create_unix_connection(make, self._uds))[1]
        address = self._address
        name = address.host if self._tls else None
        host = self._found or address.host
        transport, connection = await loop.create_connection(
            make, host, address.port, ssl=self._tls, server_hostname=name
        )
        if self._found is None and (peer := transport.get_extra_info("peername")):
            self._found = peer[0]
        return connection


class ConnectionPool:
    """Owns the connections; tells ``on_ended`` of each receiver that is through."""

    def __init__(
        self,
        dialer: Dialer,
        options: ClientOptions,
        clock: Callable[[], float],
        on_ended: Callable[[Receiver], None],
    ) -> None:
        self._then = on_ended
        self._dialer = dialer
        self._options = options
        self._clock = clock
        self._idle: list[Connection] = []  # the one used last is used next, so that others may age and go
        self._busy: dict[Receiver, Connection] = {}
        self._pending: deque[Pending] = deque()  # each has a connection being opened for it, up to the limit
        self._sent: dict[Receiver, bytes] = {}  # on connections that were idle: they may have to be sent again
        self._dialing: set[asyncio.Task[None]] = set()
        self._closed = False
        self.num_open = 0
        self.most_open = 0
        self.limit: str | None = None  # what kept a request from being sent in time
        self.unreachable_since_s: float | None = None  # no connection could be opened since
        self.last_failure = ""

    def submit(self, receiver: Receiver, data: bytes) -> None:
        """Send ``data`` for ``receiver``, at once or as soon as a new connection stands."""
        if self._idle:
            self._sent[receiver] = data
            self._give(self._idle.pop(), Pending(receiver, data), was_idle=True)
            return
        self._pending.append(Pending(receiver, data))
        self._dial()

    def drop(self, receiver: Receiver) -> None:
        """Nothing more is wanted for ``receiver``; its connection is closed, which tells the server."""
        self._sent.pop(receiver, None)
        if (connection := self._busy.pop(receiver, None)) is not None:
            connection.close()

    def tick(self, now_s: float) -> None:
        """Close what was idle for too long, keep spare connections open, keep knocking at a server that is away."""
        old_s = now_s - self._options.keep_alive_s
        while self._idle and self._idle[0].idle_since_s < old_s:
            self._idle[0].close()
        wanted = self._options.spare_connections if self.unreachable_since_s is None else 1
        for _ in range(wanted - len(self._idle) - len(self._dialing)):
            if not self._dial():
                break

    async def warm(self, num_connections: int) -> None:
        """Open so many connections before the run starts."""
        while len(self._idle) < num_connections and self._dial():
            if len(self._idle) + len(self._dialing) >= num_connections or len(self._dialing) >= 64:
                await asyncio.gather(*self._dialing)
                if self.unreachable_since_s is not None or self.limit:
                    return

    def close(self) -> None:
        self._closed = True
        for task in self._dialing:
            task.cancel()
        for connection in [*self._idle, *self._busy.values()]:
            connection.close()
        self._busy.clear()

    # connections

    def on_free(self, connection: Connection) -> None:
        if connection.has_served and self._options.keep_alive_s <= 0:
            connection.close()
            return
        while self._pending:
            pending = self._pending.popleft()
            if not pending.receiver.ended:
                if self.limit:
                    pending.receiver.postponed(self._clock())
                self._give(connection, pending, was_idle=False)
                return
        self._idle.append(connection)

    def on_closed(self, connection: Connection) -> None:
        self.num_open -= 1
        if connection in self._idle:
            self._idle.remove(connection)
        if len(self._pending) > len(self._dialing) and not self._closed:
            self._dial()

    def on_ended(self, receiver: Receiver) -> None:
        self._busy.pop(receiver, None)
        self._sent.pop(receiver, None)
        self._then(receiver)

    def on_stale(self, receiver: Receiver) -> None:
        self._busy.pop(receiver, None)
        data = self._sent.pop(receiver)
        self._pending.appendleft(Pending(receiver, data))
        self._dial()

    def _give(self, connection: Connection, pending: Pending, *, was_idle: bool) -> None:
        self._busy[pending.receiver] = connection
        connection.send(pending.data, pending.receiver, was_idle=was_idle)

    def _dial(self) -> bool:
        """Begin to open a connection; False at the limit."""
        if self.num_open + len(self._dialing) >= self._options.max_connections:
            if self._pending:
                self.limit = f"all {self._options.max_connections} connections were in use"
            return False
        task = asyncio.get_running_loop().create_task(self._open())
        self._dialing.add(task)
        task.add_done_callback(self._dialing.discard)
        return True

    async def _open(self) -> None:
        connection = Connection(self, self._clock)
        try:
            await self._dialer.dial(lambda: connection)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self.limit = "the system allows no more open files (ulimit -n)"
            elif self.unreachable_since_s is None:
                self.unreachable_since_s = self._clock()
            self._could_not_open(f"cannot connect: {error.strerror or error}")
            return
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        if connection.closed:
            self._could_not_open("the server closes connections at once")
            return
        self.unreachable_since_s = None
        if self._closed:
            connection.close()
        else:
            self.on_free(connection)

    def _could_not_open(self, reason: str) -> None:
        """One request fails for it: as many connections are opened as requests wait."""
        self.last_failure = reason
        while self._pending:
            receiver = self._pending.popleft().receiver
            if not receiver.ended:
                receiver.lost(reason, self._clock())
                self.on_ended(receiver)
                return
