"""What a config says of its files, without reading their rows: whether they are there, which
columns the task reads, and the splits of a prepared set. Nothing here needs JAX.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from jaxsft import remote
from jaxsft.config.schema import Config
from jaxsft.data import formats, prepared
from jaxsft.data import records as typed
from jaxsft.errors import ConfigError


def check_files(config: Config) -> None:
    """Raises DataError for a file that is not there, before JAX is imported, which takes
    seconds."""
    d = config.data
    for place in (
        d.path,
        d.train,
        d.validation,
        d.test,
        *(source.path for source in d.mixture.sources),
    ):
        if (
            place
            and not place.startswith("hub:")
            and not remote.is_remote(place)
            and not os.path.exists(place)
        ):
            formats.files(place)  # a pattern, a part of an archive, or an error


def check_columns(config: Config) -> None:
    """Raises ConfigError for an option of data.columns that the task's records never read."""
    read = typed.columns_read(config.task.spec.records)
    # which the evaluation reads
    read = {*read, "cluster", *(["schema"] if config.task.spec.generates else [])}
    unread = [name for name in prepared.told(config.data.columns) if name not in read]
    if unread:
        raise ConfigError(
            f"data.columns.{unread[0]}: task={config.task.name} never reads it; it reads"
            f" {', '.join(sorted(read))}"
        )


def of_prepared(config: Config, read: Sequence[str] | None = None) -> Config:
    """Returns the config with the splits of a prepared set in place of its `data.path`.

    Columns that are not given are those of the preparation, of which only those in `read` are taken
    (None: all). Raises ConfigError where splits are given too.
    """
    d = config.data
    if not d.path or (found := prepared.manifest(d.path)) is None:
        return config
    if given := [name for name in prepared.SPLITS if getattr(d, name)]:
        raise ConfigError(
            f"data.path={d.path} is a prepared set with its own splits and excludes"
            f" data.{', data.'.join(given)}"
        )
    d = dataclasses.replace(
        d,
        columns=prepared.columns(found, d.columns, read),
        path=None,
        **prepared.paths(d.path, found),
    )
    return dataclasses.replace(config, data=d)
