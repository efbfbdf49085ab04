"""Files from the Hugging Face Hub, by name and revision, through its local cache.

They are read as data; no code of a repository ever runs.

Only the files named here are fetched. What the cache holds needs no network; HF_HOME, HF_ENDPOINT,
HF_TOKEN and HF_HUB_OFFLINE mean what they mean everywhere.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsft.config.hubid import PREFIX, HubId, is_hub, parse
from jaxsft.data import template_files
from jaxsft.data.tokenizers import files as tokenizer_files
from jaxsft.errors import ConfigError, DataError, first_line
from jaxsft.extras import need

# What is read of a run directory, and of a model of transformers.
RUN = (
    "config.yaml",
    "manifest.json",
    "steps.json",
    "task.json",
    "prepared.json",
    "pretrained.json",
    "label_names.json",
)
CONFIGS = ("config.yaml", "config.json")
RUN += ("tokenizer/*.json", "checkpoints/*")
MODEL = (
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
)
TOKENIZER = (
    *tokenizer_files.NAMES,
    *tokenizer_files.BESIDE,
    f"{template_files.FURTHER}/*.jinja",
    "tokenizer/*.json",
)


_REPOSITORY = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*", re.ASCII)
# Endings of files: a name with one of them is a path.
FILES = (
    ".csv",
    ".tsv",
    ".txt",
    ".json",
    ".jsonl",
    ".gz",
    ".zip",
    ".parquet",
    ".arrow",
    ".conll",
    ".conllu",
    ".xml",
    ".md",
    ".html",
    ".yaml",
)


def hint(value: str | Path, *, file: bool) -> str:
    """Returns the hint for a missing path that could be a Hub repository: its name; else ""."""
    name = str(value)
    owner = name.rpartition("/")[0]
    if (
        len(name) > 96
        or not _REPOSITORY.fullmatch(name)
        or Path(name).suffix.lower() in FILES
        or (owner and Path(owner).exists())
    ):
        return ""
    if not owner and not re.search(r"\d|[A-Za-z]-[A-Za-z]|[A-Za-z]{4}", name):
        return ""
    what = "a file of a data set" if file else "a model"
    place = f"{PREFIX}{name if owner else f'OWNER/{name}'}@REVISION{'/FILE' if file else ''}"
    return f"; {what} of the Hugging Face Hub is named {place}, and needs jaxsft[hub]"


def _not_there(path: str | Path, what: str) -> None:
    """Raises ConfigError where there is no such folder, and the name could be one of the hub."""
    if (more := hint(path, file=False)) and not os.path.exists(path):
        raise ConfigError(f"{path}: {what} (there is no such folder){more}")


def data_file(path: str | Path) -> Path:
    """Returns the local path of a data file, fetched from the Hub where the path says so.

    A Hub path is `hub:owner/name@revision/path/file.jsonl` of a data set.

    Raises:
      ConfigError: the name is malformed, or huggingface_hub is missing.
      DataError: no such data set, revision or file; or no network and no copy in the cache.
    """
    return _data_file(parse(path, file=True)) if is_hub(path) else Path(path)


def run_dir(path: str | Path) -> str | Path:
    """Returns a run directory or a Hugging Face model folder, fetched from the Hub if need be.

    A Hub name is `hub:owner/name@revision`; any other name is returned as it is.

    Raises:
      ConfigError: as `data_file`, or it is neither; or there is no such folder, and the name could
        be one of the hub.
    """
    if not is_hub(path):
        _not_there(path, "not a run directory")
        return path
    name = parse(str(path), file=False)
    # which of the two it is, before anything large is fetched
    folder = _snapshot(name, CONFIGS)
    if (folder / "config.json").is_file() and not (folder / "config.yaml").is_file():
        return _snapshot(name, (*MODEL, *TOKENIZER))
    folder = _snapshot(name, RUN)
    if missing := [
        part
        for part in ("config.yaml", "task.json", "tokenizer/tokenizer.json", "checkpoints")
        if not (folder / part).exists()
    ]:
        raise ConfigError(
            f"{name}: not a run directory of jaxsft (it has no {missing[0]}), and no model of"
            " transformers (it has no config.json)"
        )
    return folder


def config_dir(path: str | Path) -> str | Path:
    """Returns a folder with the config of a run or of a model; of the Hub nothing else is fetched.

    Raises ConfigError as `run_dir`.
    """
    if not is_hub(path):
        return run_dir(path)
    return _snapshot(parse(str(path), file=False), CONFIGS)


def tokenizer_dir(path: str | Path) -> str | Path:
    """Returns a folder with a vocabulary or a run directory, fetched from the Hub if need be.

    A Hub name is `hub:owner/name@revision`; any other name is returned as it is. Raises
    ConfigError.
    """
    if not is_hub(path):
        _not_there(path, "no tokenizer")
        return path
    name = parse(str(path), file=False)
    folder = _snapshot(name, TOKENIZER)
    if not any(tokenizer_files.there(part) for part in (folder, folder / "tokenizer")):
        raise ConfigError(f"{name}: it has no tokenizer.json")
    return folder


READ = (
    *(f"data.{name}" for name in ("train", "validation", "test", "path")),
    "tokenizer.path",
    "model.pretrained",
    "train.init_from",
)


def commits(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns the commit that was read for every Hub name in a flat config.

    They are all in the cache by now.
    """
    out = {}
    for key, value in values.items():
        if is_hub(value) and key in READ:
            local = (
                data_file(value)
                if key.startswith("data.")
                else tokenizer_dir(value)
                if key.startswith("tokenizer.")
                else run_dir(value)
            )
            parts = Path(local).parts
            # .../snapshots/<commit>/...
            out[value] = parts[len(parts) - 1 - parts[::-1].index("snapshots") + 1]
    return out


@functools.lru_cache(maxsize=64)
def _data_file(name: HubId) -> Path:
    with _friendly(name, DataError):
        import huggingface_hub

        return Path(
            huggingface_hub.hf_hub_download(
                name.repo, name.path, repo_type="dataset", revision=name.revision
            )
        )


@functools.lru_cache(maxsize=64)
def _snapshot(name: HubId, files: Sequence[str]) -> Path:
    with _friendly(name, ConfigError):
        import huggingface_hub

        return Path(
            huggingface_hub.snapshot_download(
                name.repo, revision=name.revision, allow_patterns=list(files)
            )
        )


@contextlib.contextmanager
def _friendly(name: HubId, kind: type[ConfigError | DataError]) -> Iterator[None]:
    """Raises the errors of huggingface_hub as one sentence each."""
    errors = need("huggingface_hub.errors", str(name), "hub")
    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        raise kind(
            f"{name}: there is no copy in the cache and the hub cannot be reached; fetch it once"
            f" with a network ({first_line(error)})"
        ) from None
    except errors.GatedRepoError:
        raise kind(
            f"{name}: access must be granted first; ask for it on the page of {name.repo}, and"
            " log in"
        ) from None
    except errors.RepositoryNotFoundError:
        raise kind(
            f"{name}: there is no {name.repo}, or it is private and you are not logged in"
        ) from None
    except errors.RevisionNotFoundError:
        raise kind(f"{name}: {name.repo} has no revision {name.revision}") from None
    except errors.EntryNotFoundError:
        raise kind(f"{name}: {name.repo} has no file {name.path} at {name.revision}") from None
    except (
        errors.HTTPError,
        errors.HFValidationError,
        errors.RevisionResolutionError,
        OSError,
        ValueError,
    ) as error:
        raise kind(f"{name}: cannot be fetched ({first_line(error)})") from None
