"""The page on pretrained models names every family, and only those."""

import re
from pathlib import Path

from jaxsft.hf.families import FAMILIES, text_half

PAGE = (Path(__file__).parents[2] / "docs" / "pretrained.md").read_text(encoding="utf-8")


def test_every_family_is_named():
    table = PAGE[PAGE.index("| kind | families") : PAGE.index("All of them are one Transformer")]
    named = set(re.findall(r"`([a-z0-9_-]+)`", table)) - {"model_type"}
    assert named == {*FAMILIES, *text_half.KINDS}
    assert f"{len(FAMILIES)} families" in (Path(__file__).parents[2] / "README.md").read_text(
        encoding="utf-8"
    )
