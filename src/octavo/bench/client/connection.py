"""One HTTP/1.1 connection: bytes out, the parts of a response in. One request at a time, many one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from octavo.bench.client.response import Receiver


class Owner(Protocol):
    """Who keeps connections. Called last, when the connection has finished with the receiver."""

    def on_free(self, connection: Connection) -> None:
        """It can take the next request."""
        ...

    def on_closed(self, connection: Connection) -> None: ...

    def on_ended(self, receiver: Receiver) -> None:
        """Nothing more will come for ``receiver``."""
        ...

    def on_stale(self, receiver: Receiver) -> None:
        """The server closed an idle connection just as it was used again: to be sent once more on a new one."""
        ...


class Connection(asyncio.Protocol):
    """Also the listener of its httptools parser, whose callbacks are the ``on_*`` methods."""

    def __init__(self, owner: Owner, clock: Callable[[], float]) -> None:
        self._owner = owner
        self._clock = clock
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._now_s = 0.0
        self._new_head()
        self._whole = False  # the message in progress has come to its end
        self._message_begun = False
        self._keeps_alive = True
        self._was_idle = False
        self.has_served = False
        self.idle_since_s = 0.0
        self.closed = False

    def _new_head(self) -> None:
        self._content_type = ""
        self._has_length = False
        self._head_is_whole = False

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance
        self.idle_since_s = self._clock()

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        self._now_s = self._clock()
        if self._receiver is None and not self._message_begun:
            self.close()  # a server that speaks out of turn, e.g. a 408 before it closes
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._lose(f"not HTTP/1.1: {error}")
            self.close()
            return
        receiver = self._receiver
        if self._whole:
            self._end_message(receiver)
        elif receiver is not None and receiver.ended:  # e.g. [DONE] is here, the end of the message is not yet
            self._receiver = None
            self._owner.on_ended(receiver)

    def _end_message(self, receiver: Receiver | None) -> None:
        self._whole = self._message_begun = False
        self._receiver = None
        self.has_served = True
        if receiver is not None:
            receiver.completed(self._now_s)
        if self._keeps_alive:
            self.idle_since_s = self._now_s
            self._owner.on_free(self)
        else:
            self.close()
        if receiver is not None:
            self._owner.on_ended(receiver)

    def connection_lost(self, exc: Exception | None) -> None:
        self._now_s = self._clock()
        receiver = self._receiver
        if receiver is not None:
            if self._was_idle and not self._message_begun:
                self._receiver = None
                self._close_once()
                self._owner.on_stale(receiver)
                return
            if self._head_is_whole and not self._has_length:
                self._receiver = None
                receiver.completed(self._now_s)  # a body that ends with the connection
                self._close_once()
                self._owner.on_ended(receiver)
                return
        self._lose(f"connection lost: {exc}" if exc else "the server closed the connection")
        self._close_once()

    # httptools

    def on_message_begin(self) -> None:
        self._message_begun = True
        self._new_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == 12 and name.lower() == b"content-type":
            self._content_type = value.decode("latin-1").lower()
        elif (len(name) == 14 and name.lower() == b"content-length") or (
            len(name) == 17 and name.lower() == b"transfer-encoding"
        ):
            self._has_length = True

    def on_headers_complete(self) -> None:
        self._head_is_whole = True
        if self._receiver is not None and (status := self._parser.get_status_code()) >= 200:
            self._receiver.head(status, self._content_type)

    def on_body(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.body(data, self._now_s)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= 200:  # not "100 Continue"
            self._whole = True
            self._keeps_alive = self._parser.should_keep_alive()

    # the pool

    def send(self, data: bytes, receiver: Receiver, *, was_idle: bool) -> None:
        assert self._transport is not None and self._receiver is None
        self._was_idle = was_idle
        self._receiver = receiver
        self._transport.write(data)

    def close(self) -> None:
        """Drop the connection and whatever is in flight on it, without a word to the receiver."""
        self._receiver = None
        if self._transport is not None:
            self._transport.abort()
        self._close_once()

    def _lose(self, reason: str) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost(reason, self._now_s)
            self._owner.on_ended(receiver)

    def _close_once(self) -> None:
        if not self.closed:
            self.closed = True
            del (
                self._parser
            )  # it holds our methods: without garbage collection (see run.py) neither would ever be freed
            self._owner.on_closed(self)
