"""``octavo``, the console entry point: command dispatch, errors as one line, exit codes.

Exit codes: 0 done, 1 it failed, 2 the command line or a config file is wrong, 130 interrupted. A command's module is
imported only when it is named, and imports heavy rooms only when it runs.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from octavo import __version__
from octavo.errors import ConfigError, InvalidRequestError, OctavoError

COMMANDS = ("serve", "generate", "chat", "models", "bench", "schedule", "kernels", "doctor")
HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
GROUPS = (["models"], ["bench"], ["schedule"], ["kernels"])  # named alone, they show what they hold
EXIT_FAILED = 1
EXIT_USAGE = 2


def main() -> NoReturn:
    """The console script."""
    code = run(sys.argv[1:])
    # Python remembers a KeyboardInterrupt that passed through exec() of a string (a dataclass that is just being made), and
    # under -m ends by SIGINT instead of with our exit code, though it was caught long ago. Another exec() makes it forget.
    exec("")  # noqa: S102
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code."""
    if not arguments or list(arguments) in GROUPS:
        arguments = [*arguments, "--help"]
    try:
        code = build_app(arguments)(args=list(arguments), prog_name="octavo", standalone_mode=False)
    except typer.TyperException as error:  # unknown flag, missing argument, bad value
        context = getattr(error, "ctx", None)
        report(f"{error.format_message().rstrip('.')}; see {context.command_path if context else 'octavo'} --help")
        return EXIT_USAGE
    except OctavoError as error:
        if debugging():
            raise
        report(error.message)
        return EXIT_USAGE if isinstance(error, ConfigError | InvalidRequestError) else EXIT_FAILED
    except OSError as error:
        if debugging():
            raise
        report(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return EXIT_FAILED
    return code if isinstance(code, int) else 0


def build_app(arguments: Sequence[str]) -> typer.Typer:
    """The app with the named command alone, or with all of them for help and for names that do not exist."""
    app = typer.Typer(
        help="Serves large language models.",
        epilog="`octavo serve` serves the default model on http://127.0.0.1:8000; `octavo doctor` checks this machine.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings=HELP,
    )
    app.callback()(_top_level)
    named = next((one for one in arguments if not one.startswith("-")), None)
    for name in (named,) if named in COMMANDS else COMMANDS:
        importlib.import_module(f"octavo.cli.{name}").register(app)
    return app


def report(message: str) -> None:
    """One line on stderr."""
    start = "\033[1;31merror:\033[0m" if sys.stderr.isatty() else "error:"
    print(start, " ".join(message.split()), file=sys.stderr, flush=True)


def debugging() -> bool:
    """``OCTAVO_LOG=debug``: show tracebacks."""
    return os.environ.get("OCTAVO_LOG", "").lower() == "debug"


def _print_version(asked: bool) -> None:
    if asked:
        print(f"octavo {__version__}")
        raise typer.Exit


def _top_level(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Takes what stands before the command."""


if __name__ == "__main__":
    main()
