"""The ledger: what happened to every row and token. It must add up, or the run does not start.

    rows read   = kept + dropped (by reason)
    tokens read = kept + dropped (by reason);  kept tokens = trained + masked

A token counts once, as a target: the first one of a record is never predicted, so it is masked.
Sources that an encoder reads are a stream of their own, of which nothing is trained: tokens read =
kept + dropped (by reason).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxsft.errors import DataError

BINS = 24  # of the histogram of lengths, at most
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclasses.dataclass(frozen=True, slots=True)
class Aside:
    """A row that was put aside before encoding, with its reason and a sentence.

    Reasons are `unreadable`, `no_record`, `no_label` or a verdict on it. A row that its file or
    an option declares as left out (`declared`) is no damage, and does not count against
    `data.max_dropped`.
    """

    file: str
    line: int
    reason: str
    message: str
    # what can be read of it all the same
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)
    declared: bool = False

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


@dataclasses.dataclass
class Ledger:
    rows_read: int = 0
    rows_kept: int = 0
    rows_dropped: Counter[str] = dataclasses.field(default_factory=Counter)
    tokens_read: int = 0
    tokens_dropped: Counter[str] = dataclasses.field(default_factory=Counter)
    trained: int = 0
    masked: int = 0
    truncated_rows: int = 0
    source_read: int = 0
    source_kept: int = 0
    source_dropped: Counter[str] = dataclasses.field(default_factory=Counter)
    # rows that are several examples: turns of a chat that its template writes otherwise once others
    # follow
    several_texts: int = 0

    def keep(
        self,
        tokens: int,
        trained: int,
        cut: int = 0,
        source: int = 0,
        source_cut: int = 0,
        lost: Mapping[str, int] = MappingProxyType({}),
        several: bool = False,
    ) -> None:
        """Counts a row that is kept, with its tokens.

        `tokens` are left (of which `trained` carry weight) after `cut` were truncated, and
        `source` are left of its source after `source_cut`. `lost` are those of dropped texts of
        the row, by reason; `several` says that it is several texts.
        """
        self.rows_read += 1
        self.rows_kept += 1
        self.tokens_read += tokens + cut
        self.trained += trained
        self.masked += tokens - trained
        if cut:
            self.tokens_dropped["truncated"] += cut
        self.source_read += source + source_cut
        self.source_kept += source
        if source_cut:
            self.source_dropped["truncated"] += source_cut
        self.truncated_rows += bool(cut or source_cut)
        for reason, count in lost.items():
            self.tokens_read += count
            self.tokens_dropped[reason] += count
        self.several_texts += several

    def drop(self, reason: str, tokens: int = 0, source: int = 0) -> None:
        """Counts a row that is dropped, with all its tokens and those of its source."""
        self.rows_read += 1
        self.rows_dropped[reason] += 1
        self.tokens_read += tokens
        if tokens:
            self.tokens_dropped[reason] += tokens
        self.source_read += source
        if source:
            self.source_dropped[reason] += source

    def check(self) -> None:
        """Raises AssertionError where the ledger does not add up: a bug, never the user's data."""
        assert self.rows_read == self.rows_kept + sum(self.rows_dropped.values()), self
        assert self.tokens_read == self.trained + self.masked + sum(self.tokens_dropped.values()), (
            self
        )
        assert self.source_read == self.source_kept + sum(self.source_dropped.values()), self

    def as_dict(self) -> dict[str, Any]:
        """Returns the content of `ledger.json`."""
        self.check()
        rows = {
            "read": self.rows_read,
            "kept": self.rows_kept,
            "dropped": dict(self.rows_dropped),
            "truncated": self.truncated_rows,
        }
        if self.several_texts:
            rows["several_texts"] = self.several_texts
        kept = self.trained + self.masked
        tokens = {
            "read": self.tokens_read,
            "kept": kept,
            "dropped": dict(self.tokens_dropped),
            "trained": self.trained,
            "masked": self.masked,
        }
        if not self.source_read:
            return {"rows": rows, "tokens": tokens}
        source = {
            "read": self.source_read,
            "kept": self.source_kept,
            "dropped": dict(self.source_dropped),
        }
        return {"rows": rows, "tokens": tokens, "source_tokens": source}


def check_dropped(
    ledger: Ledger,
    dropped: Mapping[int, str],
    where: Sequence[str],
    max_dropped: float,
    split: str,
    aside: Sequence[Aside],
) -> None:
    """Raises DataError where more than `max_dropped` of the rows were dropped, or none is left.

    Args:
      dropped: by row, why; `where` is the place of each row.
      aside: the rows that were put aside before.
    """
    bad = [one for one in aside if not one.declared]
    count = len(dropped) + len(bad)
    if not count:
        return
    if bad:
        place, reason = bad[0].where, bad[0].message.removeprefix(f"{bad[0].where}: ")
    else:
        place, reason = next((where[row], reason) for row, reason in dropped.items())
    if count > max_dropped * ledger.rows_read or not ledger.rows_kept:
        allowed = (
            f"data.max_dropped={max_dropped:g} allows fewer: mend the rows, or raise it"
            if ledger.rows_kept
            else "none is left: mend the rows"
        )
        raise DataError(
            f"{place}: {count} of {ledger.rows_read} rows of {split} would be dropped"
            f" ({', '.join(f'{k}: {n}' for k, n in ledger.rows_dropped.items())}; this is the"
            f" first, {reason}); {allowed}"
        )


def length_summary(lengths: np.ndarray) -> dict[str, Any]:
    """Summarises the lengths of a split's examples, `[examples]` in positions.

    Returns: `min`, `mean`, `max`, `quantiles` by name (`p50` is the median), and a `histogram` of
    `counts` between neighbouring `edges`: whole numbers, the last one outside, so that the counts
    add up to the examples.
    """
    lengths = np.asarray(lengths, np.int64)
    if not len(lengths):
        return {}
    low, high = int(lengths.min()), int(lengths.max())
    width = -(-(high - low + 1) // BINS)
    edges = np.arange(low, high + width + 1, width)
    quantiles = np.quantile(lengths, QUANTILES, method="inverted_cdf")  # lengths that occur
    return {
        "min": low,
        "mean": float(lengths.mean()),
        "max": high,
        "quantiles": {
            f"p{100 * q:.0f}": int(value) for q, value in zip(QUANTILES, quantiles, strict=True)
        },
        "histogram": {"edges": edges.tolist(), "counts": np.histogram(lengths, edges)[0].tolist()},
    }
