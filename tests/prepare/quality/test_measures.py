"""The measures by hand-computed examples, by what must hold for any input, and by the numbers of
scipy and scikit-learn.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.config.schema import Columns
from jaxsft.data.formats import Row
from jaxsft.errors import DataError
from jaxsft.prepare.quality import (
    completeness,
    consistency,
    contamination,
    distribution,
    diversity,
    embeddings,
    noise,
    text_measures,
)

COUNTS = st.lists(st.integers(0, 50), min_size=2, max_size=6).filter(lambda c: sum(c) > 0)


def rows(*fields):
    return [Row(f, "f", line) for line, f in enumerate(fields, start=1)]


# --- texts
# --------------------------------------------------------------------------------------------------
def test_words_of_many_scripts():
    assert text_measures.words("Don't STOP, it's 3.5 €!") == ["don't", "stop", "it's", "3", "5"]
    assert text_measures.words("नमस्ते दुनिया") == ["नमस्ते", "दुनिया"]  # vowel signs belong to the word
    assert text_measures.words("我爱 café") == ["我", "爱", "café"]
    assert text_measures.words("cafe\u0301") == text_measures.words("café")


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("abc 1", "Latin"),
        ("我爱北京", "Han"),
        ("日本の本", "Japanese"),
        ("Привет abc", "Cyrillic"),
        ("123 !", "none"),
        ("", "none"),
        ("שלום", "Hebrew"),
    ],
)
def test_script(text, script):
    assert text_measures.script(text) == script


def test_labels_and_columns():
    fields = text_measures.fields_of(
        ["q", "a", "y"], Columns(prompt="q", completion="a", label="y"), False, "f:1"
    )
    row = Row({"q": "what", "a": "that", "y": "7, 3"}, "f", 1)
    assert fields.parts(row) == ["what", "that"] and fields.text_of(row) == "what\nthat"
    assert text_measures.Fields(("q",), "y", ",").labels(Row({"y": "4,27"}, "f", 1)) == ("27", "4")
    one = text_measures.Fields(("q",), "y")
    assert [
        one.labels(Row({"y": y}, "f", 1)) for y in (3, 3.0, True, None, " ", "NA", ["b", "a"])
    ] == [
        ("3",),
        ("3",),
        ("true",),
        (),
        (),
        (),
        ("a", "b"),
    ]
    assert text_measures.fields_of(["messages"], Columns(), False, "f:1").parts(
        Row(
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            "f",
            1,
        )
    ) == ["a", "b"]
    with pytest.raises(DataError, match=r"f:1: found columns 'x'.*data\.columns\.text"):
        text_measures.fields_of(["x"], Columns(), False, "f:1")


# --- completeness and consistency
# --------------------------------------------------------------------------------------------------
def test_missing_cells_are_counted_by_kind():
    fields, found = text_measures.Fields(("text",), "label"), completeness.Completeness()
    for row in rows(
        {"text": "a", "label": "x"},
        {"text": " ", "label": None},
        {"text": "b"},
        {"text": "c", "label": math.nan},
    ):
        found.add(row, fields, fields.text_of(row), fields.labels(row))
    assert found.by_column()["label"] == {
        "absent": 1,
        "null": 1,
        "empty": 0,
        "nan": 1,
        "missing": 3,
    }
    assert found.numbers(fields) == {
        "rows": 4, "missing_cells": 4 / 8, "complete_rows": 1 / 4, "rows_without_text": 1,
        "rows_without_label": 3
    }  # fmt: skip


def test_the_type_of_a_column_is_that_of_all_rows():
    """guards D9: not that of the first row."""
    part = consistency.Consistency()
    data = rows({"n": "oops"}, *({"n": 1} for _ in range(9)), {"n": None})
    for row in data:
        part.add(row, ())
    allowed = consistency.schema({"all": part})
    wrong = [consistency.violations(row, allowed) for row in data]
    assert wrong[0] == ["n: found text 'oops', expected number"] and not any(wrong[1:])


def test_a_column_of_text_may_hold_numbers_unless_nearly_all_are():
    assert consistency.expected(Counter({"text": 50, "numeric text": 50})) == {
        "text",
        "numeric text",
        "missing",
    }
    assert consistency.expected(Counter({"text": 5, "numeric text": 95})) == {
        "numeric text",
        "missing",
    }
    assert consistency.expected(Counter({"number": 5, "missing": 95})) == {"number", "missing"}


@pytest.mark.parametrize(
    ("text", "damage"),
    [
        ("café – naïve “quoted” 我爱 Ñandú", []),
        ("FINI CAFÉ… «déjà»", []),
        ("cafÃ©", ["mojibake"]),
        ("itâ€™s", ["mojibake"]),
        ("ðŸ˜€", ["mojibake"]),
        ("a\ufffdb", ["replacement"]),
        ("a\x92b\tc\n", ["control"]),
        ("a\ud800", ["surrogate"]),
        ("R&amp;D &#39;", ["html_entity"]),
        ("AT&T; x & y", []),
    ],
)
def test_damage(text, damage):
    assert consistency.damage(text) == damage


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(min_codepoint=0xC0, max_codepoint=0xFF), min_size=1, max_size=8))
def test_latin_letters_read_in_the_wrong_encoding_are_found(text):
    """Each letter of Latin-1 whose second byte Windows-1252 has is found in what the error makes of
    it.
    """
    try:
        broken = text.encode("utf-8").decode("cp1252")
    except UnicodeDecodeError:
        return
    assert "mojibake" in consistency.damage(broken)


def test_label_variants():
    assert consistency.variants(
        Counter({"Card Lost": 3, "card_lost": 5, "card-lost ": 1, "other": 2})
    ) == [["card_lost", "Card Lost", "card-lost "]]


# --- diversity
# --------------------------------------------------------------------------------------------------
def test_distinct_by_hand():
    split = [["a", "b", "a"], ["a", "b"]]
    assert (
        diversity.distinct(split, 1) == 2 / 5
        and diversity.distinct(split, 2) == 2 / 3
        and diversity.distinct(split, 3) == 1.0
    )
    assert diversity.distinct([["a"]], 2) is None


def test_mtld_by_hand():
    # a b c d | then a: 4 of 5 words are types; b: 4/6 = 0.67 ends the stretch; c: the rest has
    # ratio 1 and counts nothing
    assert diversity.mtld(list("abcdabc")) == 7.0
    # one word again and again: two words (ratio 1/2) are a stretch
    assert diversity.mtld(["x"] * 10) == pytest.approx(2.0)
    # half a stretch: 3 types of 4 words, (1 - 0.75) / (1 - 0.72)
    assert diversity.mtld(list("abca")) == pytest.approx(4 / (0.25 / 0.28))
    assert diversity.mtld(list("abc")) is None and diversity.mtld([]) is None


def test_mattr_against_its_definition():
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in rng.zipf(1.5, 300) % 97]
    window = 50
    expected = np.mean(
        [len(set(words[i : i + window])) / window for i in range(len(words) - window + 1)]
    )
    assert (
        diversity.mattr(words, window) == pytest.approx(expected)
        and diversity.mattr(words[:49], window) is None
    )


def test_length_robust_measures_hardly_change_with_length_where_the_ratio_of_types_falls():
    rng = np.random.default_rng(1)
    words = [f"w{i}" for i in rng.zipf(1.3, 40_000) % 5000]
    short, long = words[:4000], words
    assert len(set(long)) / len(long) < 0.6 * len(set(short)) / len(short)
    assert diversity.mattr(long) == pytest.approx(diversity.mattr(short), rel=0.05)
    assert diversity.mtld(long) == pytest.approx(diversity.mtld(short), rel=0.1)


def test_heaps_finds_the_law_that_made_the_numbers():
    n = np.unique(np.geomspace(1, 1e6, 40).astype(int))
    found = diversity.heaps(n.tolist(), (7.0 * n**0.55).tolist())
    assert found == pytest.approx({"heaps_k": 7.0, "heaps_beta": 0.55, "heaps_r2": 1.0})
    assert diversity.heaps([1, 200], [1, 90]) is None


def test_the_sample_is_the_same_for_the_same_seed_and_holds_all_of_a_small_split():
    def drawn(size, seed, count=500):
        sample = diversity.RowSample(size, seed)
        for number in range(count):
            sample.add(f"text {number}")
        return [row[0] for row in sample.rows()]

    assert sorted(drawn(1000, 0)) == list(range(500)) and drawn(50, 3) == drawn(50, 3) != drawn(
        50, 4
    )
    assert len(drawn(50, 3)) == 50 and set(drawn(50, 3)) == set(drawn(1000, 3)[:50])
    # not from one end of the file
    assert 150 < np.mean([np.mean(drawn(50, seed)) for seed in range(10)]) < 350


# --- vectors
# --------------------------------------------------------------------------------------------------
def test_mean_similarity_is_that_of_all_pairs():
    points = embeddings.unit(np.random.default_rng(0).normal(size=(9, 4)))
    cosines = points @ points.T
    assert embeddings.mean_similarity(points) == pytest.approx(
        cosines[np.triu_indices(9, 1)].mean(), abs=1e-6
    )
    twins = np.repeat(points, 2, axis=0)
    assert embeddings.nearest_similarity(twins) == pytest.approx(1, abs=1e-6)


def test_vendi_counts_different_texts():
    assert embeddings.vendi(np.eye(5)) == pytest.approx(5) and embeddings.vendi(
        np.ones((6, 1))
    ) == pytest.approx(1)
    assert embeddings.vendi(np.repeat(np.eye(4), 3, axis=0)) == pytest.approx(4)
    # more features than texts: the other matrix
    points = embeddings.unit(np.random.default_rng(0).normal(size=(7, 30)))
    values = np.linalg.eigvalsh(points.astype(float) @ points.T.astype(float) / 7)
    assert embeddings.vendi(points) == pytest.approx(
        np.exp(-(values * np.log(values)).sum()), rel=1e-5
    )


def test_hashed_vectors_are_alike_for_like_texts():
    same, near, far = embeddings.hashed(
        [
            text_measures.words(t)
            for t in ("the cat sat on the mat", "the cat sat on a mat", "stocks fell sharply today")
        ]
    )
    assert same @ near > 0.4 > 0.2 > abs(same @ far)
    assert np.linalg.norm(same) == pytest.approx(1, abs=1e-6) and not embeddings.hashed([[]]).any()


def test_kmeans_is_as_good_as_scikit_learns():
    cluster = pytest.importorskip("sklearn.cluster")
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(centre, 0.3, size=(40, 3)) for centre in (0, 3, 6)]).astype(
        np.float32
    )
    centres, of = embeddings.kmeans(points, 3, seed=0)
    expected = cluster.KMeans(3, n_init=3, random_state=0).fit(points)
    inertia = float(((points - centres[of]) ** 2).sum())
    assert inertia == pytest.approx(expected.inertia_, rel=1e-4)
    assert all(len(set(of[i : i + 40])) == 1 for i in (0, 40, 80)) and len(set(of)) == 3
    again = embeddings.kmeans(points, 3, seed=0)
    assert np.array_equal(of, again[1])
    # texts that are all the same are one cluster
    assert set(embeddings.kmeans(np.ones((5, 2), np.float32), 3, 0)[1]) == {0}


def test_evenness():
    assert embeddings.evenness([5, 5, 5]) == (
        pytest.approx(1),
        pytest.approx(3),
    ) and embeddings.evenness([7, 0]) == (0, 1)
    assert embeddings.evenness([1, 3])[0] == pytest.approx(
        -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    )


@pytest.mark.parametrize(
    "content", [b"no", np.array(["a"]), np.ones(3), np.array([[1.0, np.nan]] * 3), np.ones((2, 4))]
)
def test_embeddings_that_do_not_fit_are_refused(tmp_path, content):
    path = tmp_path / "e.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    with pytest.raises(DataError, match=r"e\.npy"):
        embeddings.read_embeddings(str(path), 3)


def test_embeddings_with_objects_are_not_unpacked(tmp_path):
    path = tmp_path / "e.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"e\.npy"):
        embeddings.read_embeddings(str(path), 1)


# --- noise
# --------------------------------------------------------------------------------------------------
PROSE = (
    "It was late in the evening when the train from the north finally arrived at the old station"
    " and nobody of those who had waited for hours said a word to one another while porters carried"
    " heavy trunks through rain that would not end before morning came again with its grey light"
    " over roofs and chimneys"
)


def broken(text):
    return [
        rule
        for rule in noise.rules(text, text_measures.words(text), text_measures.script(text))
        if rule in noise.RULES
    ]


def test_prose_breaks_no_rule():
    assert (
        noise.rules(PROSE, text_measures.words(PROSE), "Latin") == []
        and broken("Ok lar... Joking wif u oni...") == []
        and broken("") == []
    )


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("?! 12", "no_letter"),
        ("so good!!!!!!!!!!!", "character_run"),
        ("buy buy buy buy buy now", "word_run"),
        (PROSE + " #a" * 7, "symbols"),
        (" ".join(["a", "b", "c", "d", "e"] * 11), "word_length"),
        (PROSE + " 1" * 40, "not_words"),
        ("click here " * 10 + PROSE[:220], "top_ngram"),
        (PROSE + " " + PROSE, "duplicate_ngrams"),
        ("\n".join(f"- item {c}" for c in "abcdef"), "bullets"),
        ("\n".join(f"more of {c}..." for c in "abcdef"), "ellipsis_lines"),
        ("\n".join(["same line", "same line", "another", "same line"]), "duplicate_lines"),
        ("one\n\ntwo\n\none\n\none", "duplicate_paragraphs"),
    ],
)
def test_each_rule_is_broken_by_its_text(text, rule):
    assert rule in broken(text)


# --- distribution and drift
# --------------------------------------------------------------------------------------------------
@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 30), min_size=5, max_size=60),
    st.lists(st.integers(0, 30), min_size=5, max_size=60),
)
def test_ks_is_scipys(a, b):
    stats = pytest.importorskip("scipy.stats")
    d, p = distribution.ks(a, b)
    assert d == pytest.approx(stats.ks_2samp(a, b, method="asymp").statistic)
    assert p == pytest.approx(
        stats.kstwobign.sf(d * math.sqrt(len(a) * len(b) / (len(a) + len(b))))
    )


def test_the_p_value_of_ks_is_close_to_the_exact_one():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=400), rng.normal(0.1, size=300)
    assert distribution.ks(a, b)[1] == pytest.approx(
        stats.ks_2samp(a, b, method="exact").pvalue, abs=0.03
    )


@settings(max_examples=40, deadline=None)
@given(COUNTS, COUNTS)
def test_chi_square_and_v_are_scipys(a, b):
    stats = pytest.importorskip("scipy.stats")
    size = max(len(a), len(b))
    table = np.array([c + [0] * (size - len(c)) for c in (a, b)])
    table = table[:, table.sum(axis=0) > 0]
    as_counts = [{str(i): int(n) for i, n in enumerate(row)} for row in table]
    found = distribution.chi_square(*as_counts)
    if table.shape[1] == 1:
        assert found["cramers_v"] == 0 and found["p"] is None
        return
    expected = stats.chi2_contingency(table, correction=False)
    assert found["chi_square"] == pytest.approx(expected.statistic) and found["p"] == pytest.approx(
        expected.pvalue
    )
    assert found["freedom"] == expected.dof
    assert found["cramers_v"] == pytest.approx(
        stats.contingency.association(table, method="cramer"), abs=1e-9
    )


def test_psi_by_hand():
    # 100 and 100 rows: (10, 90) becomes (10.5, 90.5) of 101, (20, 80) becomes (20.5, 80.5)
    p, q = np.array([10.5, 90.5]) / 101, np.array([20.5, 80.5]) / 101
    assert distribution.psi([10, 90], [20, 80]) == pytest.approx(
        float(((q - p) * np.log(q / p)).sum())
    )
    assert (
        distribution.psi([5, 5], [5, 5]) == 0
        and distribution.psi([1, 0], [0, 1]) == distribution.psi([0, 1], [1, 0]) > 0.25
    )
    same = list(range(100))
    assert (
        distribution.psi_of_numbers(same, same) == pytest.approx(0)
        and distribution.psi_of_numbers(same, [x + 40 for x in same]) > 0.25
    )
    assert distribution.psi_of_numbers([3] * 50, [3] * 50) == pytest.approx(0)


@settings(max_examples=40, deadline=None)
@given(COUNTS, COUNTS)
def test_js_is_scipys(a, b):
    distance = pytest.importorskip("scipy.spatial.distance")
    size = max(len(a), len(b))
    a, b = (np.array(c + [0] * (size - len(c)), float) for c in (a, b))
    found = distribution.js(*({str(i): int(n) for i, n in enumerate(c)} for c in (a, b)))
    assert found == pytest.approx(distance.jensenshannon(a, b, base=2) ** 2, abs=1e-9)


def test_class_numbers_by_hand():
    found = distribution.class_numbers({"a": 6, "b": 3, "c": 1}, 8)
    assert (
        found["classes"],
        found["majority_share"],
        found["imbalance"],
        found["labels_per_row"],
    ) == (3, 0.75, 6, 1.25)


def test_quantities_are_told_from_classes():
    def part(values):
        found = distribution.Distribution()
        for value in values:
            found.add("t", 1, "Latin", (value,))
        return found

    assert distribution.is_quantity([part([str(i / 10) for i in range(30)])])
    assert not distribution.is_quantity([part([str(i) for i in range(77)])])  # class ids
    assert not distribution.is_quantity(
        [part(["0.5", "1.5"] * 20)]
    ) and not distribution.is_quantity([part([*map(str, range(40)), "x", "0.5"])])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 500), min_size=1, max_size=50), st.lists(st.integers(0, 9), max_size=20)
)
def test_a_histogram_holds_every_value(a, b):
    found = distribution.histogram({"a": a, "b": b})
    assert [sum(c) for c in found["counts"].values()] == [len(a), len(b)] and len(
        found["edges"]
    ) == len(found["counts"]["a"]) + 1 <= 25


# --- contamination
# --------------------------------------------------------------------------------------------------
def index(benchmark, n):
    return contamination.Index.of(
        "b", rows(*({"text": text} for text in benchmark)), n, text_measures.Fields(("text",))
    )


def test_a_shared_run_is_found_whatever_its_case_and_punctuation():
    found = index(
        ["one two three four five six", "short text", "nine ten eleven twelve thirteen"], 4
    )
    hit = found.look(Row({}, "d", 7), [text_measures.words("Zero ONE, two; three... four!")])
    assert (hit.row, hit.benchmark_row, hit.words) == ("d:7", "f:1", "one two three four")
    # a run does not cross texts
    assert (
        found.look(
            Row({}, "d", 8),
            [text_measures.words("one two three"), text_measures.words("four five six")],
        )
        is None
    )
    assert found.numbers() == {
        "ngram": 4, "benchmark_rows": 3, "short_rows": 1, "contaminated_rows": 1,
        "contaminated_share": 0.5, "data_rows_concerned": 1
    }  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=12), min_size=1, max_size=5),
    st.lists(st.sampled_from("abcd"), max_size=20),
    st.integers(1, 4),
)
def test_it_finds_what_comparing_all_runs_finds(benchmark, data, n):
    found = index([" ".join(words) for words in benchmark], n)
    hit = found.look(Row({}, "d", 1), [data])
    runs = lambda words: {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}
    expected = {
        f"f:{line}" for line, words in enumerate(benchmark, start=1) if runs(words) & runs(data)
    }
    assert found.found == expected and (hit is not None) == bool(expected)


@pytest.mark.parametrize(("length", "n"), [(3, 8), (10, 10), (40, 13)])
def test_auto_takes_the_rule_of_gpt3(length, n):
    assert index([" ".join(f"w{i}" for i in range(length))] * 3, "auto").n == n
