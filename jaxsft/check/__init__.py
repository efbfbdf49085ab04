"""`jaxsft check`: checks a data set and a task before training.

Nothing is trained, and no row is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsft.check.encoding import encode_parts
from jaxsft.check.findings import CheckResult, Finding, Findings
from jaxsft.check.label_findings import count_labels, tag_schemes, targets
from jaxsft.check.load import CheckedSplit, load
from jaxsft.check.overlap import find_overlap
from jaxsft.check.text_findings import languages, suspicious
from jaxsft.config import validate
from jaxsft.config.schema import Config
from jaxsft.data import config_files, formats
from jaxsft.data.ledger import length_summary
from jaxsft.data.records import columns_read
from jaxsft.training import setup


def check(config: Config) -> CheckResult:
    """Reads all splits of a config and looks at them.

    Raises:
      ConfigError: an option is wrong, or there is no data. What is wrong with the data is a
        finding.
    """
    validate.of_run(config)
    spec, config = config.task.spec, setup.with_template_tokens(config)[0]
    kind = spec.records
    config_files.check_columns(config)
    config = config_files.of_prepared(
        setup.like_pretrained(config) if config.model.pretrained else config,
        columns_read(kind),
    )
    validate.data(config)
    if config.data.format != "auto":
        formats.named(config.data.format)
    findings = Findings(config.check.places, config.check.accept)
    parts = {name: part for name, part in load(config, findings).items() if part.records}
    if not parts:
        return CheckResult(spec.name, findings.sorted(), {}, [])
    numbers: dict[str, dict[str, Any]] = {
        n: {"rows": {"read": p.read, "records": len(p.records)}} for n, p in parts.items()
    }
    counted, samples, special = encode_parts(config, parts, findings)
    _merge(numbers, counted)
    _merge(
        numbers,
        {
            n: {"labels": dict(c.most_common())}
            for n, c in count_labels(config, parts, kind, findings).items()
            if c
        },
    )
    if "tags" in kind.reads:
        tag_schemes(config, parts, findings)
    if "targets" in kind.reads:
        _merge(
            numbers,
            {n: {"targets": found} for n, found in targets(config, parts, findings).items()},
        )
    _merge(numbers, find_overlap(parts, kind, config.check.near, findings))
    for split, part in parts.items():
        found = suspicious(part, kind, special, findings)
        spoken = languages(part, kind, findings)
        numbers[split] |= {
            "characters": length_summary(np.asarray(found["characters"])),
            "scripts": found["scripts"],
            "languages": spoken,
        }
    _refuse_unknown(config, findings)
    return CheckResult(spec.name, findings.sorted(), numbers, samples)


def _merge(numbers: dict[str, dict[str, Any]], more: Mapping[str, Mapping[str, Any]]) -> None:
    for name, found in more.items():
        numbers[name] |= found


def _refuse_unknown(config: Config, findings: Findings) -> None:
    """Adds a finding for names in `check.accept` that match no finding: they may be misspelt."""
    there = {finding.id for finding in findings.found}
    if idle := [name for name in config.check.accept if name not in there]:
        findings.add(
            "accept_unused",
            "info",
            f"check.accept names {', '.join(idle)}, of which nothing was found.",
        )


__all__ = ["Finding", "Findings", "CheckedSplit", "CheckResult", "check"]
