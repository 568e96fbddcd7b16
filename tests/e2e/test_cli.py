"""The installed ``octavo`` command in processes of its own: what it prints, what it imports, how it leaves."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from support.server_process import ServerProcess

OCTAVO = (sys.executable, "-m", "octavo.cli.main")
HEAVY = ("torch", "starlette", "transformers", "huggingface_hub", "tokenizers", "httpx", "numpy")
PROMPT = r"\r\n\r\n> "
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in ("OCTAVO_LOG", "FORCE_COLOR", "COLUMNS")}


def octavo(*arguments: str, text_in: str = "", timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*OCTAVO, *arguments], input=text_in, capture_output=True, text=True, timeout=timeout_s, env=ENVIRONMENT
    )


def heed_interrupts() -> None:
    """A shell's background job ignores SIGINT, and its children inherit that; on a terminal nobody does."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A command on a terminal of its own; what it shows is collected. It is gone after the ``with``."""

    def __init__(self, *arguments: str) -> None:
        self._fd, other = pty.openpty()
        self.process = subprocess.Popen(
            [*OCTAVO, *arguments],
            stdin=other,
            stdout=other,
            stderr=other,
            env={**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "100"},
            start_new_session=True,
            preexec_fn=heed_interrupts,
        )
        os.close(other)
        self.shown = ""
        self._seen = 0

    def wait_for(self, pattern: str, timeout_s: float = 60.0) -> None:
        """Until ``pattern`` has been shown after what was found before."""
        deadline_s = time.monotonic() + timeout_s
        while not (found := re.search(pattern, self.shown[self._seen :], re.DOTALL)):
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, f"{pattern!r} not shown in {self.shown!r}"
            if select.select([self._fd], [], [], left_s)[0]:
                self.shown += os.read(self._fd, 4096).decode(errors="replace")
        self._seen += found.end()

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def exit_code(self) -> int:
        return self.process.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._fd)


def imported_by(code: str) -> set[str]:
    """The heavy modules that are loaded after ``code``."""
    script = f"import sys\n{code}\nprint('loaded:', *(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["serve", "--help"], ["models", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert imported_by(f"from octavo.cli.main import run\nassert run({arguments!r}) == 0") == set()


def test_the_library_facade_is_lazy() -> None:
    assert imported_by("import octavo\nassert octavo.SamplingParams and octavo.__version__") == set()


def test_the_server_process_never_imports_torch() -> None:
    loaded = imported_by("import octavo.cli.serve, octavo.server.run, octavo.models.registry, octavo.text.tokenizer")
    assert "torch" not in loaded
    assert "transformers" not in loaded


def test_the_engine_process_does_not_import_the_server() -> None:
    loaded = imported_by("import octavo.engine.process, octavo.engine.build, octavo.executor.torch_executor")
    assert "torch" in loaded
    assert not loaded & {"starlette", "transformers", "httpx"}


def test_version_and_help() -> None:
    version = octavo("--version")
    assert (version.returncode, version.stderr) == (0, "")
    assert re.fullmatch(r"octavo \d+\.\d+\.\d+\n", version.stdout)
    bare = octavo()
    assert bare.returncode == 0
    assert all(command in bare.stdout for command in ("serve", "generate", "chat", "models", "doctor"))
    assert "\x1b" not in bare.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["serve", "no-such-model"], 1, "no model 'no-such-model'"),
        (["serve", "--num-block", "3"], 2, "--num-blocks"),
        (["serve", "--port", "99999"], 2, "port = 99999: expected int <= 65535"),
        (["serve", "fake", "--max-step-tokens", "1"], 2, "max_num_running"),
        (["serve", "fake", "--api-key-file", "/no/such/file"], 2, "/no/such/file"),
        (["serve", "fake", "--host", "no.such.host.invalid"], 2, "no.such.host.invalid"),
        (["generate", "--model", "fake", "--max-tokens", "99999", "hi"], 2, "99999"),
        (["generate", "--model", "fake", "--min-tokens", "-1", "hi"], 2, "min_tokens = -1"),
        (["models", "show", "/no/such/model.gguf"], 1, "/no/such/model.gguf"),
    ],
)
def test_errors_are_one_line_and_no_traceback(arguments: list[str], code: int, message: str) -> None:
    done = octavo(*arguments)
    assert done.returncode == code, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_said() -> None:
    with ServerProcess("--executor", "fake") as server:
        done = octavo("serve", "fake", "--port", server.url.rsplit(":", 1)[1])
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback() -> None:
    done = subprocess.run(
        [*OCTAVO, "serve", "no-such-model", "--explain"],
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, "OCTAVO_LOG": "debug"},
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_reader_that_leaves_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m octavo.cli.main generate --model fake --ignore-eos --max-tokens 8000 hi | head -c 20",
        shell=True,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=60,
    )
    assert len(done.stdout) > 10
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_interrupt_while_generating_leaves_quietly() -> None:
    with Terminal("generate", "--model", "fake", "--ignore-eos", "--max-tokens", "8000", "hi") as terminal:
        terminal.wait_for(r"w\d+")
        terminal.interrupt()
        assert terminal.exit_code() == 130
        assert "Traceback" not in terminal.shown


def test_a_chat_on_a_terminal() -> None:
    with Terminal("chat", "--model", "fake", "--max-tokens", "6", "--ignore-eos", "--seed", "4") as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("hello\n")
        terminal.wait_for(PROMPT)
        terminal.type("/system be brief\n")
        terminal.wait_for(f"system: be brief{PROMPT}")
        terminal.type("/nonsense\n")
        terminal.wait_for(f"unknown command /nonsense.*{PROMPT}")
        time.sleep(0.5)  # the prompt is shown a moment before readline waits, and only then a signal wakes it
        terminal.interrupt()  # at the prompt: drops the line, stays
        terminal.wait_for(f"Ctrl-D quits.*{PROMPT}")
        terminal.type("/exit\n")
        assert terminal.exit_code() == 0


def test_interrupt_stops_the_answer_and_not_the_chat() -> None:
    with Terminal("chat", "--model", "fake", "--max-tokens", "8000", "--ignore-eos") as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("hello\n")
        terminal.wait_for(r"w\d+")
        terminal.interrupt()
        terminal.wait_for(rf"\(stopped\){PROMPT}")
        terminal.type("\x04")
        assert terminal.exit_code() == 0


def test_chat_with_a_running_server() -> None:
    with ServerProcess("--executor", "fake") as server:
        piped = octavo(
            "chat", "--url", server.url, "--max-tokens", "5", "--ignore-eos", "--seed", "1", text_in="hello\nagain\n"
        )
        assert piped.returncode == 0, piped.stderr
        assert len(piped.stdout) > 2
        same = octavo(
            "chat", "--model", "fake", "--max-tokens", "5", "--ignore-eos", "--seed", "1", text_in="hello\nagain\n"
        )
        assert same.stdout == piped.stdout
        refused = octavo("chat", "--url", server.url, "--model", "gpt-9", text_in="hello\n")
        assert refused.returncode == 1
        assert "gpt-9" in refused.stderr


def test_serve_announces_itself_and_leaves_with_zero() -> None:
    process = subprocess.Popen(
        [*OCTAVO, "serve", "fake", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stdout is not None
    shown = ""
    while "curl" not in shown:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        shown += line
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert re.search(r"http://127\.0\.0\.1:\d+", shown)
    assert "\x1b" not in shown + out
    assert "Traceback" not in err


@pytest.mark.real_model
@pytest.mark.timeout(600)
def test_generate_with_the_default_model() -> None:
    done = octavo(
        "generate", "The capital of France is", "--temperature", "0", "--max-tokens", "8", "--stats", timeout_s=600
    )
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert re.search(r"5 prompt tokens, 8 output tokens, TTFT \d+ ms", done.stderr.splitlines()[-1])


@pytest.mark.real_model
@pytest.mark.timeout(600)
def test_the_default_model_is_known_after_it_is_fetched() -> None:
    path = Path(octavo("models", "pull", "default", timeout_s=600).stdout.strip())
    assert path.is_file()
    rows = json.loads(octavo("models", "list", "--json").stdout)
    assert {row["name"]: row["fetched"] for row in rows}["smollm2-135m-instruct"]
    facts = json.loads(octavo("models", "show", "--json").stdout)
    assert facts["num_parameters"] == 134_515_008
    assert facts["path"] == str(path)
    assert facts["fits"] is True
    said = json.loads(octavo("doctor", "--json").stdout)
    assert said["can_serve"] is True
