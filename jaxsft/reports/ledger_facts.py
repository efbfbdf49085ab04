"""What became of all rows and tokens, from `ledger.json`, for the pages of a run."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxsft.reports import facts
from jaxsft.rundir import number


def ledger(run_dir: Path) -> dict[str, Mapping[str, Any]]:
    """Returns the entries of `ledger.json` by split. Raises Missing."""
    found = facts.read(run_dir, "ledger.json")
    return {split: entry for split, entry in found.items() if isinstance(entry, Mapping)}


def account(entry: Mapping[str, Any]) -> tuple[list[tuple[str, str]], list[str]]:
    """Returns the lines of one split's account, and a sentence for each sum that is wrong."""
    lines, problems = [], []
    for unit in ("rows", "tokens"):
        part = entry.get(unit) or {}
        if not part:
            continue
        lines.append((f"{unit} read", facts.number_text(part.get("read", 0))))
        dropped = part.get("dropped") or {}
        lines += [
            (f"− {unit} dropped: {reason}", facts.number_text(count))
            for reason, count in dropped.items()
        ]
        lines.append((f"= {unit} kept", facts.number_text(part.get("kept", 0))))
        if part.get("read", 0) != part.get("kept", 0) + sum(dropped.values()):
            problems.append(
                f"{unit} read {part.get('read', 0):,} ≠ kept {part.get('kept', 0):,} + dropped"
                f" {sum(dropped.values()):,}"
            )
        if unit == "tokens" and part.get("trained"):
            lines += [
                ("of these trained", facts.number_text(part["trained"])),
                ("of these masked", facts.number_text(part.get("masked", 0))),
            ]
            if part.get("kept", 0) != part["trained"] + part.get("masked", 0):
                problems.append(
                    f"tokens kept {part.get('kept', 0):,} ≠ trained {part['trained']:,} + masked"
                    f" {part.get('masked', 0):,}"
                )
    packing = entry.get("packing") or {}
    if packing:
        lines.append(
            (
                "packed rows × length",
                (
                    f"{facts.number_text(packing.get('rows', 0))} ×"
                    f" {facts.number_text(packing.get('row_length', 0))}"
                ),
            )
        )
        lines.append(("filled with real tokens", f"{number(packing.get('fill', math.nan)):.1%}"))
    return lines, problems


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def accounts(run_dir: Path) -> tuple[list[str], dict[str, dict[str, str]], list[str]]:
    """Returns the splits of the ledger, their accounts side by side, and what does not add up.

    An account is label → split → count.
    """
    entries = ledger(run_dir)
    lines: dict[str, dict[str, str]] = {}
    problems = []
    for split, entry in entries.items():
        counts, wrong = account(entry)
        problems += [f"{split}: {problem}" for problem in wrong]
        for label, count in counts:
            lines.setdefault(label, {})[split] = count
        if "also_in_train" in entry:
            lines.setdefault("rows that are also in training", {})[split] = facts.number_text(
                entry["also_in_train"]
            )
        if weights := entry.get("weights"):
            lines.setdefault("weights of rows", {})[split] = (
                f"{weights['min']:g} to {weights['max']:g}, mean {weights['mean']:.3g}"
            )
        if entry.get("lacks"):
            lines.setdefault("labels without a row", {})[split] = (
                f"{facts.number_text(len(entry['lacks']))} ({_some(entry['lacks'])})"
            )
    return list(entries), lines, problems


def ledger_panels(entries: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Returns title → split → part → count, in the order in which the parts are stacked."""
    panels: dict[str, dict[str, dict[str, float]]] = {
        "Rows": {},
        "Tokens": {},
        "Positions of packed rows": {},
    }
    for split, entry in entries.items():
        if not isinstance(entry, Mapping):
            continue
        rows, tokens, packing = (entry.get(key) or {} for key in ("rows", "tokens", "packing"))
        dropped = {
            key: {
                f"dropped: {reason}": n
                for reason, n in (entry.get(key) or {}).get("dropped", {}).items()
            }
            for key in ("rows", "tokens")
        }
        panels["Rows"][split] = {"kept": rows.get("kept", 0)} | dropped["rows"]
        # Where whole texts carry the targets, no token is one.
        kept = {
            k: tokens.get(k, 0)
            for k in (("trained", "masked") if tokens.get("trained") else ("kept",))
        }
        panels["Tokens"][split] = kept | dropped["tokens"]
        panels["Positions of packed rows"][split] = {
            "real": packing.get("real", 0),
            "padding": packing.get("padded", 0),
        }
    used = {
        name: {split: parts for split, parts in splits.items() if sum(parts.values())}
        for name, splits in panels.items()
    }
    return {name: splits for name, splits in used.items() if splits}
