"""Counts the lines of the core: the files that docs/index.md lists in reading order.

python -m tools.core
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 2_200  # lines of at most 100 columns; what is added elsewhere than here does not count


def files() -> list[Path]:
    """Returns the files of the core, in the order of the page."""
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    named = re.findall(r"^    (jaxsft/\S+\.py)\b", text, re.M)
    return [ROOT / name for name in named]


def lines(path: Path) -> int:
    """Returns how many lines a file has."""
    return len(path.read_text(encoding="utf-8").splitlines())


def main() -> None:
    for path in files():
        print(f"{lines(path):6,}  {path.relative_to(ROOT)}")
    print(f"{sum(map(lines, files())):6,}  of at most {LIMIT:,}: the core, {len(files())} files")


if __name__ == "__main__":
    main()
