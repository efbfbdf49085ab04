"""An option is declared once: its default, and what it does."""

import dataclasses

import pytest

from jaxsft.config.option import docs, option


def test_lists_are_made_anew_and_functions_are_called():
    @dataclasses.dataclass(frozen=True)
    class Options:
        names: list = option(["a"], "names")
        found: list = option(lambda: ["b"], "found")

    one, other = Options(), Options()
    assert one == other and one.names is not other.names and one.found == ["b"]
    assert docs(Options) == {"names": "names", "found": "found"}


def test_a_field_is_no_default():
    with pytest.raises(TypeError, match="a value, found a field: names"):
        option(dataclasses.field(default_factory=list), "names")
