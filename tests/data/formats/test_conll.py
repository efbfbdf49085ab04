"""Column files: every trap of real ones, and the real ones."""

import gzip
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxsft.data import formats, schemes
from jaxsft.errors import ConfigError, DataError
from tests.realdata import real


def put(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def found(path, **options):
    return [(row.line, row.fields) for row in formats.read(path, format="conll", options=options)]


def aside(path, **options):
    bad = []
    rows = list(formats.stream(path, options=options, quarantine=bad.append))
    return rows, bad


def counted(source):
    """`rows=` of every file that SOURCE.txt names."""
    return {
        m[1]: int(m[2])
        for m in re.finditer(r"^ +(\S+) <- .* rows=(\d+)", source.read_text(), re.MULTILINE)
    }


# --- layouts
# --------------------------------------------------------------------------------------------------
def test_sentences_end_at_empty_lines_and_at_lone_tabs_and_spaces(tmp_path):
    path = put(tmp_path, "a.conll", "\n\nA\tO\nb\tB-x\r\n\t\nc\tO\n\t \t\n\nd\tO")
    assert found(path) == [
        (3, {"tokens": ["A", "b"], "tags": ["O", "B-x"]}),
        (6, {"tokens": ["c"], "tags": ["O"]}),
        (9, {"tokens": ["d"], "tags": ["O"]}),
    ]


def test_docstart_is_no_row_but_a_document(tmp_path):
    text = (
        "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\n. . O O\n\nHi UH O O\n-DOCSTART- (2 UK) -X-"
        " O\nBye UH O O\n\n"
    )
    rows = found(put(tmp_path, "a.conll", text))
    assert [(line, row["document"], row["tokens"]) for line, row in rows] == [
        (3, "1", ["EU", "."]),
        (6, "1", ["Hi"]),
        (8, "2 UK", ["Bye"]),
    ]
    assert (
        rows[0][1]["tags"] == ["B-ORG", "O"]
        and rows[0][1]["column_1"] == ["NNP", "."]
        and rows[0][1]["column_2"] == ["B-NP", "O"]
    )
    line = "bc/cctv 0 {} {} IN (TOP* - - - Speaker#1 {} -\n"  # CoNLL-2012 has twelve columns
    text = (
        "#begin document (bc/cctv); part 000\n"
        + line.format(0, "In", "*")
        + line.format(1, "may", "(DATE*)")
        + "\n"
    )
    text += (
        line.format(0, "On", "*")
        + "\n#end document\n#begin document (bc/cctv); part 001\n"
        + line.format(0, "At", "*")
        + "#end document\n"
    )
    rows = found(put(tmp_path, "c.conll", text), tokens="3", tags="10", scheme="raw")
    assert [(row["document"], row["tokens"], row["tags"]) for _, row in rows] == [
        ("bc/cctv; part 000", ["In", "may"], ["*", "(DATE*)"]),
        ("bc/cctv; part 000", ["On"], ["*"]),
        ("bc/cctv; part 001", ["At"], ["*"]),
    ]
    assert found(put(tmp_path, "b.conll", "-DOCSTART-\tO\n\n-DOCSTART-s\tO\n"))[0][1]["tokens"] == [
        "-DOCSTART-s"
    ]


def test_a_header_names_the_columns(tmp_path):
    text = "TOKEN\tNE-COARSE\tNE-FINE\tMISC\n# hipe:id = 7\nA\tB-x\tB-x.y\t_\nb\tO\tO\tNo|Space\n"
    path = put(tmp_path, "a.conll", text)
    expected = {
        "tokens": ["A", "b"],
        "tags": ["B-x", "O"],
        "NE-FINE": ["B-x.y", "O"],
        "MISC": ["_", "No|Space"],
        "hipe:id": "7",
    }
    assert found(path) == [(2, expected)]
    fine = found(path, tags="NE-FINE")[0][1]
    assert (
        fine["tags"] == ["B-x.y", "O"]
        and fine["NE-COARSE"] == ["B-x", "O"]
        and found(path, tags="2") == found(path, tags="NE-FINE")
    )
    assert found(path, tags="none", header="true")[0][1]["NE-COARSE"] == ["B-x", "O"]
    # A first token `word` is no header where its tag is a tag, or comes again.
    assert found(put(tmp_path, "b.conll", "word\tO\nis\tO\n"))[0][0] == 1
    assert found(put(tmp_path, "c.conll", "word pos\nof pos\n"))[0][0] == 1
    assert found(put(tmp_path, "d.conll", "# global.columns = ID FORM NE\n1\tA\tO\n2\tb\tB-x\n"))[
        0
    ][1] == {
        "tokens": ["A", "b"],
        "tags": ["O", "B-x"],
        "ID": ["1", "2"],
    }
    with pytest.raises(
        ConfigError, match=r"data\.options\.tags='NE': .* has the columns TOKEN, NE-COARSE"
    ):
        found(path, tags="NE")


def test_ids_before_the_tokens_with_ranges(tmp_path):
    text = (
        "# sent_id = a\n# text ="
        " don't\n1-2\tdon't\t-\n1\tdo\tO\n2\tn't\tB-x\n2.1\tnot\t-\n\n1\tgo\tO\n"
    )
    path = put(tmp_path, "a.iob2", text)
    (line, first), (_, second) = found(path)
    assert (
        line == 1
        and first["tokens"] == ["do", "n't"]
        and first["tags"] == ["O", "B-x"]
        and first["column_0"] == ["1", "2"]
    )
    assert first["multiword"] == [["1-2", "don't", "-"], ["2.1", "not", "-"]] and (
        first["sent_id"],
        first["text"],
    ) == ("a", "don't")
    assert second == {"tokens": ["go"], "tags": ["O"], "column_0": ["1"]}
    formats.write([first, second], tmp_path / "b.iob2")
    assert [row for _, row in found(tmp_path / "b.iob2")] == [first, second]
    # Where the empty line between two sentences is lost, the ids tell.
    _, (bad,) = aside(put(tmp_path, "c.iob2", "1\ta\tO\n2\tb\tO\n1\tc\tO\n\n1\td\tO\n\n1\te\tO\n"))
    assert bad.line == 3 and "found the id '1', expected 3" in bad.reason


def test_comments_keep_their_keys_and_tokens_may_begin_with_a_hash(tmp_path):
    text = (
        "# text = a = b\n# intent: x/y\n# slots: 0:1:a,2:3:b\n# free words\n#FF\tO\n#\tO\n#"
        " 1\tO\n\n#\tB-x\n"
    )
    (_, first), (_, second) = found(put(tmp_path, "a.conll", text))
    assert (
        first["tokens"] == ["#FF", "#", "# 1"]
        and first["text"] == "a = b"
        and first["intent"] == "x/y"
        and first["slots"] == "0:1:a,2:3:b"
    )
    assert first["comment"] == "free words" and second == {"tokens": ["#"], "tags": ["B-x"]}
    # MultiCoNER's comments have as many cells as its tokens; a comment of the name of a column does
    # not hide it.
    text = "# id 52-a3\tdomain=en\n# tokens = 2\na _ _ B-x\n# _ _ O\n"
    ((_, row),) = found(put(tmp_path, "b.conll", text))
    assert (
        row["tokens"] == ["a", "#"]
        and row["id"] == "52-a3\tdomain=en"
        and row["comment:tokens"] == "2"
    )
    _, (bad,) = aside(put(tmp_path, "c.conll", "a\tO\n\n# left = over\n"))
    assert bad.line == 3 and "no sentence" in bad.reason


def onto(*rows):
    """Sentences of CoNLL-2012: word, entity, and columns of arguments."""
    lines = (
        f"bc/cctv 0 {i} {word} NN (TOP* - - - Speaker#1 {entity} {arguments}-"
        for i, (word, entity, arguments) in enumerate(rows)
    )
    return "\n".join(lines) + "\n\n"


def test_entities_of_ontonotes_are_tags_and_its_columns_may_differ_in_number(tmp_path):
    text = (
        "#begin document (bc/cctv); part 000\n"
        + onto(("In", "*", ""), ("May", "(DATE)", ""))
        + "#end document\n"
    )
    text += onto(
        ("the", "(GPE*", "* (V*) "),
        ("U.S.", "*", "* * "),
        ("now", "*)", "* * "),
        ("!", "*", "* * "),
    )
    text += onto(("#1", "(ORG*)", "* "), ("x", "*", "(V*) "))
    text += (
        onto(("a", "(X*", "")) + onto(("a", "*)", "")) + onto(("a", "(X*", ""), ("b", "(Y*)", ""))
    )
    path = put(tmp_path, "a.txt", text)
    rows, bad = aside(path)
    assert [row.fields["tokens"] for row in rows] == [
        ["In", "May"],
        ["the", "U.S.", "now", "!"],
        ["#1", "x"],
    ]
    assert [row.fields["tags"] for row in rows] == [
        ["O", "B-DATE"],
        ["B-GPE", "I-GPE", "I-GPE", "O"],
        ["B-ORG", "O"],
    ]
    assert (
        rows[0].fields["pos"] == ["NN", "NN"]
        and len(bad) == 3
        and "(X is not closed" in bad[0].reason
        and "one is open at a time" in bad[1].reason
    )
    assert (
        aside(path, tags="pos")[0][0].fields["tags"] == ["NN", "NN"]
        and len(aside(path, tags="pos")[1]) == 0
    )


@pytest.mark.parametrize(
    "word", ["#win=5", "#id", "#help:", "#a=b", "#newpar", "#sent_id", "##", "#"]
)
@pytest.mark.parametrize("tags", [("O", "B-x"), ("NN", "VB")])
@pytest.mark.parametrize("sign", [" ", "\t"])
def test_words_that_begin_with_a_hash_are_words_where_they_have_a_tag(tmp_path, word, tags, sign):
    o, b = tags
    line = lambda first, tag: f"{first}{sign}{tag}\n"
    text = (
        f"{line('a', o)}{line('b', b)}\n{line(word, o)}{line('c', b)}\n"
        f"{line('d', b)}{line(word, o)}\n"
    )
    rows = found(put(tmp_path, "a.conll", text))
    assert [row["tokens"] for _, row in rows] == [["a", "b"], [word, "c"], ["d", word]] and not any(
        set(row) - {"tokens", "tags"} for _, row in rows
    )


def test_a_comment_that_ends_like_a_tag_is_one_and_a_word_with_a_column_too_many_is_bad(tmp_path):
    text = "# text = see O\n# sent_id = O\na O\nb B-x\n\nc O\n# d O\n"
    rows, (bad,) = aside(put(tmp_path, "a.conll", text))
    assert rows[0].fields["text"] == "see O" and rows[0].fields["tokens"] == ["a", "b"]
    assert bad.line == 7 and "found 3 columns" in bad.reason


def test_tokens_with_spaces_where_tabs_separate_and_runs_of_spaces_elsewhere(tmp_path):
    assert found(put(tmp_path, "a.conll", "New York\tB-x\n10 000\tO\n"))[0][1] == {
        "tokens": ["New York", "10 000"],
        "tags": ["B-x", "O"],
    }
    assert found(put(tmp_path, "b.conll", "New   NNP  B-x \nYork\tNNP I-x\n1\xa0000 CD O\n"))[0][1][
        "tokens"
    ] == ["New", "York", "1\xa0000"]
    assert found(put(tmp_path, "c.conll", "New\nYork\n\nis\n")) == [
        (1, {"tokens": ["New", "York"]}),
        (4, {"tokens": ["is"]}),
    ]


def test_the_position_digit_of_characters(tmp_path):
    path = put(
        tmp_path, "a.conll", "科0\tO\n技1\tO\n全0\tB-PER.NAM\n方1\tI-PER.NAM\n10\tO\n\n好0\tO\n"
    )
    (_, row), _ = found(path)
    assert row == {
        "tokens": [*"科技全方1"],
        "tags": ["O", "O", "B-PER.NAM", "I-PER.NAM", "O"],
        "position": [*"01010"],
    }
    assert found(path, position_digit="keep")[0][1]["tokens"] == ["科0", "技1", "全0", "方1", "10"]
    headed = found(put(tmp_path, "d.conll", "char\ttag\n科0\tO\n技1\tO\n"))[0][1]
    assert headed == {"tokens": [*"科技"], "tags": ["O", "O"], "position": [*"01"]}
    assert found(put(tmp_path, "b.conll", "10\tO\n20\tO\n"))[0][1]["tokens"] == ["10", "20"]
    _, (bad,) = aside(put(tmp_path, "c.conll", "科0\tO\n技\tO\n"), position_digit="strip")
    assert bad.line == 2 and "position_digit=keep" in bad.reason


# --- broken sentences
# --------------------------------------------------------------------------------------------------
def test_a_broken_line_is_one_bad_sentence(tmp_path):
    text = b"a\tO\nb\n\nc\tO\n\nd\t\n\n\tO\n\ne\xff\tO\nf\tO\tO\n\ng\tO\n\nh\tO\tO\ni\n\nj\tO\n"
    rows, bad = aside(put(tmp_path, "a.conll", text))
    assert [row.fields["tokens"] for row in rows] == [["c"], ["g"], ["j"]] and [
        row.line for row in rows
    ] == [4, 13, 18]
    assert [b.line for b in bad] == [2, 6, 8, 10, 15]
    for b, part in zip(
        bad,
        ["1 columns between tabs, expected 2", "empty tag", "empty token", "0xff", "3 columns"],
        strict=True,
    ):
        assert part in b.reason
    with pytest.raises(
        DataError, match=r"a\.conll:2: found 1 columns .*; data\.on_bad_row=quarantine"
    ):
        formats.read(tmp_path / "a.conll")


def test_tags_are_checked_against_their_scheme(tmp_path):
    path = put(tmp_path, "a.conll", "a\tB-x\nb\tI-x\n\nc\tO\nd\tI-x\n\ne\tB-x\n")
    rows, (bad,) = aside(path)
    assert (
        len(rows) == 2
        and bad.line == 5
        and "token 2 of the sentence: 'I-x' stands behind 'O'" in bad.reason
        and "repair" in bad.reason
    )
    assert found(path, invalid="repair")[1][1]["tags"] == ["O", "B-x"] and found(
        path, invalid="keep"
    )[1][1]["tags"] == ["O", "I-x"]
    assert found(path, scheme="raw")[1][1]["tags"] == ["O", "I-x"]
    assert found(path, invalid="repair", to="iobes")[0][1]["tags"] == ["B-x", "E-x"]
    iob1 = put(tmp_path, "b.conll", "a\tI-x\nb\tI-x\nc\tB-x\n\nd\tO\ne\tI-y\n")  # I opens a chunk
    assert [row["tags"] for _, row in found(iob1)] == [["I-x", "I-x", "B-x"], ["O", "I-y"]]
    assert [row["tags"] for _, row in found(iob1, to="iob2")] == [
        ["B-x", "I-x", "B-x"],
        ["O", "B-y"],
    ]
    assert len(aside(iob1, scheme="iob2")[1]) == 2
    bmes = put(tmp_path, "c.bmes", "科\tB\n技\tM\n全\tE\n好\tS\n")
    assert found(bmes)[0][1]["tags"] == [*"BMES"] and found(bmes, to="bilou")[0][1]["tags"] == [
        *"BILU"
    ]
    wrong = put(tmp_path, "d.conll", "".join(f"a{i}\tO\n" for i in range(20)) + "b\tB-x\nc\tIx\n")
    assert "'Ix' is no tag of iob2" in aside(wrong)[1][0].reason
    # only O in the lines that are looked at
    late = put(tmp_path, "e.conll", "a\tO\n\n" * 3000 + "b\tB-x\nc\tE-x\n\nd\tI-x\n")
    assert aside(late)[1][0].line == 6004
    pos = put(tmp_path, "f.conll", "a\tDT\nb\tNN\n")
    assert found(pos)[0][1]["tags"] == ["DT", "NN"]
    with pytest.raises(
        DataError, match=r"f\.conll:1: the tags are of no known scheme and cannot become iob2"
    ):
        found(pos, to="iob2")


def test_options_that_do_not_exist(tmp_path):
    path = put(tmp_path, "a.conll", "a\tO\n")
    for options, part in (
        ({"scheme": "iob3"}, r"data\.options\.scheme='iob3' is unknown; expected one of iob1"),
        ({"to": "x"}, r"data\.options\.to='x'"),
        ({"invalid": "drop"}, r"expected one of error, repair, keep"),
        ({"tokens": "7"}, r"data\.options\.tokens='7'"),
    ):
        with pytest.raises(ConfigError, match=part):
            found(path, **options)


# --- writing
# --------------------------------------------------------------------------------------------------
cell = st.text(
    st.characters(exclude_categories=["Cs", "Nd"], exclude_characters="\t\n\r\ufeff"),
    min_size=1,
    max_size=6,
).filter(lambda text: text.strip(" \t"))


@st.composite
def sentence(draw, names=("tokens", "tags", "column_0", "lemma")):
    length = draw(st.integers(1, 4))
    row = {name: draw(st.lists(cell, min_size=length, max_size=length)) for name in names}
    row["tags"] = draw(
        st.lists(st.sampled_from(["O", "B-x", "B-y"]), min_size=length, max_size=length)
    )
    return row | draw(
        st.dictionaries(
            st.sampled_from(["text", "sent_id", "newdoc id", "intent"]),
            cell.map(str.strip).filter(bool),
            max_size=2,
        )
    )


@settings(max_examples=80, deadline=None)
@given(
    st.lists(sentence(), min_size=1, max_size=4)
    | st.lists(sentence(("tokens",)), min_size=1, max_size=4)
)
def test_what_is_written_is_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("w") / "a.conll"
    try:
        formats.write(rows, path)
    except DataError as error:  # a token that looks like a comment: refused, not changed
        assert "would not be read back" in str(error)
        assume(False)
    assert [row.fields for row in formats.read(path)] == rows


def test_write_refuses_what_would_be_read_differently(tmp_path):
    for row, part in (
        ({"tags": ["O"]}, "expected tokens"),
        ({"tokens": ["a", "b"], "tags": ["O"]}, "as many in each"),
        ({"tokens": ["a\tb"], "tags": ["O"]}, "would not be read back"),
        ({"tokens": ["a b"]}, "would not be read back"),
        ({"tokens": ["-DOCSTART-"], "tags": ["O"]}, "would not be read back"),
        ({"tokens": ["a"], "tags": ["O"], "label": 1}, "'label' is a int"),
        ({"tokens": ["a"], "tags": ["O"], "x=y": "1"}, "the comment"),
        ({"tokens": ["a"], "tags": ["O"], "document": "a\nb"}, "document"),
        ({"tokens": []}, "no tokens"),
    ):
        with pytest.raises(DataError, match=part):
            formats.write([row], tmp_path / "a.conll")
    rows = [
        {"tokens": ["a"], "tags": ["O"], "document": "1"},
        {"tokens": ["b"], "tags": ["O"], "document": "x (y)"},
    ]
    formats.write(rows, tmp_path / "a.conll.gz")
    assert [row.fields for row in formats.read(tmp_path / "a.conll.gz")] == rows


# --- telling it
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("a\tO\nb\tB-x\n\nc\tO\n", "conll"),
        ("EU NNP I-ORG\nis VB O\n\nit PR O\n", "conll"),
        ("B\tO\n\nb\tO\n", None),  # one tag only: could be anything
        ("text\tlabel\nI like it\tO\nno\tB\n", "tsv"),
        ("a\tO\n\nb\n", None),
        ("x,O\n\ny,B-x\n", None),
    ],
)
def test_only_what_is_column_data_beyond_doubt_is_taken_for_it(tmp_path, content, name):
    path = put(tmp_path, "a.unknown", content)
    if name is None:
        with pytest.raises(ConfigError, match="cannot tell the format"):
            formats.detect(formats.sources(path)[0])
    else:
        assert formats.detect(formats.sources(path)[0]).name == name


def test_real_tables_stay_tables():
    for path in (
        "goemotions/dev.tsv",
        "sms_spam/sms.tsv",
        "hipe2022_ajmc/en/ocr-correction.tsv",
        "banking77/train.csv",
        "gsm8k/test.jsonl",
    ):
        assert formats.detect(formats.sources(real(path))[0]).name == path.rpartition(".")[2]
    # SOURCE.txt counts lines, and the first is the header
    assert len(formats.read(real("hipe2022_ajmc/en/ocr-correction.tsv"))) == 118


# --- real files
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name", ["wnut17train.conll.gz", "emerging.dev.conll.gz", "emerging.test.annotated.gz"]
)
def test_wnut17(name):
    rows = formats.read(real(f"wnut17/{name}"))
    assert len(rows) == counted(real("wnut17/SOURCE.txt"))[name]
    spans = [span for row in rows for span in schemes.spans(row.fields["tags"], "iob2")]
    assert {type_ for *_, type_ in spans} == {
        "corporation",
        "creative-work",
        "group",
        "location",
        "person",
        "product",
    }


@pytest.mark.parametrize("language", ["en", "de", "fr"])
def test_hipe(language):
    rows = counted(real("hipe2022_ajmc/SOURCE.txt"))
    for split in ("train", "dev", "test"):
        name = f"{language}/{split}.tsv.gz"
        path = real(f"hipe2022_ajmc/{name}")
        read = formats.read(path, options={"invalid": "keep"})
        # SOURCE.txt counts the lines that are not empty: the header, the comments (a line each) and
        # the tokens.
        comments = sum(isinstance(value, str) for row in read for value in row.fields.values())
        assert 1 + comments + sum(len(row.fields["tokens"]) for row in read) == rows[name]
        lines = gzip.decompress(path.read_bytes()).decode().split("\n")
        documents = sum(line.startswith("# hipe2022:document_id") for line in lines)
        assert len(read) == documents and list(read[0].fields)[:3] == [
            "tokens",
            "tags",
            "NE-COARSE-METO",
        ]
    _, bad = aside(real(f"hipe2022_ajmc/{language}/train.tsv.gz"))
    assert [b.line for b in bad] == ([23462] if language == "de" else [])  # I-scope behind I-work


@pytest.mark.parametrize("split", ["dev", "test"])
def test_uner(split):
    name = f"en_ewt-ud-{split}.iob2.gz"
    rows = formats.read(real(f"uner_english_ewt_devtest/{name}"))
    assert len(rows) == counted(real("uner_english_ewt_devtest/SOURCE.txt"))[name]
    trees = formats.read(real(f"ud_english_ewt/en_ewt-ud-{split}.conllu.gz"))
    words = {row.fields["sent_id"]: row.fields["form"] for row in trees}
    assert words.keys() == {row.fields["sent_id"] for row in rows}
    # the trees are of a later release
    assert sum(row.fields["tokens"] == words[row.fields["sent_id"]] for row in rows) > 0.99 * len(
        rows
    )
    assert {tag for row in rows for tag in row.fields["tags"]} <= {
        "O",
        *(f"{p}-{t}" for p in "BI" for t in ("PER", "ORG", "LOC")),
    }


def test_xsid():
    """Tokens that are empty: `3<TAB><TAB>RateBook<TAB>O`, in three of the files."""
    empty = {
        "no.valid.conll.gz": [7160],
        "zh.test.conll.gz": [2914, 3201, 3473, 3625, 4701, 5657],
        "zh.valid.conll.gz": [3019],
    }
    for name, rows in counted(real("xsid_0.7_eval/SOURCE.txt")).items():
        path = real(f"xsid_0.7_eval/{name}")
        good, bad = aside(path)
        assert len(good) + len(bad) == rows and [b.line for b in bad] == empty.get(name, [])
        if bad:
            assert len(formats.read(path, options={"empty_token": "keep"})) == rows
        assert all(
            row.fields["intent"] and len(row.fields["column_2"]) == len(row.fields["tokens"])
            for row in good
        )


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("wnut17/emerging.dev.conll.gz", {}),
        ("hipe2022_ajmc/de/train.tsv.gz", {"invalid": "keep"}),
        ("uner_english_ewt_devtest/en_ewt-ud-dev.iob2.gz", {}),
        ("xsid_0.7_eval/zh.test.conll.gz", {"empty_token": "keep"}),
    ],
)
def test_real_files_survive_writing(tmp_path, path, options):
    rows = [row.fields for row in formats.read(real(path), options=options)]
    formats.write(rows, tmp_path / "a.conll")
    assert [row.fields for row in formats.read(tmp_path / "a.conll", options=options)] == rows


def test_tags_may_stand_before_their_tokens(tmp_path):
    text = "O the\nB-PER Ann\nI-PER Lee\n\nO x\n"
    for content in (text, text.replace(" ", "\t")):
        rows = found(put(tmp_path, "a.conll", content))
        assert rows[0][1] == {
            "tokens": ["the", "Ann", "Lee"],
            "tags": ["O", "B-PER", "I-PER"],
        } and rows[1][1]["tokens"] == ["x"]
    assert found(put(tmp_path, "b.conll", "O O\nB-x O\n\nO B-x\n"))[0][1]["tokens"] == ["O", "B-x"]
    # A tag that no other line has is one all the same.
    assert found(
        put(
            tmp_path,
            "c.conll",
            "# id 1 domain=train\nAnn _ _ B-PER\n\n# id 2 domain=train\n#id _ _ O\nx _ _ B-PER\n",
        )
    )[1][1]["tokens"] == [
        "#id",
        "x",
    ]
