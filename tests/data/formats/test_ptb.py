"""The Penn Treebank's layouts, on small files written by hand in them, with nltk as the oracle."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.data import formats
from jaxsft.errors import ConfigError, DataError

TREES = """\
*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x
*x*  A banner, as in the files   *x*

( (S
    (NP-SBJ-1
      (NP (NNP Ann) (NNP Lee) )
      (, ,)
      (ADJP
        (NP (CD 61) (NNS years) )
        (JJ old) ))
    (VP (MD will)
      (VP (VB join)
        (S (NP-SBJ (-NONE- *-1) )
          (VP (TO to)  (VB sell)
            (NP=2 (CD 1\\/2) (-LRB- -LRB-) (NN \\*) (-RRB- -RRB-) )))))
    (. .) ))
( (NP (NN x)))
"""
TAGGED = """\
*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x


======================================

[ Ann/NNP Lee/NNP ]
,/, 
[ 61/CD years/NNS ]
old/JJ ,/, said/VBD ``/`` No/UH ./. ''/'' 
[ Mr./NNP Lee/NNP ]
ate/VBD 1\\/2/CD a/b/NN|VB -LRB-/-LRB- //SYM
[ the/DT
pie/NN ]
./. 

======================================

Bye/UH !/.
"""


def put(folder, content, name="a.mrg"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def words(text):
    return text.split()


def fields(path, **options):
    return [row.fields for row in formats.read(path, options=options)]


def aside(path):
    bad = []
    return list(formats.stream(path, quarantine=bad.append)), bad


def test_a_tree_over_many_lines(tmp_path):
    path = put(tmp_path, TREES)
    first, second = formats.read(path)
    row = first.fields
    assert (first.line, second.line) == (4, 17)
    assert row["tokens"] == words(
        "Ann Lee , 61 years old will join *-1 to sell 1\\/2 -LRB- \\* -RRB- ."
    )
    assert row["pos"] == words("NNP NNP , CD NNS JJ MD VB -NONE- TO VB CD -LRB- NN -RRB- .")
    assert (
        row["spans"][:4] == [[0, 16, "S"], [0, 6, "NP-SBJ-1"], [0, 2, "NP"], [3, 6, "ADJP"]]
        and [11, 15, "NP=2"] in row["spans"]
    )
    assert (
        row["tree"].startswith("( (S (NP-SBJ-1 (NP (NNP Ann) (NNP Lee)) (, ,) (ADJP (NP")
        and second.fields["tree"] == "( (NP (NN x)))"
    )


def test_function_tags_traces_and_escapes(tmp_path):
    path = put(tmp_path, TREES)
    row = fields(path, functions="strip", traces="drop", escapes="unescape")[0]
    assert (
        row["tokens"] == words("Ann Lee , 61 years old will join to sell 1/2 ( * ) .")
        and "-NONE-" not in row["pos"]
    )
    assert row["spans"] == [
        [0, 15, "S"],
        [0, 6, "NP"],
        [0, 2, "NP"],
        [3, 6, "ADJP"],
        [3, 5, "NP"],
        [6, 14, "VP"],
        [7, 14, "VP"],
    ] + [
        [8, 14, "S"],
        [8, 14, "VP"],
        [10, 14, "NP"],
    ]
    assert "(-LRB- -LRB-)" in row["tree"] and "NP-SBJ" not in row["tree"] and "\\*" in row["tree"]
    path = put(tmp_path, "( (NP (-NONE- *)))\n( (X (NN x)))\n", "b.mrg")
    with pytest.raises(DataError, match=r"b\.mrg:1: the tree holds traces only"):
        fields(path, traces="drop")
    assert len(fields(path)) == 2
    with pytest.raises(ConfigError, match=r"data\.options\.traces='no'"):
        fields(path, traces="no")


def test_brackets_that_do_not_close(tmp_path):
    good = "( (S (NN x)) )\n"
    text = (
        f"{good}( (S (NP (NN a))\n  (VP (VB b))\n{good}( (S (NN c))))\n\n(X (Y y)\n\n(X (Y"
        f" z))\nword\n{good}( (S (NN d))\n"
    )
    rows, bad = aside(put(tmp_path, text))
    assert [row.line for row in rows] == [1, 4, 5, 9, 11] and [b.line for b in bad] == [
        2,
        5,
        7,
        10,
        12,
    ]
    parts = [
        "2 brackets of the tree are not closed before line 4",
        "found '( (S (NN c))))'",
        "before line 9",
        "'word'",
        "the end of the file",
    ]
    assert all(part in b.reason for b, part in zip(bad, parts, strict=True))


@pytest.mark.parametrize(
    ("tree", "part"),
    [
        ("( (S (NN a b)))", "found the word 'b' in (NN"),
        ("( (S (NN a) word))", "found the word 'word' in (S"),
        ("( (S word (NN a)))", "found a bracket behind the word 'word'"),
        ("( (S (NN a (X b))))", "found a bracket behind the word 'a'"),
        ("( (S (NP) (NN a)))", "found (NP), a bracket without a word"),
        ("(NN a)", "found the leaf (NN a) by itself"),
        ("()", "found (), a bracket without a word"),
    ],
)
def test_what_is_no_tree(tmp_path, tree, part):
    rows, (bad,) = aside(put(tmp_path, f"( (S (NN x)))\n{tree}\n( (S (NN y)))\n"))
    assert [row.line for row in rows] == [1, 3] and bad.line == 2 and part in bad.reason


def test_deep_trees(tmp_path):
    deep = "(X " * 20_000 + "(NN x)" + ")" * 20_000
    (row,) = formats.read(put(tmp_path, deep))
    assert len(row.fields["spans"]) == 20_000 and row.fields["tokens"] == ["x"]


label = st.sampled_from(["S", "NP-SBJ", "VP", "NP", "ADVP|PRT"])
leaf = st.tuples(
    st.sampled_from(["NN", "-LRB-", ".", "-NONE-"]),
    st.sampled_from(["a", "-LRB-", "1\\/2", ".", "Zürich"]),
)
trees = st.recursive(
    leaf, lambda inner: st.tuples(label, st.lists(inner, min_size=1, max_size=4)), max_leaves=12
).filter(lambda t: isinstance(t[1], list))


def spelled(tree, gap):
    return (
        f"({tree[0]} {tree[1]})"
        if isinstance(tree[1], str)
        else f"({tree[0]}{gap}{gap.join(spelled(child, gap) for child in tree[1])})"
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(trees, min_size=1, max_size=3), st.sampled_from([" ", "\n  "]))
def test_trees_are_those_of_nltk_and_read_the_same_again(tmp_path_factory, found, gap):
    nltk = pytest.importorskip("nltk", reason="needs nltk")
    folder = tmp_path_factory.mktemp("t")
    path = put(folder, "\n".join(f"( {spelled(tree, gap)})" for tree in found))
    rows = fields(path)
    for row, tree in zip(rows, found, strict=True):
        theirs = nltk.Tree.fromstring(spelled(tree, " "))
        assert (
            row["tokens"] == theirs.leaves()
            and list(zip(row["tokens"], row["pos"], strict=True)) == theirs.pos()
        )
        spans = []
        for place in theirs.treepositions("preorder"):
            if isinstance(theirs[place], nltk.Tree) and isinstance(theirs[place][0], nltk.Tree):
                before = sum(
                    theirs.leaf_treeposition(i) < place for i in range(len(theirs.leaves()))
                )
                spans.append([before, before + len(theirs[place].leaves()), theirs[place].label()])
        assert row["spans"] == spans
    assert fields(put(folder, "\n".join(row["tree"] for row in rows))) == rows


# --- tagged text
# --------------------------------------------------------------------------------------------------
def test_tagged_text(tmp_path):
    path = put(tmp_path, TAGGED, "a.pos")
    first, second, third = formats.read(path)
    assert [row.line for row in (first, second, third)] == [6, 10, 18]
    assert first.fields["tokens"] == words(
        "Ann Lee , 61 years old , said `` No . ''"
    ) and first.fields["spans"] == [[0, 2, "NP"], [3, 5, "NP"]]
    assert second.fields["tokens"] == words(
        "Mr. Lee ate 1/2 a/b -LRB- / the pie ."
    ) and second.fields["pos"][3:7] == [
        "CD",
        "NN|VB",
        "-LRB-",
        "SYM",
    ]
    assert second.fields["spans"] == [[0, 2, "NP"], [7, 9, "NP"]] and third.fields["tokens"] == [
        "Bye",
        "!",
    ]
    whole = fields(path, sentence="paragraph")
    assert [row["tokens"] for row in whole] == [
        first.fields["tokens"] + second.fields["tokens"],
        third.fields["tokens"],
    ]
    assert fields(path, escapes="unescape")[1]["tokens"][5] == "("


def test_tagged_text_that_is_broken(tmp_path):
    text = (
        "a/NN b\n\n[ a/NN\n\nc/NN ]\n\n[ a/NN [ b/NN ]"
        " ]\n\n1\\/2\n\n/NN\n\na/\n\nok/UH\n\n\xff/NN\n"
    )
    rows, bad = aside(put(tmp_path, text.encode("latin-1"), "a.pos"))
    assert [row.line for row in rows] == [15] and [b.line for b in bad] == [
        1,
        3,
        5,
        7,
        9,
        11,
        13,
        17,
    ]
    for b, part in zip(
        bad,
        ["'b'", "not closed", "outside", "inside", "'1\\\\/2'", "'/NN'", "'a/'", "0xff"],
        strict=True,
    ):
        assert part in b.reason


def tagged(row):
    """Spells a sentence as tagged text, bracketed noun phrases on lines of their own."""
    parts = [
        f"{token.replace('/', chr(92) + '/')}/{tag}"
        for token, tag in zip(row["tokens"], row["pos"], strict=True)
    ]
    lines, last = [], 0
    for start, end, _ in row["spans"]:
        lines += [" ".join(parts[last:start]), f"[ {' '.join(parts[start:end])} ]"]
        last = end
    lines = [line for line in [*lines, " ".join(parts[last:])] if line]
    return "\n".join([*lines, "", "=" * 38, "", ""])


word = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\\"), min_size=1, max_size=5
).filter(lambda t: t.split() == [t] and not t.startswith("*x*"))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(word, st.sampled_from(["NN", ".", "''", "PRP$", "JJ|NN"]), st.booleans()),
            min_size=1,
            max_size=5,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_tagged_text_reads_as_it_was_spelled(tmp_path_factory, found):
    rows = []
    for words in found:
        spans = [[i, i + 1, "NP"] for i, (_, _, noun) in enumerate(words) if noun]
        rows.append(
            {
                "tokens": [w for w, _, _ in words],
                "pos": [tag for _, tag, _ in words],
                "spans": spans,
            }
        )
    path = tmp_path_factory.mktemp("p") / "a.pos"
    path.write_text("".join(map(tagged, rows)), encoding="utf-8", newline="")
    assert fields(path, sentence="paragraph") == rows


def test_both_are_told_by_their_beginning(tmp_path):
    for content, name in (
        (TREES, "ptb"),
        ("(ROOT\n  (S\n    (NP (NNP A))))", "ptb"),
        (TAGGED, "pos"),
    ):
        assert (
            formats.detect(formats.sources(put(tmp_path, content, f"{name}.unknown"))[0]).name
            == name
        )
    for content in ("(a b)\n", "(I think (so) too)\n", "and/or he/she\n", "12/3\n=====\n"):
        with pytest.raises(ConfigError):
            formats.detect(formats.sources(put(tmp_path, content, "x.unknown"))[0])
