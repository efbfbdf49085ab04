"""The pages of a quality card and of a comparison of two, from `card.json` alone.

They are Markdown, and HTML without any network.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsft.reports import facts, markdown_report, page, quality_charts
from jaxsft.rundir import write_text

HEADINGS = {
    "completeness": ("Completeness", "What is not there."),
    "consistency": ("Consistency", "What contradicts itself, and what was damaged on its way."),
    "diversity": ("Diversity", "How much the texts differ, in words and in content."),
    "noise": (
        "Noise",
        (
            "Rules of thumb that point at rows to read, no verdict: mathematics, code and lists"
            " break them by nature."
        ),
    ),
    "distribution": ("Distribution", "Which labels, lengths and scripts there are."),
    "drift": (
        "Drift",
        "How the splits differ. With many rows every p-value is small: look at the effect.",
    ),
    "agreement": ("Agreement", "Whether people who labelled the same item agree."),
    "contamination": (
        "Contamination",
        "Rows of a benchmark, or of a held-out split, of which a run of words stands in the data.",
    ),
}
TILES = (
    ("completeness", "rows"), ("completeness", "missing_cells"),
    ("consistency", "conflicting_rows"), ("consistency", "damaged_rows"),
    ("diversity", "repeated_rows"), ("diversity", "mtld"), ("noise", "noisy_rows"),
    ("contamination", "contaminated_share"),
)  # fmt: skip
IN_MARKDOWN = 5  # rows of a finding
VERDICTS = ("worse", "better", "changed", "added", "removed", "same")


def write_card(folder: Path, card: Mapping[str, Any], name: str) -> list[Path]:
    """Writes `card.md` and `card.html` into a folder and returns their paths.

    Raises JaxsftError where they cannot be written.
    """
    return [
        write_text(folder / "card.md", markdown(card, name)),
        write_text(folder / "card.html", html(card, name)),
    ]


def write_comparison(
    folder: Path, lines: Sequence[Mapping[str, Any]], before: str, after: str
) -> list[Path]:
    """Writes `comparison.md` and `comparison.html` and returns their paths.

    Raises JaxsftError.
    """
    written = [write_text(folder / "comparison.md", _comparison_markdown(lines, before, after))]
    text = (
        page.templates()
        .get_template("comparison.html.jinja")
        .render(
            before=before,
            after=after,
            groups=_grouped(lines),
            verdicts=VERDICTS,
            count={v: sum(x["verdict"] == v for x in lines) for v in VERDICTS},
        )
    )
    return [*written, write_text(folder / "comparison.html", text)]


# --- text of numbers
# --------------------------------------------------------------------------------------------------
def value_text(card: Mapping[str, Any], measure: str, value: Any) -> str:
    """Formats a number as the card shows it; – where there is none.

    A share is in percent, a count has thousands marks, others four digits.
    """
    if value is None:
        return "–"
    if not isinstance(value, int | float):
        return str(value)
    if card["definitions"].get(measure, {}).get("share"):
        return "0 %" if value == 0 else f"{100 * value:.3g} %"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    return facts.number_text(value)


def headlines(card: Mapping[str, Any]) -> list[str]:
    """Returns a line per split with the numbers to look at first, and one per benchmark."""
    out = []
    for split in card["data"]["splits"]:
        found = [
            (m, card["numbers"][f][split][m])
            for f, m in TILES
            if m in card["numbers"].get(f, {}).get(split, {})
        ]
        out.append(
            f"{split}: "
            + ", ".join(f"{measure} {value_text(card, measure, value)}" for measure, value in found)
        )
    for name, found in card["numbers"].get("contamination", {}).items():
        judged = found["benchmark_rows"] - found["short_rows"]
        out.append(
            f"{name}: {found['contaminated_rows']:,} of {judged:,} rows share {found['ngram']}"
            " words with the data"
        )
    return out


def _table(card: Mapping[str, Any], family: str) -> dict[str, Any]:
    """Returns heads and lines (measure, what it is, a text per split) of a family."""
    numbers = card["numbers"].get(family, {})
    measures = dict.fromkeys(measure for values in numbers.values() for measure in values)
    cells = lambda m: [
        value_text(card, m, values[m]) if m in values else "" for values in numbers.values()
    ]
    return {
        "heads": list(numbers),
        "lines": [(m, card["definitions"].get(m, {}).get("says", ""), cells(m)) for m in measures],
    }


def _definitions(card: Mapping[str, Any], family: str) -> list[tuple[str, str, str, str]]:
    measures = dict.fromkeys(
        measure for values in card["numbers"].get(family, {}).values() for measure in values
    )
    found = [(m, card["definitions"][m]) for m in measures if m in card["definitions"]]
    return [(m, d["says"], d["source"], d["better"]) for m, d in found]


def _title(card: Mapping[str, Any], name: str) -> tuple[str, str]:
    data = card["data"]
    rows = ", ".join(f"{split} {part['rows']:,} rows" for split, part in data["splits"].items())
    label = (
        f"; label: {data['label']} ({data['label_is']})"
        if data["label"] is not None
        else "; no label"
    )
    return f"Quality of {name}", f"{rows}; text: {', '.join(data['text'])}{label}"


# --- Markdown
# --------------------------------------------------------------------------------------------------
def markdown(card: Mapping[str, Any], name: str) -> str:
    """Returns the card as Markdown."""
    title, about = _title(card, name)
    out = [f"# {markdown_report.escape(title)}", markdown_report.escape(about) + "."]
    for family, (heading, lede) in HEADINGS.items():
        out += [f"## {heading}", lede]
        table = _table(card, family)
        if table["lines"]:
            heads = ["measure", *map(markdown_report.escape, table["heads"])]
            out.append(
                markdown_report.table(
                    heads,
                    [
                        [measure.replace("_", " "), *map(markdown_report.escape, cells)]
                        for measure, _, cells in table["lines"]
                    ],
                )
            )
        for skipped in _skipped(card, family):
            out.append(f"*Not measured: {markdown_report.escape(skipped)}.*")
        if family == "completeness":
            out += _columns_markdown(card)
        if family == "consistency" and card["conflicts"]:
            out.append("Texts with several labels, the first of them:")
            lines = [
                [row["row"], ", ".join(row["labels"]), found["text"]]
                for found in card["conflicts"][:IN_MARKDOWN]
                for row in found["rows"]
            ]
            out.append(
                markdown_report.samples_table(
                    [dict(zip(("row", "labels", "text"), line, strict=True)) for line in lines],
                    ("row", "labels", "text"),
                )
            )
        out += _findings_markdown(card, family)
    out.append("## Definitions")
    lines = [
        [
            m.replace("_", " "),
            markdown_report.escape(d["says"]),
            markdown_report.escape(d["source"]),
            d["better"],
        ]
        for m, d in card["definitions"].items()
    ]
    out.append(
        markdown_report.table(["measure", "what it is", "source", "better"], lines, numbers=False)
    )
    return "\n\n".join(out) + "\n"


def _columns_markdown(card: Mapping[str, Any]) -> list[str]:
    out = []
    for split, columns in card["tables"]["columns"].items():
        lines = [
            [
                markdown_report.escape(column),
                *(f"{counts[kind]:,}" for kind in quality_charts.KINDS),
            ]
            for column, counts in columns.items()
        ]
        out.append(
            markdown_report.table(
                [f"missing cells, {markdown_report.escape(split)}", *quality_charts.KINDS], lines
            )
        )
    return out


def _findings_markdown(card: Mapping[str, Any], family: str) -> list[str]:
    out = []
    for kind, found in card["findings"].items():
        if kind.partition("/")[0] == family and found["rows"] and kind != "consistency/conflict":
            columns = [
                column
                for column in ("row", "detail", "other", "text")
                if any(row.get(column) for row in found["rows"])
            ]
            name = markdown_report.escape(_kind(kind))
            out.append(f"**{name}**: {found['count']:,} (all in findings.jsonl)")
            out.append(markdown_report.samples_table(found["rows"][:IN_MARKDOWN], columns))
    return out


def _kind(name: str) -> str:
    return name.partition("/")[2].replace("_", " ")


def _skipped(card: Mapping[str, Any], family: str) -> list[str]:
    names = (family, "label_issues") if family == "noise" else (family,)
    return [
        f"{'wrong labels: ' if name == 'label_issues' else ''}{card['skipped'][name]}"
        for name in names
        if name in card["skipped"]
    ]


def _comparison_markdown(lines: Sequence[Mapping[str, Any]], before: str, after: str) -> str:
    out = [f"# {markdown_report.escape(after)} against {markdown_report.escape(before)}"]
    for verdict in VERDICTS[:-1]:
        found = [line for line in lines if line["verdict"] == verdict]
        if found:
            out.append(f"## {verdict.capitalize()}: {len(found)}")
            cells = [
                [markdown_report.escape(f"{line['family']}: {line['measure'].replace('_', ' ')}"),
                markdown_report.escape(line["part"]),
                 *(_plain(line[key]) for key in ("before", "after", "difference")), line["better"]]
                for line in found
            ]  # fmt: skip
            out.append(
                markdown_report.table(
                    ["measure", "of", "before", "after", "difference", "better"], cells
                )
            )
    same = sum(line["verdict"] == "same" for line in lines)
    return "\n\n".join([*out, f"{same} numbers are the same."]) + "\n"


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    return (
        facts.number_text(value)
        if isinstance(value, int | float) and not isinstance(value, bool)
        else markdown_report.escape(str(value))
    )


def _grouped(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    out: dict[str, list[dict[str, Any]]] = {verdict: [] for verdict in VERDICTS}
    for line in lines:
        shown = {key: _plain(line[key]) for key in ("before", "after", "difference")}
        out[line["verdict"]].append({**line, **shown, "measure": line["measure"].replace("_", " ")})
    return out


# --- HTML
# --------------------------------------------------------------------------------------------------
def html(card: Mapping[str, Any], name: str) -> str:
    """Returns the card as one page; what the data holds is escaped by Jinja."""
    title, about = _title(card, name)
    more = {
        "completeness": quality_charts.missing,
        "consistency": quality_charts.types,
        "diversity": quality_charts.diversity,
        "distribution": quality_charts.distribution,
    }
    sections = []
    for family, (heading, lede) in HEADINGS.items():
        sections.append({
            "id": family, "heading": heading, "lede": lede, "skipped": _skipped(card, family),
            "table": _table(card, family),
            "definitions": _definitions(card, family), "findings": _findings(card, family),
            "conflicts": card["conflicts"] if family == "consistency" else [],
            "charts": [], "histograms": [], "bars": [], "tables": [],
            **(more[family](card) if family in more else {}),
        })  # fmt: skip
    return (
        page.templates()
        .get_template("quality.html.jinja")
        .render(title=title, about=about, tiles=_tiles(card), sections=sections)
    )


def _tiles(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the numbers to look at first, of the reference split (contamination: the highest)."""
    split, out = card["data"]["reference"], []
    for family, measure in TILES:
        if family == "contamination":
            found = [
                values[measure]
                for values in card["numbers"].get(family, {}).values()
                if measure in values
            ]
            value = max(found, default=None)
        else:
            value = card["numbers"].get(family, {}).get(split, {}).get(measure)
        if value is not None:
            out.append((measure.replace("_", " "), value_text(card, measure, value)))
    return out


def _findings(card: Mapping[str, Any], family: str) -> list[dict[str, Any]]:
    return [
        {
            "name": _kind(kind),
            "count": found["count"],
            "rows": [{"detail": "", "other": "", **row} for row in found["rows"]],
        }
        for kind, found in card["findings"].items()
        if kind.partition("/")[0] == family and kind != "consistency/conflict"
    ]
