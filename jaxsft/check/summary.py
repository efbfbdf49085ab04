"""Shows the result of a check on the terminal, as JSON, and as a page."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from jaxsft import rundir
from jaxsft.check.encoding import shown, visible
from jaxsft.check.findings import CheckResult, Finding
from jaxsft.reports import check_page as page
from jaxsft.rundir import json_text

COLOURS = {"error": "1;31", "warning": "33", "info": "90"}


def colours(stream: Any = None) -> bool:
    """Returns whether to use colours: on a terminal, unless NO_COLOR is set (no-color.org)."""
    return (stream or sys.stdout).isatty() and not os.environ.get("NO_COLOR")


def text(result: CheckResult, colour: bool) -> str:
    """Formats the findings, errors first, each with its rows; then rows token by token."""
    lines = [_line(finding, colour) for finding in result.findings]
    if result.samples:
        kinds = {run["kind"] for sample in result.samples for run in sample["runs"]}
        legend = (
            "green: trained, red: masked, grey: template"
            if colour
            else "[+trained+] [-masked-] template"
        )
        lines += [f"\n{legend}"] if "trained" in kinds else []
    head = lambda sample: f"\n{sample['where']} ({sample['split']}, {sample['tokens']:,} tokens)\n"
    gold = lambda sample: f"\n{visible(sample['gold'])}" if "gold" in sample else ""
    lines += [f"{head(sample)}{shown(sample, colour)}{gold(sample)}" for sample in result.samples]
    counts = result.as_dict()["counts"]
    verdict = ", ".join(
        f"{count} {name if count == 1 or name == 'info' else name + 's'}"
        for name, count in counts.items()
    )
    return "\n".join([*lines, "", f"{'refused' if result.errors else 'good to train'}: {verdict}"])


def _line(finding: Finding, colour: bool) -> str:
    severity = f"{finding.severity:<8}"
    name = f"\x1b[{COLOURS[finding.severity]}m{severity}\x1b[0m" if colour else severity
    out = f"{name}{finding.id}: {_folded(finding.message)}"
    if finding.rows:
        more = (
            f" and {finding.count - len(finding.rows):,} more"
            if finding.count > len(finding.rows)
            else ""
        )
        out += f"\n{'':8}at {', '.join(finding.rows)}{more}"
    if finding.repair:
        out += f"\n{'':8}-> {finding.repair}"
    return out + (f"\n{'':8}accepted by check.accept" if finding.accepted else "")


def _folded(message: str) -> str:
    """Indents the lines of a message after the first, which stands for it."""
    return f"\n{'':10}".join(line.replace("\r", " ") for line in message.split("\n"))


def write(result: CheckResult, output: str | None, json: str | None) -> list[str]:
    """Writes what is asked for and returns the paths. Raises JaxsftError where it cannot be
    written.
    """
    content, written = result.as_dict(), []
    if output:
        folder = Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        rundir.write_json(folder / "check.json", content)
        written += [
            str(folder / "check.json"),
            str(page.write_page(content, folder / "check.html")),
        ]
    if json and json != "-":
        rundir.write_json(json, content)
        written.append(json)
    return written


__all__ = ["colours", "json_text", "text", "write"]
