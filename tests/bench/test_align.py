"""Word alignments by IBM model 1."""

from jaxsft.data import formats
from tools import align


def test_words_that_go_together_are_linked():
    pairs = [
        (["the", "house"], ["das", "Haus"]),
        (["the", "book"], ["das", "Buch"]),
        (["a", "book"], ["ein", "Buch"]),
    ]
    assert align.links(pairs) == [[(0, 0), (1, 1)]] * 3


def test_other_orders_are_linked_by_the_words():
    """Against the diagonal, which prefers the places alone."""
    pairs = [(["x", "y"], ["Y", "X"]), *[(["x"], ["X"]), (["y"], ["Y"])] * 9]
    assert align.links(pairs)[0] == [(1, 0), (0, 1)]


def test_a_word_of_two_candidates_takes_one_link():
    """In one direction both words of the target go to the only word of the source."""
    pairs = [(["x"], ["X", "of"]), *[(["x"], ["X"])] * 5]
    assert align.one_way(pairs)[0] == [(0, 0), (0, 1)] and align.links(pairs)[0] == [(0, 0)]


def test_a_file_of_links_for_two_treebanks(tmp_path):
    line = "{}\t{}\t_\tNOUN\t_\t_\t{}\tdep\t_\t_\n"
    for name, sides in (
        ("a", [["cat", "sleeps"], ["cat"]]),
        ("b", [["Katze", "schläft"], ["Katze"]]),
    ):
        blocks = [
            "".join(line.format(i + 1, word, min(i, 1)) for i, word in enumerate(words))
            for words in sides
        ]
        text = "".join(f"# sent_id = {k}\n{block}\n" for k, block in enumerate(blocks))
        (tmp_path / f"{name}.conllu").write_text(text, encoding="utf-8")
    align.main(str(tmp_path / "a.conllu"), str(tmp_path / "b.conllu"), str(tmp_path / "out.align"))
    assert (tmp_path / "out.align").read_text() == "0-0 1-1\n0-0\n"
    options = {
        "target": str(tmp_path / "b.conllu"),
        "pair": "sent_id",
        "alignment": str(tmp_path / "out.align"),
        "project": "upos",
    }
    rows = formats.read(tmp_path / "a.conllu", format="aligned", options=options)
    assert [row.fields["tokens"] for row in rows] == [["Katze", "schläft"], ["Katze"]] and rows[
        0
    ].fields["tags"] == ["NOUN", "NOUN"]
