"""The page of formats has every format and every option, whoever registered it."""

import dataclasses

from jaxsft.data import formats
from tests.docs import pages
from tools.docs import formats as generator


def test_the_page_is_current():
    assert pages.text("formats.md") == generator.page(), (
        "docs/formats.md: not what the code says; `make docs` writes it again"
    )


def test_every_format_and_option_is_on_the_page():
    page = generator.page()
    for kind in formats.FORMATS.values():
        section = page.split(f"\n### {kind.name}\n")[1].split("\n#")[0]
        for field in dataclasses.fields(kind.options):
            assert (
                field.name == "columns"
                or f"`data.options.{field.name}`" in section
                or f"`data.{field.name}`" in section
            ), (kind.name, field.name)
        assert f"\n| [{kind.name}](#{kind.name}) |" in page and all(
            f"`{suffix}`" in page for suffix in kind.suffixes
        )


def test_a_format_of_no_family_is_there_all_the_same(monkeypatch):
    new = dataclasses.replace(
        formats.FORMATS["txt"], name="verse", suffixes=(".verse",), rows="a stanza"
    )
    monkeypatch.setitem(formats.FORMATS.own, "verse", new)
    assert (
        "\n## Others\n\n### verse\n" in generator.page()
        and "| [verse](#verse) | `.verse` |" in generator.page()
    )


def test_every_option_says_what_it_is():
    for kind in formats.FORMATS.values():
        for row in generator.options.items(kind.options):
            assert not row.endswith("|  |"), f"{kind.name}: {row}"
