"""Chunk schemes against each other, against seqeval, and by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.data import schemes
from jaxsft.errors import ConfigError, DataError

TYPES = ("PER", "ORG", "weather/attribute", "B-nested", "")


@st.composite
def spanned(draw, gaps=True, types=TYPES):
    """Spans that do not overlap, and how many tokens they lie in."""
    found, at = [], 0
    for _ in range(draw(st.integers(0, 5))):
        at += draw(st.integers(0, 2)) if gaps else 0
        end = at + draw(st.integers(1, 4))
        found.append((at, end, draw(st.sampled_from(types))))
        at = end
    return found, at + (draw(st.integers(0, 2)) if gaps else 0)


@pytest.mark.parametrize("scheme", schemes.SCHEMES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_spans_to_tags_and_back(scheme, data):
    spans, length = data.draw(spanned(gaps=schemes.SCHEMES[scheme].outside))
    tags = schemes.tags(reversed(spans), length, scheme)
    assert len(tags) == length and not schemes.problems(tags, scheme)
    assert schemes.spans(tags, scheme) == spans == schemes.spans(tags, scheme, repair=True)


@pytest.mark.parametrize("scheme", schemes.SCHEMES)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_tags_without_problems_survive_a_round_trip_and_those_with_do_not(scheme, data):
    """So that `problems` is neither too strict nor too lax: valid means spelled as the scheme
    spells its spans.
    """
    alphabet = [
        f"{p}-{t}" if p != "O" else p
        for p in sorted(schemes.SCHEMES[scheme].prefixes)
        for t in ("X", "Y")
    ]
    tags = data.draw(st.lists(st.sampled_from(alphabet), max_size=7))
    good, changed = schemes.repaired(tags, scheme)
    assert not schemes.problems(good, scheme)
    assert (not schemes.problems(tags, scheme)) == (good == tags) == (changed == 0)
    assert schemes.spans(good, scheme) == schemes.spans(tags, scheme, repair=True)


@pytest.mark.parametrize("target", schemes.SCHEMES)
@pytest.mark.parametrize("source", schemes.SCHEMES)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_scheme_to_any_other_and_back(source, target, data):
    spans, length = data.draw(
        spanned(gaps=schemes.SCHEMES[source].outside and schemes.SCHEMES[target].outside)
    )
    tags = schemes.tags(spans, length, source)
    assert schemes.convert(schemes.convert(tags, source, target), target, source) == tags


def test_by_hand():
    spans = [(0, 1, "A"), (1, 3, "A"), (4, 7, "B")]
    expected = {
        "iob1": "I-A B-A I-A O I-B I-B I-B",
        "iob2": "B-A B-A I-A O B-B I-B I-B",
        "iobes": "S-A B-A E-A O B-B I-B E-B",
        "bilou": "U-A B-A L-A O B-B I-B L-B",
        "bmeso": "S-A B-A E-A O B-B M-B E-B",
    }
    for scheme, tags in expected.items():
        assert schemes.tags(spans, 7, scheme) == tags.split()
    assert schemes.tags([(0, 2, ""), (2, 3, "")], 3, "bmes") == ["B", "E", "S"]
    assert schemes.named("BIOES") == "iobes"


@pytest.mark.parametrize(
    ("tags", "scheme", "positions"),
    [
        ("O I-A", "iob2", [1]),
        ("B-A I-B I-B", "iob2", [1]),
        ("B-A O", "iob1", [0]),
        ("I-A B-B", "iob1", [1]),
        ("B-A O", "iobes", [0]),
        ("B-A I-A", "iobes", [1]),
        ("E-A", "iobes", [0]),
        ("B-A E-B", "iobes", [1]),
        ("S-A I-A O", "iobes", [1, 1]),  # opens without B, and does not end
        ("B-A I-A L-A", "iobes", [2]),
        ("B O E", "bmes", [1, 2]),
        ("B-A X", "iob2", [1]),
        ("O-A", "iob2", [0]),
    ],
)
def test_problems_name_their_position(tags, scheme, positions):
    found = schemes.problems(tags.split(), scheme)
    assert [position for position, _ in found] == positions
    with pytest.raises(DataError, match=rf"tag {found[0][0] + 1}: "):
        schemes.spans(tags.split(), scheme)


def test_repair_is_conllevals_and_is_counted():
    assert schemes.repaired(["O", "I-A", "I-B", "O", "B-A"], "iob2") == (
        ["O", "B-A", "B-B", "O", "B-A"],
        2,
    )
    assert schemes.repaired(["B-A", "O", "B-B", "I-B"], "iobes") == (["S-A", "O", "B-B", "E-B"], 2)
    total = schemes.counts([["O", "I-A"], ["B-A", "I-A"], ["O"]], "iob2")
    assert total == {
        "sentences": 3,
        "tags": 5,
        "spans": 2,
        "invalid_tags": 1,
        "invalid_sentences": 1,
    }
    with pytest.raises(DataError, match=r"tag 2: 'X' is no chunk tag"):
        schemes.spans(["O", "X"], "iob2", repair=True)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["O", *(f"{p}-{t}" for p in "BIES" for t in "XY")]), max_size=9))
def test_repair_finds_the_chunks_of_seqeval(tags):
    """seqeval's default mode is a port of conlleval. It ends a chunk before E that follows E alone,
    and so do we.
    """
    labelling = pytest.importorskip("seqeval.metrics.sequence_labeling", reason="needs seqeval")
    expected = [(start, end + 1, type_) for type_, start, end in labelling.get_entities(tags)]
    assert schemes.spans(tags, "iobes", repair=True) == expected


@pytest.mark.parametrize(
    ("scheme", "theirs"),
    [("iob1", "IOB1"), ("iob2", "IOB2"), ("iobes", "IOBES"), ("bilou", "BILOU")],
)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_valid_spans_are_those_of_seqeval(scheme, theirs, data):
    seqeval = pytest.importorskip("seqeval.scheme", reason="needs seqeval")
    spans, length = data.draw(spanned(types=("PER", "ORG")))
    entities = seqeval.Entities(
        [schemes.tags(spans, length, scheme)], getattr(seqeval, theirs)
    ).entities[0]
    assert [(e.start, e.end, e.tag) for e in entities] == spans


@pytest.mark.parametrize(
    "spans", [[(0, 0, "A")], [(0, 5, "A")], [(-1, 1, "A")], [(0, 2, "A"), (1, 3, "A")]]
)
def test_spans_that_no_tags_spell(spans):
    with pytest.raises(DataError, match=r"the span \("):
        schemes.tags(spans, 4, "iob2")
    with pytest.raises(DataError, match="token 2 is in no span, and bmes has no tag for that"):
        schemes.tags([(0, 1, "")], 2, "bmes")
    with pytest.raises(ConfigError, match="iob2"):
        schemes.spans([], "conll")


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(list(schemes.SCHEMES)),
    st.lists(spanned(gaps=False, types=("PER",)), min_size=1, max_size=4),
)
def test_detect_finds_a_scheme_in_which_the_tags_are_valid(scheme, sentences):
    tags = [schemes.tags(spans, length, scheme) for spans, length in sentences]
    found = schemes.detect(tags)
    if not any(map(len, tags)):
        assert found is None
        return
    assert not any(schemes.problems(sentence, found) for sentence in tags)
    if any(
        length > 2 for spans, _ in sentences for length in [end - start for start, end, _ in spans]
    ) and scheme not in ("bmeso", "iob1"):
        assert (
            found == scheme
            or len(set("".join(tag[0] for sentence in tags for tag in sentence))) < 3
        )


def test_detect_by_hand():
    detect = lambda *sentences: schemes.detect([sentence.split() for sentence in sentences])
    assert detect("O B-A I-A", "B-B O") == "iob2"
    assert detect("O I-A I-A", "I-B B-B") == "iob1"
    assert detect("O B-A I-A E-A S-B") == "iobes" and detect("B-A I-A L-A U-B O") == "bilou"
    assert detect("B M E S") == "bmes" and detect("B-A M-A E-A O") == "bmeso"
    assert detect("O O") is None and detect("NN VB") is None
    assert detect(*["O B-A I-A"] * 5, "O I-A") == "iob2"  # a mistake does not hide the scheme
