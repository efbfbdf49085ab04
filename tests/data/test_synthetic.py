"""The demo's data are the same for the same seed, never repeat a prompt, and held-out rows are made
of parts that were seen.
"""

import json
import re
from collections import Counter

import pytest

from jaxsft.data.synthetic import LANGUAGES, SKILLS, generate, write
from jaxsft.errors import ConfigError

ROWS = 5000


@pytest.fixture(scope="module")
def rows():
    return generate(0, ROWS)


def test_seeded(rows):
    assert rows == generate(0, ROWS) and rows != generate(1, ROWS)
    assert {row["prompt"] for row in rows[:4500]} != {
        row["prompt"] for row in generate(1, ROWS)[:4500]
    }


def test_shape_of_the_rows(rows):
    assert len(rows) == ROWS == len({row["prompt"] for row in rows})
    for row in rows:
        assert list(row) == ["prompt", "completion", "skill", "language"]
        assert 3 <= len(row["prompt"].encode()) <= 36 and 1 <= len(row["completion"].encode()) <= 12
        assert (
            row["prompt"] == row["prompt"].strip()
            and row["completion"] == row["completion"].strip()
        )


def test_every_skill_in_both_languages(rows):
    counts = Counter((row["skill"], row["language"]) for row in rows)
    assert (
        set(counts) == {(skill, language) for skill in SKILLS for language in LANGUAGES}
        and len(SKILLS) == 8
    )
    assert min(counts.values()) >= 150 and max(counts.values()) <= 0.15 * ROWS
    first = Counter((row["skill"], row["language"]) for row in rows[:500])
    assert len(first) == len(counts), "the order must not group the skills"
    assert all(
        re.search("[\u4e00-\u9fff]", row["prompt"]) for row in rows if row["language"] == "zh"
    )
    assert not any(
        re.search("[\u4e00-\u9fff]", row["prompt"]) for row in rows if row["language"] == "en"
    )


def test_a_prompt_has_one_answer_for_every_seed():
    answers = {}
    for seed in range(4):
        for row in generate(seed, ROWS):
            assert answers.setdefault(row["prompt"], row["completion"]) == row["completion"]


def test_held_out_rows_are_new_combinations_of_seen_parts(rows):
    def parts(row):
        text = f"{row['prompt']} {row['completion']}"
        return {
            (row["skill"], row["language"], part)
            for part in re.findall(r"[A-Za-z]+|\d|[\u4e00-\u9fff]", text)
        }

    train, test = rows[:4500], rows[4500:]
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in test}
    seen = set().union(*map(parts, train))
    assert not set().union(*map(parts, test)) - seen
    guessed = Counter(row["completion"] for row in train).most_common(1)[0][0]
    assert sum(row["completion"] == guessed for row in test) < 0.15 * len(test), (
        "a constant answer must not score"
    )


@pytest.mark.parametrize(("prompt", "completion"), [
    ("Translate: red cat", "红猫"), ("翻译:红猫", "red cat"), ("Opposite: big cat", "small cat"),
    ("反义:大猫", "小猫"),
    ("Which is larger, 3 or 8?", "8"), ("3和8哪个小?", "3"), ("Count: cat cat cat", "3"),
    ("数一数:猫猫", "2"),
    ("Tom has a red cat. Who?", "Tom"), ("小明有红猫。颜色?", "红"),
    ("Tom: now Sunday, tomorrow?", "Monday"), ("小明:本月九月,下月?", "十月"),
    ("Mood: the soup is awful", "bad"), ("评价:汤很棒", "好评"), ("Uppercase: red cat", "RED CAT"),
    ("大写:red cat", "RED CAT"),
])  # fmt: skip
def test_answers(prompt, completion):
    with pytest.raises(ConfigError) as error:
        generate(0, 10**9)
    total = int(re.search(r"has (\d+)", str(error.value)).group(1))
    everything = {row["prompt"]: row["completion"] for row in generate(0, total)}
    assert len(everything) == total and everything[prompt] == completion


def test_impossible_numbers_of_rows():
    assert generate(0, 0) == []
    for rows in (-1, 10**9):
        with pytest.raises(ConfigError, match="rows must lie between 0 and"):
            generate(0, rows)


def test_write(tmp_path):
    path = write(tmp_path / "data" / "demo.jsonl", 3, 100)
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == generate(3, 100)
    assert "\\u" not in path.read_text("utf-8")
