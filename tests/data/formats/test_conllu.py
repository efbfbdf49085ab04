"""CoNLL-U: checked by the library `conllu`, by hand, and on every real treebank."""

import gzip
import io
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.config.schema import Columns
from jaxsft.data import formats
from jaxsft.data.formats import Row
from jaxsft.data.formats import conllu as ours
from jaxsft.data.records import parse_record, tag_record
from jaxsft.errors import DataError
from tests.realdata import real

FILES = {
    "ud_arabic_pud/ar_pud-ud-test.conllu.gz": 1000,
    "ud_chinese_gsdsimp_devtest/zh_gsdsimp-ud-dev.conllu.gz": 500,
    "ud_chinese_gsdsimp_devtest/zh_gsdsimp-ud-test.conllu.gz": 500,
    "ud_chinese_pud/zh_pud-ud-test.conllu.gz": 1000,
    "ud_english_ewt/en_ewt-ud-dev.conllu.gz": 2001,
    "ud_english_ewt/en_ewt-ud-test.conllu.gz": 2077,
    "ud_english_ewt/en_ewt-ud-train.conllu.gz": 12544,
    "ud_english_pud/en_pud-ud-test.conllu.gz": 1000,
    "ud_german_gsd_devtest/de_gsd-ud-dev.conllu.gz": 799,
    "ud_german_gsd_devtest/de_gsd-ud-test.conllu.gz": 977,
    "ud_german_pud/de_pud-ud-test.conllu.gz": 1000,
}
SAMPLE = """\
# newdoc id = d
# sent_id = d-1
# text = don't go to New York, 10 000 times
0.1\tYou\tyou\tPRON\t_\t_\t_\t_\t3:nsubj\t_
1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tdo\tdo\tAUX\tVBP\tMood=Imp|VerbForm=Fin\t3\taux\t_\t_
2\tn't\tnot\tPART\tRB\tPolarity=Neg\t3\tadvmod\t_\t_
3\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\t_
3.1\tgone\tgo\tVERB\t_\t_\t_\t_\t3:conj\t_
4\tNew York\tNew York\tPROPN\t_\tNumber=Sing\t3\tobl\t_\tSpaceAfter=No
5\t10 000\t10000\tNUM\t_\t_\t4\tnummod\t_\t_

1\tOk\tok\tINTJ\t_\t_\t0\troot\t_\t_

"""


def sentence(*lines):
    """The lines of a sentence from pairs `id head`."""
    return (
        "".join(
            f"{i}\tw{i}\t_\t_\t_\t_\t{head}\t_\t_\t_\n"
            for i, head in (line.split() for line in lines)
        )
        + "\n"
    )


def put(folder, content, name="a.conllu"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def aside(path):
    bad = []
    return list(formats.stream(path, quarantine=bad.append)), bad


def written(rows):
    file = io.BytesIO()
    ours.write(rows, file, "out.conllu")
    return file.getvalue()


def test_a_sentence_with_everything(tmp_path):
    first, second = formats.read(put(tmp_path, SAMPLE))
    row = first.fields
    assert (first.line, second.line) == (1, 13)
    assert (row["sent_id"], row["text"]) == ("d-1", "don't go to New York, 10 000 times")
    assert (
        row["id"] == [*"12345"]
        and row["form"] == ["do", "n't", "go", "New York", "10 000"]
        and row["head"] == [3, 3, 0, 3, 4]
    )
    assert (
        row["upos"][0] == "AUX"
        and row["xpos"][0] == "VBP"
        and row["misc"][3] == "SpaceAfter=No"
        and row["deps"] == ["_"] * 5
    )
    assert [cells[:2] for cells in row["multiword"]] == [["1-2", "don't"]] and [
        cells[0] for cells in row["empty"]
    ] == ["0.1", "3.1"]
    assert (
        ours.features(row["feats"][0]) == {"Mood": ["Imp"], "VerbForm": ["Fin"]}
        and ours.features("_") == {}
    )
    assert ours.features("Case=Acc,Dat|X") == {"Case": ["Acc", "Dat"], "X": []}
    with pytest.raises(DataError, match="each name once"):
        ours.features("A=b|A=c")
    assert second.fields["sent_id"] is None and second.fields["text"] is None
    assert written([first.fields, second.fields]).decode() == SAMPLE
    assert json.loads(json.dumps(row)) == row


def test_crlf_and_a_missing_last_line(tmp_path):
    expected = [row.fields for row in formats.read(put(tmp_path, SAMPLE))]
    for content in (
        SAMPLE.replace("\n", "\r\n"),
        SAMPLE.rstrip("\n"),
        "\ufeff" + SAMPLE,
        "\n\n" + SAMPLE.replace("\n\n", "\n \n\n"),
    ):
        assert [row.fields for row in formats.read(put(tmp_path, content))] == expected
    assert formats.detect(formats.sources(put(tmp_path, SAMPLE, "a.txt"))[0]).name == "conllu"


@pytest.mark.parametrize(
    ("lines", "line", "part"),
    [
        (["1 0", "3 1"], 2, "found the id '3', expected 2"),
        (["1 0", "1 0"], 2, "found the id '1', expected 2; an empty line"),
        (["2 0"], 1, "found the id '2', expected 1"),
        (
            ["1 0", "2-5 _", "2 1"],
            2,
            "found the range 2-5, expected one that begins with the next word, 2, and ends inside",
        ),
        (["1-2 _", "1 0", "2-3 _", "2 1", "3 1"], 3, "found the range 2-3"),
        (["1 0", "1.2 _"], 2, "found the empty node 1.2, expected 1.1"),
        (["1 0", "3.1 _", "2 1"], 2, "found the empty node 3.1, expected 1.1"),
        (["0.1 _"], 1, "found no word"),
        (["1 0", "a 1"], 2, "found the id 'a', expected 2"),
    ],
)
def test_ids_out_of_order_are_put_aside_with_their_line(tmp_path, lines, line, part):
    good = "# text = x\n" + sentence("1 0")
    rows, (bad,) = aside(
        put(tmp_path, good + "# sent_id = b\n" + sentence(*lines) + sentence("1 2", "2 0"))
    )
    assert (
        [row.line for row in rows] == [1, 4 + len(lines) + 2]
        and bad.line == 4 + line
        and part in bad.reason
    )
    with pytest.raises(DataError, match=rf"a\.conllu:{4 + line}: "):
        formats.read(tmp_path / "a.conllu")


def test_lines_that_are_no_words(tmp_path):
    text = (
        sentence("1 0", "2 1").replace("2\tw2\t_", "2\tw2")
        + "# comment only\n\n"
        + sentence("1 0")
        + "1\tx\n\n"
    )
    # Cells that are missing in one line and too many in the next do not cancel out.
    text += "1\tw\t_\t_\t_\t_\t0\t_\t_\n2\tw\t_\t_\t_\t_\t1\t_\t_\t_\t_\n\n"
    rows, bad = aside(put(tmp_path, text.encode() + b"# \xff\n" + sentence("1 0").encode()))
    assert [row.line for row in rows] == [6] and [b.line for b in bad] == [2, 4, 8, 10, 13]
    assert (
        "found 9 cells" in bad[0].reason
        and "no word" in bad[1].reason
        and "found 2 cells" in bad[2].reason
        and "0xff" in bad[4].reason
    )


def test_heads_that_nobody_annotated(tmp_path):
    (row,) = formats.read(put(tmp_path, sentence("1 _", "2 _")))
    assert row.fields["head"] == [None, None] and written([row.fields]).decode() == sentence(
        "1 _", "2 _"
    )


NO_TREES = {
    ("1 0", "2 3"): "the head of word 2 is 3, expected a number from 0 (the root) to 2",
    ("1 0", "2 0"): "2 words hang on the root",
    ("1 2", "2 1"): "0 words hang on the root",
    ("1 0", "2 3", "3 4", "4 2"): "the heads form a circle (2 -> 3 -> 4 -> 2)",
    ("1 0", "2 2"): "word 2 is its own head",
    ("1 0", "2 x"): "the head of word 2 is 'x'",
    ("1 0", "2 -1"): "the head of word 2 is '-1'",
    ("1 0", "2 _"): "the head of word 2 is null",
    ("1 0", "2 \u0661"): "the head of word 2 is",
}


@pytest.mark.parametrize("lines", NO_TREES)
def test_heads_are_checked_where_a_tree_is_asked_for(tmp_path, lines):
    text = sentence(*lines)
    (row,) = formats.read(put(tmp_path, text))
    assert written([row.fields]).decode() == text
    assert tag_record(row, Columns(tags="upos", tokens="form")).tags == ("_",) * len(lines)
    with pytest.raises(DataError, match=rf"a\.conllu:1: .*{re.escape(NO_TREES[lines])}"):
        parse_record(row, Columns())


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=7))
def test_trees_are_told_from_the_rest_as_by_walking(heads):
    """Against the definition: one root, and from every word the heads lead there."""
    row = Row(
        {
            "form": [*map(str, heads)],
            "head": ours._heads([str(head) for head in heads]),
            "deprel": [*map(str, heads)],
        },
        "a.conllu",
        1,
    )

    def arrives(word):
        seen = set()
        while word and word not in seen and word <= len(heads):
            seen.add(word)
            word = heads[word - 1]
        return word == 0

    tree = (
        heads.count(0) == 1
        and max(heads) <= len(heads)
        and all(arrives(i + 1) for i in range(len(heads)))
    )
    try:
        found = parse_record(row, Columns()).heads
    except DataError:
        found = None
    assert found == (tuple(heads) if tree else None)


def test_writing_rows_that_were_not_read():
    row = {"form": ["a", "b"], "upos": ["X", "Y"], "head": [0, 1], "text": "a b"}
    assert (
        written([row]).decode()
        == "# text = a b\n1\ta\t_\tX\t_\t_\t0\t_\t_\t_\n2\tb\t_\tY\t_\t_\t1\t_\t_\t_\n\n"
    )
    for wrong, part in (
        ({**row, "upos": ["X"]}, "found 1 cells of 'upos' and 2 forms"),
        ({**row, "form": ["a\tb", "c"]}, "found 11 cells"),
        ({**row, "form": ["a\nb", "c"]}, "a line break"),
        ({**row, "label": 1}, "'label'"),
        ({**row, "comments": ["# text = b"]}, "text is 'a b', but the comments have 'b'"),
        ({**row, "comments": ["text = a b"]}, "the comments have 'None'"),
        ({"text": "x"}, "at least one"),
    ):
        with pytest.raises(DataError, match=re.escape(part)):
            written([wrong])


@pytest.mark.parametrize("name", FILES)
def test_real_treebanks_survive_byte_for_byte(name):
    path = real(name)
    rows = formats.read(path)
    assert len(rows) == FILES[name]
    assert written(row.fields for row in rows) == gzip.decompress(path.read_bytes())


@pytest.mark.parametrize(
    "name",
    ["ud_english_ewt/en_ewt-ud-dev.conllu.gz", "ud_german_gsd_devtest/de_gsd-ud-dev.conllu.gz"],
)
def test_real_trees_are_those_of_the_library(name):
    library = pytest.importorskip("conllu", reason="needs conllu")
    path = real(name)
    text = gzip.decompress(path.read_bytes()).decode()
    for row, tree in zip(formats.read(path), library.parse(text), strict=True):
        words = [token for token in tree if isinstance(token["id"], int)]
        assert row.fields["form"] == [t["form"] for t in words] and row.fields["head"] == [
            t["head"] for t in words
        ]
        assert row.fields["deprel"] == [t["deprel"] for t in words] and row.fields["upos"] == [
            t["upos"] for t in words
        ]
        assert [ours.features(cell) for cell in row.fields["feats"]] == [
            {k: v.split(",") for k, v in (t["feats"] or {}).items()} for t in words
        ]
        assert len(row.fields["multiword"]) + len(row.fields["empty"]) == len(tree) - len(words)
        assert (
            row.fields["text"] == tree.metadata["text"]
            and row.fields["sent_id"] == tree.metadata["sent_id"]
        )
