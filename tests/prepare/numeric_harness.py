"""A stage by itself: learns on the training rows, goes over every split, and accounts for every
row.
"""

import json

from jaxsft.data.formats import Row
from jaxsft.prepare.stage import Report


def make(columns: dict[str, list], file: str = "rows.csv") -> list[Row]:
    """Rows from columns."""
    return [
        Row(dict(zip(columns, values, strict=True)), file, line)
        for line, values in enumerate(zip(*columns.values(), strict=True), start=2)
    ]


class OnlyRows:
    """Rows as a stage may see them: a file of them can be gone through and counted, nothing
    else."""

    def __init__(self, rows: list[Row]):
        self._rows = rows

    def __iter__(self):
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def run(stage, **splits: list[Row]) -> tuple[dict[str, list[Row]], dict[str, Report], dict]:
    """(rows, report and state) of a stage over `train` and further splits. The state goes through
    JSON, as in a manifest.
    """
    stage.check()
    splits = {name: OnlyRows(rows) for name, rows in splits.items()}
    reports = {name: Report() for name in splits}
    state = (
        json.loads(json.dumps(stage.fit(splits["train"], reports["train"]), allow_nan=False))
        if stage.learns
        else {}
    )
    before = {name: json.dumps([r.fields for r in rows]) for name, rows in splits.items()}
    out = {
        name: (
            list(rows)
            if stage.on == "train" and name != "train"
            else list(stage.rows(name, rows, state, reports[name]))
        )
        for name, rows in splits.items()
    }
    for name, rows in splits.items():
        report = reports[name]
        assert len(rows) + sum(report.added.values()) == len(out[name]) + len(report.dropped), (
            f"{name}: rows do not add up"
        )
        assert json.dumps([r.fields for r in rows]) == before[name], (
            f"{name}: a row was changed in place"
        )
    return out, reports, state


def column(rows: list[Row], name: str) -> list:
    return [row.fields[name] for row in rows]
