"""Names of files on the Hugging Face Hub: `hub:owner/name@revision`, and
`hub:owner/name@revision/path/file.jsonl` in a data set.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from jaxsft.errors import ConfigError

PREFIX = "hub:"
MOVING = ("main", "master", "HEAD")
PATIENCE = 3.0  # seconds to ask the hub for what an error may add
_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/@]+))?(?:/(?P<path>.+))?")


class HubId(NamedTuple):
    """`path` is a file of a data set; empty for a model or a tokenizer."""

    repo: str
    revision: str
    path: str

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}@{self.revision}" + (f"/{self.path}" if self.path else "")


def is_hub(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(PREFIX)


def _current(repo: str, *, data: bool) -> str:
    """Returns the commit of a repository's main branch; "" where the hub cannot be asked."""
    try:
        import huggingface_hub

        return str(
            huggingface_hub.HfApi()
            .repo_info(repo, repo_type="dataset" if data else "model", timeout=PATIENCE)
            .sha
            or ""
        )
    except Exception:  # it only adds to a message: no library, no network, no such repository
        return ""


def parse(value: str, *, file: bool) -> HubId:
    """Parses the name of a repository, or, under `file`, of a file in a data set.

    Raises:
      ConfigError: not such a name; no revision, or the main branch, so that the same command would
        read something else tomorrow.
    """
    expected = f"{PREFIX}owner/name@revision" + ("/path/file.jsonl" if file else "")
    match = _NAME.fullmatch(value.removeprefix(PREFIX))
    if not match or {".", ".."} & set(re.split("[/@]", value.removeprefix(PREFIX))):
        raise ConfigError(f"{value}: expected {expected}")
    if match["revision"] is None or match["revision"] in MOVING:
        found = f"@{match['revision']} moves" if match["revision"] else "no revision"
        commit = _current(match["repo"], data=file)
        now = f"; its commit is now {commit}" if commit else ""
        raise ConfigError(
            f"{value}: {found}; expected {expected}, with a tag or, better, a commit{now}"
        )
    if file != bool(match["path"]):
        raise ConfigError(
            f"{value}: {'names no file' if file else 'names a file'}; expected {expected}"
        )
    return HubId(match["repo"], match["revision"], match["path"] or "")
