import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsft.errors import ConfigError
from jaxsft.prepare.stages.words_stage import SNOWBALL
from tests.prepare.harness import make, one, texts


def words(text, **options):
    return texts(one(make("words", empty="keep", **options), text)[0])[0]


def test_lower_case_and_punctuation():
    assert words("The cat's  self-made — “hat”, № 5!") == "the cat's self-made hat 5"
    assert words("A cat.", lower=False, punctuation="keep") == "A cat ."
    assert words("e\u0301tude हिन्दी") == "e\u0301tude हिन्दी"


@given(st.text())
def test_normalising_twice_is_normalising_once(text):
    once = words(text)
    assert words(once) == once


def test_stop_words_of_a_file(tmp_path):
    (tmp_path / "stop.txt").write_text("The\n\n und \n", encoding="utf-8")
    assert words("The cat und THE dog", stop_words=str(tmp_path / "stop.txt")) == "cat dog"
    rows, report = one(make("words", stop_words=str(tmp_path / "stop.txt")), "the the", "cat")
    assert (
        texts(rows) == ["cat"]
        and report.dropped == [("rows.jsonl:1", "no words left")]
        and not report.changed
    )


def test_stop_words_of_the_library():
    pytest.importorskip("stopwordsiso")
    assert words("this is the cat of my house", stop_words="library") == "cat house"
    with pytest.raises(ConfigError, match=r"stages.words.language=xx"):
        make("words", stop_words="library", language="xx")


def test_stems_and_lemmas():
    snowball = pytest.importorskip("snowballstemmer")
    assert set(SNOWBALL.values()) <= set(snowball.algorithms())
    assert words("running runners ran easily", stem=True) == "run runner ran easili"
    assert words("Häuser", stem=True, language="de") == "haus"
    pytest.importorskip("simplemma")
    assert words("the mice were running", lemma=True) == "the mouse be run"
    with pytest.raises(ConfigError, match="exclude each other"):
        make("words", stem=True, lemma=True)
    with pytest.raises(ConfigError, match="simplemma has no lemmas"):
        make("words", lemma=True, language="xx")


def test_chinese_is_segmented():
    pytest.importorskip("jieba")
    assert words("我来到北京清华大学。", language="zh") == "我 来到 北京 清华大学"
    pytest.importorskip("stopwordsiso")
    assert (
        words("我来到北京清华大学。", language="zh", stop_words="library") == "来到 北京 清华大学"
    )


def test_an_unreadable_list_is_told(tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ConfigError, match="the file is empty"):
        make("words", stop_words=str(tmp_path / "empty.txt"))
