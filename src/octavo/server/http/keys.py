"""API keys from a file, compared in constant time; each key is a tenant of its own."""

from __future__ import annotations

import hmac
import logging
import stat
from hashlib import sha256
from pathlib import Path

from octavo.errors import AuthenticationError, ConfigError

MIN_KEY_CHARS = 8
_log = logging.getLogger(__name__)


class ApiKeys:
    """A set of keys, kept only as digests. Empty: everybody may ask, and there is one tenant."""

    def __init__(self, keys: tuple[str, ...] = ()) -> None:
        self._digests = tuple(sha256(key.encode()).digest() for key in keys)

    @property
    def required(self) -> bool:
        """There is a key, so every request needs one."""
        return bool(self._digests)

    def tenant(self, authorization: bytes, x_api_key: bytes) -> str:
        """The stable id of the key in ``Authorization: Bearer KEY`` or ``x-api-key: KEY``.

        Raises ``AuthenticationError``. Every stored key is compared, in a time that does not depend on which one fits.
        """
        if not self.required:
            return ""
        scheme, _, bearer = authorization.partition(b" ")
        key = bearer.strip() if scheme.lower() == b"bearer" else x_api_key.strip()
        if not key:
            raise AuthenticationError("no API key; send it as 'Authorization: Bearer KEY'")
        digest = sha256(key).digest()
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(known, digest)
        if not found:
            raise AuthenticationError("wrong API key")
        # Salted, so that the id that travels with requests is no digest of the key itself.
        return sha256(b"octavo tenant\0" + key).hexdigest()[:16]


def load_api_keys(file: str) -> ApiKeys:
    """Keys from ``file``, one a line; blank lines and lines that begin with # are skipped. "" means no keys needed.

    Raises ``ConfigError`` if the file cannot be read, can be changed by other users, or holds no usable key.
    """
    if not file:
        return ApiKeys()
    path = Path(file)
    try:
        mode = path.stat().st_mode
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"api_key_file {file}: {why}", param="api_key_file") from None
    shown = f"{stat.S_IMODE(mode):o}"
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"api_key_file {file}: mode {shown} lets other users change it; run chmod 600 {file}", param="api_key_file"
        )
    if mode & stat.S_IROTH:  # what a mounted Kubernetes secret looks like by default
        _log.warning("api_key_file %s: mode %s lets every user of this machine read it", file, shown)
    keys = tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    if not keys:
        raise ConfigError(f"api_key_file {file}: holds no key; expected one a line", param="api_key_file")
    for number, key in enumerate(keys, 1):
        if len(key) < MIN_KEY_CHARS or not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError(
                f"api_key_file {file}: key {number} is unusable; expected at least {MIN_KEY_CHARS} printable ASCII "
                "characters without spaces",
                param="api_key_file",
            )
    return ApiKeys(keys)
