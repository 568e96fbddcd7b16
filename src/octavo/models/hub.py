"""Hugging Face hub models, ``hf://org/name[@revision][/file.gguf]``, through ``huggingface_hub`` and its own cache.

Only safetensors, GGUF and small text files are fetched; pickled weights and Python code of a repository never are.
"""

from __future__ import annotations

import glob
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octavo.errors import DownloadError, ModelNotFoundError, UnsupportedModelError
from octavo.models.wheels import Progress, silent

PREFIX = "hf://"
WANTED = ["*.safetensors", "*.json", "*.jinja", "*.model", "tokenizer*.txt", "merges.txt", "vocab.txt"]
# Subfolders hold other formats (original/, onnx/, ...); consolidated files repeat the weights in Mistral's own naming.
UNWANTED = ["*/*", "consolidated*", "*.bin", "*.pt", "*.pth", "*.py", "*.pkl"]
_PATTERN = re.compile(
    r"(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[^@\s]+?))?(?:/(?P<file>[\w./ -]+\.gguf))?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class HubReference:
    """A parsed ``hf://`` name. ``file`` is set when one GGUF file of the repository is meant."""

    repo_id: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{PREFIX}{self.repo_id}{revision}{'/' + self.file if self.file else ''}"


def parse_reference(name: str) -> HubReference:
    """Raises ``ModelNotFoundError`` if ``name`` is not of the form ``hf://org/name[@revision][/file.gguf]``."""
    match = _PATTERN.fullmatch(name.removeprefix(PREFIX))
    if not name.startswith(PREFIX) or match is None or ".." in name:
        raise ModelNotFoundError(f"{name!r} is not a hub model; expected hf://org/name[@revision][/file.gguf]")
    return HubReference(match["repo"], match["revision"], match["file"])


def fetch_from_hub(
    reference: HubReference, *, endpoint: str | None = None, cache: Path | None = None, progress: Progress = silent
) -> Path:
    """The local folder (safetensors) or file (GGUF) of a hub model, fetched if it is not in the hub's cache.

    ``endpoint`` and ``cache`` default to huggingface_hub's own (``HF_ENDPOINT``, ``HF_HOME``). Raises
    ``ModelNotFoundError``, ``DownloadError`` or ``UnsupportedModelError`` (no safetensors in the repository).
    """
    import huggingface_hub  # 0.3 s that `octavo --help` and local models do not need
    from huggingface_hub import errors

    stage = f"fetching {reference} from the hub"
    progress(stage, 0, 0)
    try:
        snapshot = huggingface_hub.snapshot_download(
            reference.repo_id,
            revision=reference.revision,
            endpoint=endpoint,
            cache_dir=cache,
            allow_patterns=[glob.escape(reference.file)] if reference.file else WANTED,
            ignore_patterns=None if reference.file else UNWANTED,
            tqdm_class=_reporting_bar(stage, progress),
        )
    except errors.GatedRepoError as error:
        page = f"https://huggingface.co/{reference.repo_id}"
        raise DownloadError(
            f"{reference} is gated: accept its licence at {page}, then log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise ModelNotFoundError(f"the hub has no {reference} (or it is private and HF_TOKEN is not set)") from error
    except errors.LocalEntryNotFoundError as error:
        raise DownloadError(f"cannot reach the hub for {reference}: {_reason(error)}; check the network") from error
    except errors.HFValidationError as error:
        raise ModelNotFoundError(f"{reference} is not a valid repository name: {_reason(error)}") from error
    except Exception as error:  # the library's transports (requests, httpx, xet) have error trees of their own
        raise DownloadError(f"cannot fetch {reference}: {_reason(error)}; try again") from error
    return _checked(Path(snapshot), reference)


def _reporting_bar(stage: str, progress: Progress) -> type[Any]:
    """A tqdm bar that draws nothing and reports bytes; the library's bars for counts of files are ignored."""
    from tqdm.auto import tqdm  # comes with huggingface_hub

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "file": io.StringIO()})

        def display(self, *args: Any, **kwargs: Any) -> bool:
            if self.unit == "B" and self.n and self.total:
                progress(stage, min(int(self.n), int(self.total)), int(self.total))
            return True

    return Bar


def is_on_disk(reference: HubReference) -> bool:
    """Whether a complete copy lies in the hub's cache. No network."""
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            reference.repo_id,
            revision=reference.revision,
            allow_patterns=WANTED,
            ignore_patterns=UNWANTED,
            local_files_only=True,
        )
    except (OSError, ValueError):  # LocalEntryNotFoundError and its relatives
        return False
    return is_complete(Path(folder))


def is_complete(folder: Path) -> bool:
    """A safetensors model whose every shard is there."""
    names = {path.name for path in folder.glob("*.safetensors")}
    if not names or not (folder / "config.json").is_file():
        return False
    shards = [match for name in names if (match := re.fullmatch(r"(.+)-\d+-of-(\d+)\.safetensors", name))]
    return all(
        sum(1 for shard in shards if (shard[1], shard[2]) == (match[1], match[2])) == int(match[2]) for match in shards
    )


def _checked(folder: Path, reference: HubReference) -> Path:
    if reference.file:
        if (folder / reference.file).is_file():
            return folder / reference.file
        raise ModelNotFoundError(f"{reference.repo_id} has no file {reference.file}")
    if is_complete(folder):
        return folder
    raise UnsupportedModelError(
        f"{reference} has no complete set of config.json and *.safetensors; octavo reads safetensors and GGUF only. "
        f"For a GGUF repository name the file: {PREFIX}{reference.repo_id}/<file>.gguf"
    )


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
