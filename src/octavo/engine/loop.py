"""The command loop around ``Engine.step``: take commands, step while there is work, sleep while there is none.

It runs in the main thread of an engine process (``process.py``) and in a thread of this one (``local_client.py``).
"""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Protocol

from octavo.engine.messages import Abort, FromEngine, Refused, Report, Shutdown, Start, Submit, ToEngine, refusal

if TYPE_CHECKING:
    from octavo.engine.core import Engine

Command = ToEngine | Refused  # Refused: a Submit that could not be read, on its way back


class Outlet(Protocol):
    """Where the loop's messages go."""

    def send(self, message: FromEngine) -> None:
        """Pass it on soon; in order, and without waiting for a slow reader if possible."""
        ...

    def flush(self) -> None:
        """The loop is about to sleep: pass on what still waits."""
        ...


def run_loop(engine: Engine, commands: queue.SimpleQueue[Command], outlet: Outlet) -> None:
    """Until ``Shutdown``. Mutates ``engine``; ``outlet`` gets a ``Report`` after every step.

    An exception of ``step`` goes up: the engine's books can no longer be trusted, so its owner must end it.
    """
    while _take_commands(engine, commands, outlet):
        if engine.has_work:
            report = engine.step()
            outlet.send(Report(report.events, report.stats))


def _take_commands(engine: Engine, commands: queue.SimpleQueue[Command], outlet: Outlet) -> bool:
    """Handle all that waits; without work, sleep until something comes. False after ``Shutdown``."""
    while True:
        idle = not engine.has_work
        if idle and commands.empty():
            outlet.flush()
        try:
            command = commands.get(block=idle)
        except queue.Empty:
            return True
        match command:
            case Submit(submission):
                try:
                    engine.submit(submission)
                except Exception as error:  # answered, not swallowed: one bad request must not end the others
                    outlet.send(refusal(submission.request_id, error))
            case Abort(request_id):
                engine.abort(request_id)
            case Refused():
                outlet.send(command)
            case Shutdown():
                return False
            case Start():
                raise RuntimeError("Start came twice")
