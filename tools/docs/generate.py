"""Writes the generated pages of docs/. They are kept with the sources: they can be read without
building anything, and a change of a default is seen in the difference; `tests/docs/test_pages.py`
fails where they are not current.

    python -m tools.docs.generate
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def pages() -> dict[str, Callable[[], str]]:
    """File name -> what makes its text."""
    from tools.docs import coming_from, formats, options, stages, studies, support

    return {
        "coming_from.md": coming_from.page,
        "config.md": options.page,
        "formats.md": formats.page,
        "methods.md": studies.page,
        "stages.md": stages.page,
        "support.md": support.page,
    }


def main() -> None:
    # Before anything imports jax: the support matrix asks for meshes of up to eight devices.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    )
    for name, make in pages().items():
        path, text = DOCS / name, make()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"{path.relative_to(DOCS.parent)}: written")


if __name__ == "__main__":
    main()
