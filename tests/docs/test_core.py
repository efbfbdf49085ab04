"""The core, which a newcomer reads in the order of docs/index.md, does not grow."""

from tools import core


def test_the_core_does_not_grow():
    found = core.files()
    assert len(found) == 14 and sum(map(core.lines, found)) <= core.LIMIT
