"""The listening socket of the server, bound before anything is loaded: a taken port is one clear, early error."""

from __future__ import annotations

import errno
import socket

from octavo.errors import ConfigError

BACKLOG = 2048


def bind(host: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises ``ConfigError`` if the address is taken, unknown or forbidden."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ConfigError(f"host {host!r}: {error.strerror}", param="host") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(_why(error, host, port), param="port") from None
    listener.setblocking(False)
    return listener


def url(listener: socket.socket) -> str:
    """The address to open, with the real port."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _why(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is in use; stop what listens there or choose another with --port (0: any free one)"
        )
    if error.errno == errno.EACCES:
        return f"port {port} on {host} is not allowed for this user; choose one of 1024..65535 with --port"
    return f"cannot listen on {host} port {port}: {error.strerror or error}"
