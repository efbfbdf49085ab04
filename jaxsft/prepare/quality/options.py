"""Checks the options of a quality card, `config.schema.QualityConfig`."""

from __future__ import annotations

from jaxsft.config.schema import QualityConfig
from jaxsft.errors import ConfigError

LEVELS = ("nominal", "ordinal", "interval", "ratio")


def check(options: QualityConfig) -> None:
    """Raises ConfigError where a value is impossible or two do not go together."""
    if not (
        options.ngram == "auto"
        or (
            isinstance(options.ngram, int)
            and not isinstance(options.ngram, bool)
            and options.ngram >= 1
        )
    ):
        raise ConfigError(
            f"ngram={options.ngram}: expected a number of words of at least 1, or auto"
        )
    for name, least in (("sample", 2), ("listed", 0), ("clusters", 0), ("folds", 0)):
        if getattr(options, name) < least:
            raise ConfigError(f"{name}={getattr(options, name)}: expected at least {least}")
    if options.folds == 1:
        raise ConfigError("folds=1: expected 0 (no search for wrong labels) or at least 2")
    ratings = options.ratings
    if ratings.level not in LEVELS:
        raise ConfigError(f"ratings.level={ratings.level}: expected one of {', '.join(LEVELS)}")
    if ratings.columns and ratings.file is not None:
        raise ConfigError("ratings.columns and ratings.file: expected one of them")
    if len(ratings.columns) == 1:
        raise ConfigError(
            f"ratings.columns=[{ratings.columns[0]}]: expected two columns or more, one per"
            " annotator"
        )
    if bool(ratings.values) != (ratings.file is not None):
        raise ConfigError("ratings.file and ratings.values=[COLUMNS]: expected both or none")
