"""Labels in front of their texts."""

import pytest

from jaxsft.config.schema import Columns
from jaxsft.data import formats
from jaxsft.data.records import LABEL, multilabel_record
from jaxsft.errors import DataError


def rows(folder, content, bad=None, **how):
    (folder / "a.txt").write_text(content)
    return list(
        formats.stream(folder / "a.txt", quarantine=None if bad is None else bad.append, **how)
    )


def test_labels_of_fasttext_are_told_by_content(tmp_path):
    found = rows(tmp_path, "__label__a __label__b two  words\n\n__label__c\tx\n__label__c y\n")
    assert [(row.line, row.fields) for row in found] == [
        (1, {"text": "two  words", "labels": ["a", "b"]}),
        (3, {"text": "x", "labels": ["c"]}),
        (4, {"text": "y", "labels": ["c"]}),
    ]
    assert multilabel_record(found[0], Columns()).labels == ("a", "b")
    kind = LABEL
    assert kind.record(found[1], kind.infer_columns(found[1], Columns())).label == "c"


def test_the_first_word_is_the_label(tmp_path):
    content = "NUM:dist How far is it ?\nLOC:city Where ?\n"
    first, second = rows(tmp_path, content, format="fasttext", options={"prefix": "none"})
    assert first.fields == {"text": "How far is it ?", "labels": ["NUM:dist"]} and second.fields[
        "labels"
    ] == ["LOC:city"]
    (plain,) = rows(tmp_path, "x\n")
    with pytest.raises(
        DataError, match=r"no column 'label'.*data.format=fasttext data.options.prefix=none"
    ):
        LABEL.infer_columns(plain, Columns())


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("no label here", "expected __label__LABEL"),
        ("__label__a", "no text behind"),
        ("__label__ x", "expected __label__"),
        ("__label__a x __label__b", "behind the text"),
    ],
)
def test_a_line_without_both_is_bad(tmp_path, line, part):
    bad = []
    assert len(rows(tmp_path, f"{line}\n__label__a x\n", bad, format="fasttext")) == 1
    assert bad[0].line == 1 and part in bad[0].reason
