"""The README's own commands, run as a reader would: every ``octavo`` line that ends by itself."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
ENDS_BY_ITSELF = ("generate", "models", "doctor", "--version", "--help")


def commands() -> list[str]:
    """Lines ``octavo ...`` of the shell blocks, without a prompt and without a comment at the end."""
    blocks = re.findall(
        r"^```(?:bash|sh|console|shell)\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    lines = [line.removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines if line.startswith("octavo ")]
    mine = [
        one for one in words if one[1] in ENDS_BY_ITSELF and not any("hf://" in word or "|" in word for word in one)
    ]
    return list(dict.fromkeys(shlex.join(one) for one in mine))


@pytest.mark.real_model
@pytest.mark.timeout(600)
@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_readme_runs(command: str) -> None:
    arguments = shlex.split(command)[1:]
    done = subprocess.run(
        [sys.executable, "-m", "octavo.cli.main", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
