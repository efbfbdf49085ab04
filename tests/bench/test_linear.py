"""The simple models beside which figures are read learn what such a model can."""

import math

import pytest

from jaxsft.data.records import LabelledText, Parse, Regression, Seq2Seq, Slots, Tags
from tools.bench import linear

COLOURS = {"red": 1.0, "green": 2.0, "blue": 3.0}


def sentences(rows):
    return [
        f"{('the', 'a', 'this')[i % 3]} {list(COLOURS)[i % 7 % 3]} thing{i % 5}"
        for i in range(rows)
    ]


def test_the_word_that_decides_is_found():
    train, test = (
        [LabelledText(text, None, text.split()[1]) for text in part]
        for part in (sentences(60), sentences(9))
    )
    assert linear.classify(train, test) == {"accuracy": 1.0}


def test_numbers_are_scored_over_the_rows_that_have_them():
    records = [
        Regression(text, None, (COLOURS[text.split()[1]], math.nan if i % 4 else float(i % 5)))
        for i, text in enumerate(sentences(90))
    ]
    assert linear.regress(records[:60], records[60:])["r2"] > 0.8


def test_tags_are_scored_by_word_and_by_chunk():
    tagged = [
        Tags((*text.split(), "!"), ("O", "B-C", "I-C", "O"), "iob2") for text in sentences(60)
    ]
    assert linear.tag(tagged[:50], tagged[50:]) == {"accuracy": 1.0, "f1": 1.0}
    plain = [Tags((*text.split(), "!"), ("D", "A", "N", "X"), "none") for text in sentences(60)]
    assert linear.tag(plain[:50], plain[50:]) == {"accuracy": 1.0}


def test_words_that_nobody_tagged_teach_nothing():
    tagged = [
        Tags((*text.split(), "!"), ("D", "A", "N" if i % 2 else "_", "_"), "none")
        for i, text in enumerate(sentences(60))
    ]
    assert linear.tag(tagged[:50], tagged[50:], "_") == {"accuracy": 1.0}
    assert linear.tag(tagged[:50], tagged[50:])["accuracy"] < 1  # as a tag, it cannot be told


def test_a_text_and_its_words_are_each_told():
    rows = [
        Slots((*text.split(), "!"), ("O", "B-C", "I-C", "O"), "iob2", (), text.split()[1])
        for text in sentences(60)
    ]
    assert linear.joint(rows[:50], rows[50:]) == {
        "intent_accuracy": 1.0,
        "accuracy": 1.0,
        "f1": 1.0,
    }


def test_trees_are_learnt_from_pairs_of_words():
    trees = [
        Parse((*text.split(), "!"), (3, 3, 0, 3), ("dep", "dep", "root", "dep"))
        for text in sentences(60)
    ]
    scores = linear.parse(trees[:50], trees[50:])
    # of four words the last but one alone stands after its head
    assert scores["uas"] == 1.0 and scores["uas of the word before"] == 0.25


def test_the_answer_of_the_source_that_is_most_alike_is_taken():
    pytest.importorskip("sacrebleu")
    train = [
        Seq2Seq(f"name[{name}] food[{food}]", f"{name} serves {food} .")
        for name in ("Alba", "Brot", "Cave")
        for food in ("fish", "soup")
    ]
    test = [
        Seq2Seq("food[soup] name[Brot]", "", ("In Brot there is soup .", "Brot serves soup .")),
        Seq2Seq("name[Cave] food[cake]", "Cave sells cake ."),
    ]
    scores = linear.seq2seq(train, test)
    # of the second, one word in two is right
    assert scores["exact_match"] == 0.5 and 30 < scores["bleu"] < 90
