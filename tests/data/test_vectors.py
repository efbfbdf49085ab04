import gzip
import struct

import numpy as np
import pytest

from jaxsft.data import vectors
from jaxsft.errors import ConfigError, DataError

WORDS = {"the": [0.5, -1.0, 2.0], "Haus": [1.5, 0.25, 0.0], "猫": [3.0, 1.0, -0.5]}


def lines(words=WORDS):
    return "".join(f"{w} {' '.join(map(str, v))}\n" for w, v in words.items())


def binary(words=WORDS, count=None, end=b"\n"):
    return f"{count or len(words)} 3\n".encode() + b"".join(
        w.encode() + b" " + struct.pack("<3f", *v) + end for w, v in words.items()
    )


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("glove.txt", lines()),
        ("w2v.txt", "3 3\n" + lines()),
        ("w2v.bin", binary()),
        ("no_ends.bin", binary(end=b"")),
        ("glove.txt.gz", gzip.compress(lines().encode())),
        ("w2v.bin.gz", gzip.compress(binary())),
    ],
    ids=lambda value: (
        value if isinstance(value, str) and value.endswith((".txt", ".bin", ".gz")) else ""
    ),
)
def test_every_format_gives_the_same_vectors(tmp_path, name, content):
    found = vectors.read(written(tmp_path / name, content))
    assert found.words == list(WORDS) and found.vectors.dtype == np.float32
    np.testing.assert_array_equal(found.vectors, list(WORDS.values()))
    some = vectors.read(tmp_path / name, vocabulary={"猫", "dog"})
    assert some.words == ["猫"] and vectors.read(tmp_path / name, most=2).words == ["the", "Haus"]


def test_a_large_binary_file_is_read_in_pieces(tmp_path):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(700, 60)).astype("<f4")
    body = b"".join(f"w{i}".encode() + b" " + row.tobytes() + b"\n" for i, row in enumerate(table))
    found = vectors.read(written(tmp_path / "v.bin", b"700 60\n" + body))
    np.testing.assert_array_equal(found.vectors, table)
    assert found.words[-1] == "w699"


def test_a_word_of_glove_may_hold_spaces(tmp_path):
    found = vectors.read(written(tmp_path / "v.txt", "the 1 2 3\n. . . 4 5 6\n"))
    assert found.words == ["the", ". . ."] and found.vectors[1].tolist() == [4, 5, 6]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("the 1 2 3\ncat 1 2\n", r"v.txt:2: found 2 numbers, expected a word and 3"),
        ("the 1 2 3\ncat 1 x 3\n", r"v.txt:2: .*expected 3 numbers"),
        ("the 1 2 3\ncat 1 nan 3\n", r"v.txt:2: .*not finite"),
        ("the 1 2 3\n\n", r"v.txt:2: an empty line"),
        (
            "the 1 2 3\nthe 1 2 3\n",
            r"v.txt:2: the word 'the' again, after .*v.txt:1; repeated=first",
        ),
        ("4 3\n" + lines(), r"4 words are declared, found 3"),
        (b"the 1 2 3\n\xff 1 2 3\n", r"v.txt:2: "),
        (binary()[:-6], r"word 3: the file ends here"),
        (binary(count=5), r"word 4: the file ends here"),
        (b"2 3\n" + b"x" * 9000, r"word 1: no word ends within"),
    ],
)
def test_what_is_broken_is_named_by_its_line(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        vectors.read(written(tmp_path / "v.txt", content))


def test_what_cannot_be_found_is_refused(tmp_path):
    file = written(tmp_path / "v.txt", lines())
    with pytest.raises(DataError, match=r"none of its words is in the vocabulary"):
        vectors.read(file, vocabulary={"zebra"})
    with pytest.raises(DataError, match=r"missing|exist|no such"):
        vectors.read(tmp_path / "none.txt")
    with pytest.raises(ConfigError, match=r"format=elmo"):
        vectors.read(file, format="elmo")
    with pytest.raises(DataError, match=r"set format=glove"):
        vectors.read(file, format="word2vec")
    again = written(tmp_path / "again.txt", lines() + "the 9 9 9\n")
    assert vectors.read(again, repeated="first").vectors[0].tolist() == WORDS["the"]


def test_a_table_for_an_embedding(tmp_path):
    known = vectors.read(written(tmp_path / "v.txt", lines()))
    table, found = vectors.matrix(known, ["猫", "zebra", "THE", "Haus"])
    assert (
        found.tolist() == [True, False, False, True]
        and table.dtype == np.float32
        and np.isfinite(table).all()
    )
    np.testing.assert_array_equal(table[[0, 3]], [WORDS["猫"], WORDS["Haus"]])
    assert vectors.matrix(known, ["THE"], lower=True)[0][0].tolist() == WORDS["the"]
    np.testing.assert_array_equal(table, vectors.matrix(known, ["猫", "zebra", "THE", "Haus"])[0])
    with pytest.raises(DataError, match=r"none of the 1 words"):
        vectors.matrix(known, ["zebra"])


def test_texts_become_the_mean_of_their_words(tmp_path):
    known = vectors.read(written(tmp_path / "v.txt", lines({"the": [1, 2, 3], "cat": [3, 0, 1]})))
    features, count = vectors.pooled(known, ["The cat!", "(the) dog", "nothing", ""])
    assert features.tolist() == [[2, 1, 2], [1, 2, 3], [0, 0, 0], [0, 0, 0]] and count.tolist() == [
        2,
        1,
        0,
        0,
    ]
