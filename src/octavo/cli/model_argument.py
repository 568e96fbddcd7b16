"""The MODEL argument of commands: lookup, download with a progress bar, consistency with ``--executor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octavo.config import EngineConfig
from octavo.errors import ConfigError

if TYPE_CHECKING:
    from octavo.models.registry import LocalModel

FAKE = "fake"


def reconcile(model: str | None, config: EngineConfig, default: str) -> tuple[str, EngineConfig]:
    """The model's name and the config that goes with it. The model ``fake`` and the executor ``fake`` need each other.

    Raises ``ConfigError`` if one of them is fake and the other was asked to be real, ``MissingPackageError`` for an executor that
    is not installed.
    """
    if config.executor == FAKE and model not in (None, FAKE):
        raise ConfigError(f"executor = fake runs no model, but {model} was asked for; leave out one of them")
    if model == FAKE and config.executor not in ("auto", FAKE):
        raise ConfigError(
            f"the model fake has no weights to run on executor = {config.executor}; leave out one of them"
        )
    if FAKE in (model, config.executor):
        import msgspec

        return FAKE, msgspec.structs.replace(config, executor=FAKE)
    from octavo.engine.resolve import check_installed

    check_installed(config)
    return model or default, config


def fetch(name: str, *, verify: bool = False) -> LocalModel:
    """Find the model on this machine, fetching it if need be, with progress on stderr. Raises ``ModelError``."""
    from octavo.cli.output import FetchProgress
    from octavo.models.registry import find_model

    with FetchProgress() as progress:
        return find_model(name, progress=progress, verify=verify)
