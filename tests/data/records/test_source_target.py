"""A source, and one target or several references."""

import pytest

from jaxsft.config.schema import Columns
from jaxsft.data import formats
from jaxsft.data.formats import Row
from jaxsft.data.records import SOURCE_TARGET, Seq2Seq, group_references, seq2seq_record
from jaxsft.errors import DataError
from tests.realdata import real


def row(**fields):
    return Row(fields, "data.jsonl", 117)


def test_a_target_or_references():
    assert seq2seq_record(row(source="a", target="b"), Columns()) == Seq2Seq("a", "b")
    assert seq2seq_record(row(mr="a", ref="b"), Columns(source="mr", target="ref")) == Seq2Seq(
        "a", "b"
    )
    several = Seq2Seq("a", "b", ("b", "c"))
    assert seq2seq_record(row(source="a", references=["b", "c"]), Columns()) == several
    assert seq2seq_record(row(source="a", refs='["b", "c"]'), Columns(references="refs")) == several
    assert SOURCE_TARGET.texts(several) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "fields, part",
    [
        ({"target": "b"}, "missing column 'source'.*data.columns.source"),
        ({"source": "a"}, "missing column 'target'.*data.columns.target"),
        ({"source": 3, "target": "b"}, "holds 3, expected a string"),
        ({"source": "a", "references": []}, "at least one text"),
        ({"source": "a", "references": ["b", 3]}, "at least one text"),
    ],
)
def test_malformed_rows(fields, part):
    with pytest.raises(DataError, match=f"^data.jsonl:117: .*{part}"):
        seq2seq_record(row(**fields), Columns())


def test_references_of_one_source_are_grouped_in_order():
    records = [
        Seq2Seq("x", "1"),
        Seq2Seq("y", "2"),
        Seq2Seq("x", "3"),
        Seq2Seq("x", "1"),
        Seq2Seq("y", "4", ("4", "5")),
    ]
    grouped, where = group_references(records, list("abcde"))
    assert grouped == [
        Seq2Seq("x", "1", ("1", "3")),
        Seq2Seq("y", "2", ("2", "4", "5")),
    ] and where == ["a", "b"]


def test_e2e_nlg():
    columns = Columns(source="mr", target="ref")
    rows = formats.read(real("e2e_nlg/devset.csv.gz"), columns=["mr", "ref"])
    records = [seq2seq_record(r, columns) for r in rows]
    grouped, where = group_references(records, [r.where for r in rows])
    assert len(rows) == 4672 and len(grouped) == len({r.fields["mr"] for r in rows}) == len(where)
    assert sum(len(r.references) for r in grouped) == len(
        {(r.fields["mr"], r.fields["ref"]) for r in rows}
    )
