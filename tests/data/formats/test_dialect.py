"""What parts the cells of a table and whether quotes enclose them; and that reading takes time that
grows with the file alone.
"""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.data import formats
from jaxsft.data.formats import delimited, dialect, source
from jaxsft.data.formats.row import repeated
from jaxsft.errors import ConfigError, DataError


def rows(folder, name, content, **how):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [row.fields for row in formats.read(path, **how)]


HEADED = [{"text": "Ich mag es, sehr", "label": "gut"}, {"text": "Nie wieder", "label": "schlecht"}]


@pytest.mark.parametrize("sign", [";", "\t", "|"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("wanted", [(), ("text", "label")])
def test_another_separator_is_told_from_a_header(tmp_path, sign, name, wanted):
    content = "".join(
        f"{a}{sign}{b}\n" for a, b in (("text", "label"), *(row.values() for row in HEADED))
    )
    assert rows(tmp_path, name, content, columns=wanted) == HEADED
    assert rows(tmp_path, name, f"sep={sign}\r\n{content}", columns=wanted) == HEADED


@pytest.mark.parametrize("option", ["semicolon", ";"])
def test_an_option_names_the_separator(tmp_path, option):
    content = "a, b;c, d\nx;y\nz;y\n"  # the comma parts it as well
    with pytest.raises(
        DataError,
        match=(
            r"missing column 'c, d'.*the cells seem to be parted by ';': set"
            r" data.options.separator=semicolon"
        ),
    ):
        rows(tmp_path, "a.csv", content, columns=["c, d"])
    assert rows(tmp_path, "a.csv", content, columns=["c, d"], options={"separator": option})[0] == {
        "a, b": "x",
        "c, d": "y",
    }
    assert rows(tmp_path, "a.csv", "ham;x\nspam;y\n", columns=["0", "1"])[1] == {
        "0": "spam",
        "1": "y",
    }
    for wrong in ("semi", '"', ""):
        with pytest.raises(ConfigError, match=r"data\.options\.separator="):
            rows(tmp_path, "a.csv", content, options={"separator": wrong})
    with pytest.raises(ConfigError, match=r"data\.options\.quotes='maybe'"):
        rows(tmp_path, "a.csv", content, options={"quotes": "maybe"})


def test_a_table_of_one_column_stays_one(tmp_path):
    assert rows(tmp_path, "a.csv", "text\nwait; stop\ngo; on\n") == [
        {"text": "wait; stop"},
        {"text": "go; on"},
    ]


def test_a_space_behind_each_separator_belongs_to_it(tmp_path):
    assert rows(tmp_path, "a.csv", 'text, label\n"a, b", "x"\n c, y\n') == [
        {"text": "a, b", "label": "x"},
        {"text": "c", "label": "y"},
    ]
    assert rows(tmp_path, "b.csv", "text,label\n a, x\nb,y\n", header="true")[0] == {
        "text": " a",
        "label": " x",
    }


def test_lines_in_another_encoding_tell_the_separator_too(tmp_path):
    content = "text;label\nSchön;gut\nFür;schlecht\n".encode("cp1252")
    with pytest.raises(DataError, match=r"a.csv:2: byte 14 .*data.encoding=latin-1"):
        rows(tmp_path, "a.csv", content)
    assert rows(tmp_path, "a.csv", content, encoding="cp1252")[0] == {
        "text": "Schön",
        "label": "gut",
    }


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a.conll"])
def test_ends_of_lines_of_old_macs_are_called_by_name(tmp_path, name):
    with pytest.raises(DataError, match="the lines end with CR alone"):
        rows(tmp_path, name, "text,label\ra,x\rb,y\r")
    assert rows(tmp_path, "one.txt", "a\rb\n") == [{"text": "a\rb"}]


cell, odd = (st.text(st.sampled_from(signs), max_size=6) for signs in ("ab\" 'é,;", 'a"\t\nb'))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(cell, odd), min_size=2, max_size=5),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_a_tsv_is_read_as_it_was_written_or_refused(tmp_path_factory, table, quoting):
    """As a spreadsheet or pandas writes it: each cell comes back, or the error names the option;
    with the option each comes back.
    """
    file = io.StringIO()
    csv.writer(file, delimiter="\t", quoting=quoting, lineterminator="\n").writerows(
        [("text", "label"), *table]
    )
    expected = [dict(zip(("text", "label"), row, strict=True)) for row in table]
    folder = tmp_path_factory.mktemp("t")
    assert (
        rows(folder, "a.tsv", file.getvalue(), header="true", options={"quotes": "true"})
        == expected
    )
    try:
        found = rows(folder, "b.tsv", file.getvalue(), header="true")
    except DataError as error:
        assert "data.options.quotes" in str(error) or "cells, expected 2" in str(error)
    else:
        simple = not any(
            '"' in cell or "\n" in cell or "\t" in cell for row in table for cell in row
        )
        assert found == expected or (
            not simple and not any(dialect.escaped(cell) for row in found for cell in row.values())
        )


def test_stray_quotes_of_a_tsv_stay(tmp_path):
    plain = 'text\tlabel\n5" pipe\tx\n"never closed\ty\n"all of it"\tx\n'
    assert [row["text"] for row in rows(tmp_path, "a.tsv", plain)] == [
        '5" pipe',
        '"never closed',
        '"all of it"',
    ]
    with pytest.raises(
        DataError,
        match=(
            r"b.tsv:5: the cell .* is written with"
            r" quotes.*data.options.quotes=true.*data.options.quotes=false"
        ),
    ):
        rows(tmp_path, "b.tsv", plain + '"he said ""no"""\tx\n')
    assert (
        rows(tmp_path, "b.tsv", plain + '"he said ""no"""\tx\n', options={"quotes": "false"})[-1][
            "text"
        ]
        == '"he said ""no"""'
    )
    assert rows(tmp_path, "c.tsv", '"text"\t"label"\n"a"\t"b"\n"c"\t"d"\n')[0] == {
        "text": "a",
        "label": "b",
    }
    with pytest.raises(DataError, match="read without its quotes"):
        formats.write([{"text": '"he said ""no"""'}], tmp_path / "d.tsv")


def test_badly_quoted_lines_are_read_once(tmp_path, monkeypatch):
    """Each line is asked for a constant number of times, however many are badly quoted."""
    counted = []
    lines = source.Source.lines

    def counting(self, *arguments, **how):
        for found in lines(self, *arguments, **how):
            counted.append(1)
            yield found

    monkeypatch.setattr(source.Source, "lines", counting)
    per_line = []
    for count in (50, 200):
        counted.clear()
        (tmp_path / "q.csv").write_text("text,label\n" + 'x "y" z,a\n"a"b,c\n' * count)
        bad = []
        assert (
            len(list(formats.stream(tmp_path / "q.csv", quarantine=bad.append)))
            == count
            == len(bad)
        )
        per_line.append(len(counted) / count)
    assert per_line[1] <= per_line[0]


class Counting(str):
    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other):
        Counting.compared += 1
        return str.__eq__(self, other)


def test_names_of_columns_are_compared_in_linear_time(tmp_path):
    for count in (100, 1000):
        Counting.compared = 0
        assert (
            repeated(Counting(f"c{i}") for i in range(count)) is None and Counting.compared <= count
        )
    assert repeated(["a", "b", "a"]) == "a"
    wide = ",".join(f"c{i}" for i in range(5000)) + "\n" + ",".join("1" * 5000) + "\n"
    assert len(rows(tmp_path, "wide.csv", wide, header="true")[0]) == 5000
    with pytest.raises(DataError, match=r"missing column 'text'.*'c19' and 4,980 more") as caught:
        rows(tmp_path, "wide.csv", wide, columns=["text"])
    assert len(str(caught.value)) < 600
    # cells that are held to tell a header, of a table as wide as it likes
    assert delimited.LOOKED_AT[1] < 10**7
