"""Tags, trees and spans are validated word by word."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsft.config.schema import Columns
from jaxsft.data import formats, schemes
from jaxsft.data.formats import Row
from jaxsft.data.records import (
    SCHEMES,
    Parse,
    Spans,
    Tags,
    parse_record,
    span_record,
    tag_record,
    tags_of,
    words,
)
from jaxsft.errors import DataError
from tests.realdata import real


def row(**fields):
    return Row(fields, "data.conll", 117)


def tagged(*tags, **columns):
    return tag_record(
        row(tokens=[f"w{i}" for i in range(len(tags))], tags=list(tags)), Columns(**columns)
    )


# --- schemes
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scheme", SCHEMES[1:])
@given(
    segments=st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from([None, "PER", "LOC"])), min_size=1, max_size=6
    )
)
def test_what_a_scheme_writes_it_reads(scheme, segments):
    segments = [s for s in segments if s[1]] or [(1, "PER")] if scheme == "bmes" else segments
    ends = list(itertools.accumulate(length for length, _ in segments))
    spans = [
        (end - length, end, kind)
        for end, (length, kind) in zip(ends, segments, strict=True)
        if kind
    ]
    tags = schemes.tags(spans, ends[-1], scheme)
    assert tagged(*tags, scheme=scheme).scheme == scheme
    # auto may name another scheme, but none that reads them otherwise
    assert schemes.spans(tags, tagged(*tags).scheme) == spans


@pytest.mark.parametrize(
    "tags, scheme",
    [
        (("O", "I-X"), "iob2"),
        (("B-X", "I-Y"), "iob2"),
        (("B-X",), "iob1"),
        (("B-X", "O"), "iobes"),
        (("B-X", "E-Y"), "iobes"),
        (("S-X",), "iob2"),
        (("U-X", "NOUN"), "bilou"),
        (("S-X", "O"), "bmes"),
    ],
)
def test_tags_that_break_a_scheme_are_an_error(tags, scheme):
    with pytest.raises(
        DataError,
        match=(
            rf"data.conll:117: column 'tags': tag \d breaks {scheme}:"
            r" .*data.columns.scheme=auto\|none"
        ),
    ):
        tagged(*tags, scheme=scheme)
    assert tagged(*tags, scheme="none").tags == tags


def test_the_scheme_is_told_by_the_tags():
    told = {
        ("O", "O"): "iob2",
        ("B-X", "I-X"): "iob2",
        ("I-X", "O"): "iob1",
        ("S-X",): "iobes",
        ("U-X",): "bilou",
        ("B-X", "M-X", "E-X"): "bmes",
    }
    told |= {("NOUN", "VERB"): "none", ("B-X", "NOUN"): "none"}
    assert {tags: tagged(*tags).scheme for tags in told} == told
    with pytest.raises(DataError, match="breaks every scheme"):
        tagged("I-X", "B-Y", "E-Y")


# --- words and tags
# --------------------------------------------------------------------------------------------------
def test_words_and_tags():
    assert tagged("O", "B-X") == Tags(("w0", "w1"), ("O", "B-X"), "iob2")
    assert tag_record(row(form=["a"], upos=["DET"]), Columns(tags="upos")) == Tags(
        ("a",), ("DET",), "none"
    )
    assert tag_record(row(w=["1"], t=[3]), Columns(tokens="w", tags="t")) == Tags(
        ("1",), ("3",), "none"
    )
    assert tag_record(row(tokens='["a", "b"]', tags='["O", "O"]'), Columns()).tokens == ("a", "b")


@pytest.mark.parametrize(
    "fields, part",
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "'tokens' has 2 items and 'tags' has 1"),
        ({"tokens": [], "tags": []}, "column 'tokens' is empty"),
        ({"tokens": ["a", " "], "tags": ["O", "O"]}, "' ' at place 2"),
        ({"tokens": ["a", None], "tags": ["O", "O"]}, "null at place 2"),
        ({"tokens": "a b", "tags": ["O"]}, "expected a list; set data.columns.tokens"),
        ({"tokens": ["a"]}, "missing column 'tags'.*data.columns.tags"),
        ({"words": ["a"]}, "missing column 'tokens'.*data.columns.tokens"),
    ],
)
def test_malformed_lists(fields, part):
    with pytest.raises(DataError, match=f"^data.conll:117: .*{part}"):
        tag_record(row(**fields), Columns())


# --- spans
# --------------------------------------------------------------------------------------------------
TEXT = "Fly from New York to 北京, today"


@pytest.mark.parametrize(
    "spans",
    [
        [[9, 17, "city"], [21, 23, "city"]],
        [
            {"start": 21, "end": 23, "label": "city"},
            {"start": 9, "end": 17, "type": "city", "text": "New York"},
        ],
        {"city": {"text": "New York", "span": [9, 17]}, "to": {"span": [21, 23]}},
    ],
)
def test_spans_of_any_form_become_tags(spans):
    record = span_record(row(text=TEXT, slots=spans), Columns(spans="slots"))
    kinds = [label for _, _, label in record.spans]
    assert [TEXT[a:b] for a, b, _ in record.spans] == ["New York", "北京"] and record == Spans(
        TEXT, record.spans
    )
    tags = tag_record(row(text=TEXT, slots=spans), Columns(spans="slots"))
    assert (
        tags.tokens == ("Fly", "from", "New", "York", "to", "北", "京", ",", "today")
        and tags.scheme == "iob2"
    )
    assert tags.tags == (
        "O",
        "O",
        f"B-{kinds[0]}",
        f"I-{kinds[0]}",
        "O",
        f"B-{kinds[1]}",
        f"I-{kinds[1]}",
        "O",
        "O",
    )


def test_segments():
    segments = [{"text": "play "}, {"text": "Cita Romántica", "entity": "song"}, {"text": ". "}]
    assert span_record(row(data=segments), Columns(spans="data")) == Spans(
        "play Cita Romántica. ", ((5, 19, "song"),)
    )


@pytest.mark.parametrize(
    "spans, part",
    [
        ([[0, 0, "x"]], "span 1 goes from 0 to 0"),
        ([[-1, 2, "x"]], "from -1 to 2"),
        ([[0, len(TEXT) + 1, "x"]], f"inside a text of {len(TEXT)}"),
        ([[0, 3.0, "x"]], "whole characters"),
        ([[0, 3, ""]], "name of a label"),
        ([[0, 3]], r"expected \[start, end, label\]"),
        ("x", "expected a list of spans"),
        ([{"start": 0, "end": 3, "label": "x", "text": "Fl"}], "says 'Fl', but the text has 'Fly'"),
    ],
)
def test_malformed_spans(spans, part):
    with pytest.raises(DataError, match=f"^data.conll:117: column 'spans'.*{part}"):
        span_record(row(text=TEXT, spans=spans), Columns())


def test_absent_spans_are_an_error_unless_they_are_allowed():
    assert span_record(row(text=TEXT), Columns(spans="slots", allow=["absent"])) == Spans(TEXT, ())
    with pytest.raises(
        DataError,
        match=r"missing column 'slots'.*set data.columns.allow=\[absent\], or data.columns.spans=",
    ):
        span_record(row(text=TEXT), Columns(spans="slots"))
    with pytest.raises(DataError, match="holds null, expected a list of spans"):
        span_record(row(text=TEXT, spans=None), Columns())


def test_spans_that_fit_no_words():
    for spans, part in (
        ([[1, 3, "x"]], "cuts a word"),
        ([[3, 4, "x"]], "holds no word"),
        ([[9, 17, "x"], [13, 20, "y"]], "overlaps"),
    ):
        with pytest.raises(DataError, match=part):
            tag_record(row(text=TEXT, spans=spans), Columns())
    assert (
        tag_record(row(text=TEXT, spans=[[1, 3, "x"]]), Columns(allow=["partial_words"])).tags[0]
        == "B-x"
    )


@given(st.text(max_size=40))
def test_words_keep_every_character_but_white_space(text):
    places = words(text)
    assert all(a < b and text[a:b].strip() == text[a:b] for a, b in places)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(places))
    assert "".join(text[a:b] for a, b in places) == "".join(text.split())


def test_a_text_without_words():
    with pytest.raises(DataError, match="has no word"):
        tags_of(Spans("  ", ()), "x")


# --- trees
# --------------------------------------------------------------------------------------------------
def tree(*heads, **columns):
    count = len(heads)
    return parse_record(
        row(form=["w"] * count, head=list(heads), deprel=["dep"] * count, upos=["X"] * count),
        Columns(**columns),
    )


def test_trees():
    assert tree("2", 0, "2") == Parse(("w",) * 3, (2, 0, 2), ("dep",) * 3, {"upos": ("X",) * 3})
    assert parse_record(row(tokens=["a"], heads=[0], deprels=["root"]), Columns()).heads == (0,)
    assert tree(0, 0, allow=["several_roots"]).heads == (0, 0)


@pytest.mark.parametrize(
    "heads, part",
    [
        ((0, 0), r"2 words hang on the root \(1, 2\).*data.columns.allow=\[several_roots\]"),
        ((2, 1), r"0 words hang on the root \(none\)"),
        ((0, 3, 4, 2), "circle .2 -> 3 -> 4 -> 2."),
        ((1, 0), "word 1 is its own head"),
        ((0, 3), "head of word 2 is 3, expected a number from 0"),
        ((0, -1), "head of word 2 is -1"),
        ((0, None), "head of word 2 is null"),
        ((0, "_"), "head of word 2 is '_'"),
    ],
)
def test_what_is_no_tree(heads, part):
    with pytest.raises(DataError, match=f"^data.conll:117: column 'head': .*{part}"):
        tree(*heads)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=6))
def test_trees_are_those_in_which_every_word_reaches_the_one_root(heads):
    count = len(heads)

    def reaches(word):
        for _ in range(count + 1):
            if word == 0:
                return True
            word = heads[word - 1]
        return False

    good = (
        all(h <= count for h in heads)
        and heads.count(0) == 1
        and all(map(reaches, range(1, count + 1)))
    )
    try:
        tree(*heads)
    except DataError:
        assert not good
    else:
        assert good


# --- real files
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("domain", ["banking", "hotels"])
def test_slots_of_nlupp(domain):
    columns = Columns(spans="slots", allow=["absent"])
    for found in formats.stream(real(f"nlupp_multilabel/{domain}/fold0.json")):
        spans = span_record(found, columns)
        for start, end, label in spans.spans:
            assert found.fields["slots"][label]["text"] == spans.text[start:end]


@pytest.mark.parametrize("language", ["english", "german", "chinese", "arabic"])
def test_trees_of_parallel_treebanks(language):
    (file,) = real(f"ud_{language}_pud").glob("*.conllu.gz")
    records = [parse_record(found, Columns()) for found in formats.stream(file)]
    assert len(records) == 1000 and all(
        len(r.tokens) == len(r.heads) == len(r.more["upos"]) for r in records
    )


@pytest.mark.parametrize(
    "file, rows",
    [
        ("wnut17/wnut17train.conll.gz", 3394),
        ("uner_english_ewt_devtest/en_ewt-ud-dev.iob2.gz", 2001),
    ],
)
def test_tags_of_real_files(file, rows):
    records = [tag_record(found, Columns()) for found in formats.stream(real(file))]
    assert len(records) == rows and {r.scheme for r in records} == {"iob2"}


@pytest.mark.parametrize(
    "fields, name",
    [
        ({"text": "Ann", "entities": [[0, 3, "PER"]]}, "entities"),
        ({"text": "Ann", "ents": [{"start": 0, "end": 3, "label": "PER"}]}, "ents"),
        ({"text": "Ann", "tokens": [{"text": "Ann", "start": 0, "end": 3}], "spans": []}, "spans"),
    ],
)
def test_a_column_of_spans_is_named_where_words_are_missing(fields, name):
    with pytest.raises(
        DataError, match=rf"column '{name}' of spans of its text: set data\.columns\.spans={name}"
    ):
        tag_record(row(**fields), Columns())


def test_other_lists_are_no_spans():
    with pytest.raises(
        DataError, match=r"missing column 'tokens'.*set data\.columns\.tokens=<column>"
    ):
        tag_record(row(text="Ann", vector=[[0, 1, 2]], words=["Ann"]), Columns())
