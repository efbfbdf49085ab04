"""The page of metrics has a line for every metric, with its numbers."""

import re
from pathlib import Path

import pytest

from jaxsft.metrics.by_name import METRICS

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
QUOTED = re.compile(r"`([^`]+)`")


def lines() -> dict[str, list[str]]:
    """Returns the cells of the line of each metric."""
    out = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            assert len(cells) == 5, line
            out |= dict.fromkeys(QUOTED.findall(cells[0]), cells)
    return out


@pytest.mark.parametrize("name", sorted(METRICS))
def test_a_metric_and_its_numbers_are_on_the_page(name):
    cells = lines()[name]
    quoted = QUOTED.findall(cells[2])
    for other in [x for x in quoted if f"those of `{x}`" in cells[2]]:
        quoted += QUOTED.findall(lines()[other][2])
    written = {a + b for a in quoted for b in ["", *(x for x in quoted if x.startswith("_"))]}
    assert not set(METRICS[name].names) - written


def test_every_metric_of_the_page_exists():
    assert set(lines()) == set(METRICS)
