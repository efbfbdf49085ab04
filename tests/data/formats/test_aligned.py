"""Parallel texts: two files by line, by sentence id, one file; Pharaoh alignments."""

import gzip
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.config.schema import Columns
from jaxsft.data import formats
from jaxsft.data.records import slots_record, tag_record
from jaxsft.errors import ConfigError, DataError
from tests.realdata import real


def put(folder, **files):
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_bytes(
            content if isinstance(content, bytes) else content.encode()
        )
    return folder


def fields(path, quarantine=None, **options):
    return [
        row.fields
        for row in formats.stream(path, format="aligned", options=options, quarantine=quarantine)
    ]


DE, EN = "das Haus\nes regnet\n", "the house\nit rains now\n"


def test_two_files_and_an_alignment(tmp_path):
    folder = put(
        tmp_path, c_de=DE, c_en=EN, c_align="0-0 1-1\n\n", c_sure="0-0-0.98 1-1-1e-3\n0p1 1-2 0-0\n"
    )
    pairs = [
        {"source": "das Haus", "target": "the house"},
        {"source": "es regnet", "target": "it rains now"},
    ]
    assert fields(folder / "c.de", target="c.en") == pairs
    assert [
        row["alignment"] for row in fields(folder / "c.de", target="c.en", alignment="c.align")
    ] == [[[0, 0], [1, 1]], []]
    bad = []
    first, second = fields(
        folder / "c.de", target="c.en", alignment="c.sure", quarantine=bad.append
    )
    assert first["scores"] == [0.98, 0.001] and "possible" not in first and not bad
    assert second["alignment"] == [[0, 1], [1, 2], [0, 0]] and second["possible"] == [[0, 1]]
    assert fields(folder / "c.de", target="c.en", alignment="c.sure", possible="drop")[1] == {
        **pairs[1],
        "alignment": [[1, 2], [0, 0]],
    }


def test_one_file(tmp_path):
    path = (
        put(tmp_path, a_aligned="das Haus ||| the house\n\nes ||| it ||| 0-0\nja ||| yes |||\n")
        / "a.aligned"
    )
    assert [(row.line, row.fields) for row in formats.stream(path)] == [
        (1, {"source": "das Haus", "target": "the house"}),
        (3, {"source": "es", "target": "it", "alignment": [[0, 0]]}),
        (4, {"source": "ja", "target": "yes", "alignment": []}),
    ]


def test_files_of_different_length_name_both(tmp_path):
    folder = put(tmp_path, c_de=DE, c_en=EN + "more\n", c_align="0-0\n")
    with pytest.raises(
        DataError, match=r"c\.de:3: .*c\.de has 2 lines, .*c\.en has 3 lines; expected as many"
    ):
        fields(folder / "c.de", target="c.en")
    with pytest.raises(DataError, match=r"c\.align:2: .*c\.de has 2 lines, .*c\.align has 1 lines"):
        fields(folder / "c.de", target="c.de", alignment="c.align")
    with pytest.raises(DataError, match=r"no\.en: there is no such file"):
        fields(folder / "c.de", target="no.en")


def test_links_that_are_none_are_put_aside(tmp_path):
    source = "a b\n" * 8 + "\nx\xff\nz\n"
    target = "c d\n" * 8 + "y\nx\n\n"
    links = "0-2\n2-0\n0-0 x\n0-0-a\n0-0-0.5 1-1\n-1-0\n0-0,\n0-0 1-1\n0-0\n0-0\n0-0\n"
    folder = put(tmp_path, c_de=source.encode("latin-1"), c_en=target, c_align=links)
    bad = []
    rows = fields(folder / "c.de", target="c.en", alignment="c.align", quarantine=bad.append)
    assert len(rows) == 1 and [b.line for b in bad] == [1, 2, 3, 4, 5, 6, 7, 9, 10, 11]
    assert (
        bad[0].file.endswith("c.align")
        and "the link 0-2 leaves the pair of 2 and 2 tokens" in bad[0].reason
    )
    assert (
        "some links have a score" in bad[4].reason
        and "the source is empty" in bad[7].reason
        and "0xff" in bad[8].reason
    )
    assert bad[8].file.endswith("c.de") and "the target is empty" in bad[9].reason
    with pytest.raises(DataError, match=r"c\.align:1: the link 0-2"):
        fields(folder / "c.de", target="c.en", alignment="c.align")
    bad = []
    assert fields(
        put(tmp_path, d_de="no bars\na ||| b ||| 0-0 ||| c\n") / "d.de", quarantine=bad.append
    ) == [] and [b.line for b in bad] == [1, 2]


def test_options_that_cannot_be(tmp_path):
    path = put(tmp_path, c_de=DE) / "c.de"
    for options, part in (
        ({"pair": "word"}, "expected one of line, sent_id"),
        ({"pair": "sent_id"}, "expected data.options.target"),
    ):
        with pytest.raises(ConfigError, match=part):
            fields(path, **options)


def test_in_an_archive_and_packed(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x/c.de", DE)
        archive.writestr("x/c.en.gz", gzip.compress(EN.encode()))
    assert [
        row["target"] for row in fields(f"{tmp_path}/a.zip/x/c.de", target="c.en.gz")
    ] == EN.splitlines()
    for name in ("../x/c.en.gz", "/x/c.en", "c.en"):  # no way out of the archive
        with pytest.raises(DataError, match=r"c\.en(\.gz)?: there is no such file"):
            fields(f"{tmp_path}/a.zip/x/c.de", target=name)


text = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="|\n\r\ufeff"),
    min_size=1,
    max_size=12,
).filter(lambda t: t.strip() and t.strip(" \t") == t)


def spelled(row):
    if row.get("alignment") is None:
        return row["source"], row["target"]
    scores = row.get("scores") or [None] * len(row["alignment"])
    links = (
        f"{i}-{j}{'' if score is None else f'-{score!r}'}"
        for (i, j), score in zip(row["alignment"], scores, strict=True)
    )
    return row["source"], row["target"], " ".join(links)


@st.composite
def pair(draw):
    row = {"source": draw(text), "target": draw(text)}
    if draw(st.booleans()):
        i, j = (st.integers(0, len(row[side].split()) - 1) for side in ("source", "target"))
        row["alignment"] = draw(st.lists(st.tuples(i, j).map(list), max_size=4, unique_by=tuple))
        if row["alignment"] and draw(st.booleans()):
            row["scores"] = [draw(st.floats(0, 1)) for _ in row["alignment"]]
    return row


@settings(max_examples=60, deadline=None)
@given(st.lists(pair(), min_size=1, max_size=4))
def test_pairs_read_as_they_were_spelled(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("w")
    lines = [" ||| ".join(spelled(row)).rstrip(" ") for row in rows]
    put(folder, a_aligned="".join(f"{line}\n" for line in lines))
    assert fields(folder / "a.aligned") == rows
    whole = [{**row, "alignment": row.get("alignment", [])} for row in rows]
    for suffix, part in zip(
        ("de", "en", "align"), zip(*map(spelled, whole), strict=True), strict=True
    ):
        put(folder, **{f"c_{suffix}": "".join(f"{line}\n" for line in part)})
    assert fields(folder / "c.de", target="c.en", alignment="c.align") == whole


def test_sentences_pair_by_their_id(tmp_path):
    word = "1\t{}\t_\t_\t_\t_\t0\t_\t_\t_\n\n"
    of = lambda **words: "".join(
        f"# sent_id = {name}\n{word.format(form)}" for name, form in words.items()
    )
    folder = put(
        tmp_path,
        a_conllu=of(x="eins", y="zwei", z="drei"),
        b_conllu=of(y="two", w="four", x="one"),
        c_conllu=of(x="1") * 2,
    )
    bad = []
    rows = fields(folder / "a.conllu", target="b.conllu", pair="sent_id", quarantine=bad.append)
    assert [(row["sent_id"], row["source"], row["target_tokens"]) for row in rows] == [
        ("x", "eins", ["one"]),
        ("y", "zwei", ["two"]),
    ]
    assert [(b.file.rpartition("/")[2], b.line) for b in bad] == [("a.conllu", 7), ("b.conllu", 4)]
    with pytest.raises(DataError, match=r"c\.conllu:4: the sent_id 'x' occurs twice"):
        fields(folder / "a.conllu", target="c.conllu", pair="sent_id")


def test_tags_are_projected_over_links(tmp_path):
    """A word takes the tag of the word that it is linked to, of several the first; one without a
    link takes none.
    """
    row = "{}\t{}\t_\t{}\t_\t_\t{}\t_\t_\t_\n"
    of = lambda name, *words: (
        f"# sent_id = {name}\n"
        + "".join(row.format(i, *word, i - 1) for i, word in enumerate(words, start=1))
        + "\n"
    )
    source = of("x", ("a", "DET"), ("cat", "NOUN")) + of("y", ("sees", "VERB"))
    files = {
        "a_conllu": source,
        "b_conllu": (
            of("y", ("er", "_"), ("sieht", "_"))
            + of("x", ("Katze", "_"), ("eine", "_"), ("da", "_"))
        ),
    }
    folder = put(
        tmp_path,
        **files,
        a_align="1-0 0-1 1-1\n0-1\n",
        b_align="0-0\n",
        c_align="0-0\n0-0\n0-0\n",
        d_align="5-0\n0-0\n",
    )
    how = {"target": "b.conllu", "pair": "sent_id", "alignment": "a.align"}
    rows = fields(folder / "a.conllu", **how, project="upos")
    assert [(row["tokens"], row["tags"]) for row in rows] == [
        (["Katze", "eine", "da"], ["NOUN", "DET", "_"]),
        (["er", "sieht"], ["_", "VERB"]),
    ]
    assert "tags" not in fields(folder / "a.conllu", **how)[0] and rows[0]["alignment"] == [
        [1, 0],
        [0, 1],
        [1, 1],
    ]
    for file, message in (
        ("b", r"b\.align: has no line for the pair 'y'"),
        ("c", r"c\.align:3: there is no pair"),
        ("d", r"d\.align:1: the link 5-0"),
    ):
        with pytest.raises(DataError, match=message):
            fields(folder / "a.conllu", **how | {"alignment": f"{file}.align"})
    for other, message in (
        ({"alignment": ""}, "and data.options.alignment"),
        ({"pair": "line"}, "is read with data.options.pair=sent_id only"),
    ):
        with pytest.raises(ConfigError, match=message):
            fields(folder / "a.conllu", **how | other, project="upos")
    with pytest.raises(
        ConfigError,
        match=r"data.options.project=feats: is no column of texts; expected one of upos",
    ):
        fields(folder / "a.conllu", **how, project="feats")


@pytest.mark.parametrize("language", ["german", "chinese", "arabic"])
def test_the_parallel_treebanks(language):
    """PUD: the same 1000 sentences in every language."""
    target = {"german": "de", "chinese": "zh", "arabic": "ar"}[language]
    real(f"ud_{language}_pud")
    rows = fields(
        real("ud_english_pud/en_pud-ud-test.conllu.gz"),
        target=f"../ud_{language}_pud/{target}_pud-ud-test.conllu.gz",
        pair="sent_id",
    )
    assert len(rows) == 1000 and all(row["source"] and row["target"] for row in rows)
    english = {row["sent_id"]: row for row in rows}["n01001011"]
    assert english["source"].startswith("“While much of the digital transition")


ATIS = {"seq_in": "fly to town1\nstop\n", "seq_out": "O O B-city\nO\n", "label": "go\nhalt\n"}


def test_files_by_column_are_the_rows_of_tagging_and_of_intents(tmp_path):
    path = put(tmp_path, **ATIS) / "seq.in"
    words = {"tokens": ["fly", "to", "town1"], "tags": ["O", "O", "B-city"]}
    assert fields(path, files={"tags": "seq.out"})[0] == words
    found = list(
        formats.stream(
            path, format="aligned", options={"files": {"tags": "seq.out", "label": "label"}}
        )
    )
    assert found[0].fields == words | {"label": "go"} and found[1].where.endswith("seq.in:2")
    assert slots_record(found[0], Columns()).label == "go" and tag_record(
        found[1], Columns()
    ).tags == ("O",)
    assert fields(path, files={"label": "label"})[0] == {"text": "fly to town1", "label": "go"}
    assert fields(path, files={"upos": "seq.out"}, column="form", lists=["form", "upos"])[1] == {
        "form": ["stop"],
        "upos": ["O"],
    }
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("seq.in", "seq.out"):
            archive.write(tmp_path / name, f"train/{name}")
    assert fields(f"{tmp_path}/a.zip/train/seq.in", files={"tags": "seq.out"})[0] == words


@pytest.mark.parametrize(
    ("options", "error", "part"),
    [
        ({"files": {"tags": "gone"}}, DataError, "gone: there is no such file"),
        ({"files": {"tags": "short"}}, DataError, "short has 1 lines; expected as many"),
        ({"files": {"tags": "seq.out"}, "column": "tags"}, ConfigError, "names the column 'tags'"),
        (
            {"files": {"tags": "seq.out"}, "target": "x"},
            ConfigError,
            "data.options.files: excludes",
        ),
        ({"files": ["seq.out"]}, ConfigError, "expected texts by name"),
    ],
)
def test_files_by_column_that_do_not_fit(tmp_path, options, error, part):
    path = put(tmp_path, **ATIS, short="O\n") / "seq.in"
    with pytest.raises(error, match=part):
        fields(path, **options)
    bad = []
    put(tmp_path, label="go\n\n")
    assert (
        len(fields(path, bad.append, files={"label": "label"})) == 1
        and "label is empty" in bad[0].reason
        and bad[0].line == 2
    )
