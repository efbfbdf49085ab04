"""The stages of text one after another, as `jaxsft prepare` runs them, and as `predict` repeats
them.
"""

import json

import pytest

from jaxsft.config import overrides
from jaxsft.data import formats, prepared
from jaxsft.data.formats import Row
from jaxsft.errors import DataError
from jaxsft.prepare import run

LISTED = [
    {"collect": {"rename": {"q": "text"}, "values": {"licence": {"*in.jsonl": "CC0"}}}},
    {"clean": {"html": "strip"}},
    {"pii": {"mode": "pseudonym"}},
    {"words": {"stop_words": "stop.txt"}},
    {"language": {"method": "script", "keep": ["Latin"], "min_probability": 0.5}},
    {"heuristics": {"min_words": 2}},
    {"split": {"stratify": "label", "near": 0.9, "fractions": [0.6, 0.2, 0.2]}},
    {"dedup": {"conflict": "keep"}},
    {"augment": {"methods": ["swap", "keyboard"], "copies": 2}},
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stop.txt").write_text("the\n")
    rows = [
        {
            "q": f"The <b>number</b> {i % 50} &amp; a@b{i % 50}.org told of word{i % 50} again",
            "label": "xy"[i % 2],
        }
        for i in range(80)
    ]
    formats.write(
        [
            *rows,
            {"q": "the", "label": "x"},
            {"q": "привет привет", "label": "x"},
            {"q": "one", "label": "y"},
        ],
        tmp_path / "in.jsonl",
    )
    return tmp_path


def prepare(out):
    given = {"data": {"path": "in.jsonl"}, "stages": LISTED, "output": {"dir": out}}
    return run.prepare(overrides.composed(overrides.from_values(given), "prepare"))[0]


def test_every_row_is_accounted_for_and_twice_is_the_same(folder):
    manifest = prepare("out")
    told = {stage["stage"]: stage for stage in manifest["stages"]}
    assert told["words"]["sets"]["all"]["dropped"] == {"no words left": 1}
    assert told["language"]["sets"]["all"]["dropped"] == {"another script": 1}
    assert told["heuristics"]["sets"]["all"]["dropped"] == {"too few words": 1}
    assert told["split"]["sets"]["all"]["facts"]["rows"] == {
        split: told["split"]["written"][split] for split in ("train", "validation", "test")
    }
    gone = [sum(report["dropped"].values()) for report in told["dedup"]["sets"].values()]
    # of 50 texts 30 come twice; both stand in one split, so that each split loses its own
    assert sum(gone) == 30
    assert sum(told["augment"]["written"].values()) == 50 + sum(
        told["augment"]["sets"]["train"]["added"].values()
    )
    kept = {
        split: [row.fields["text"] for row in prepared.rows(folder / "out", manifest, split)]
        for split in manifest["splits"]
    }
    assert len({*kept["validation"], *kept["test"]}) == len(kept["validation"]) + len(kept["test"])
    assert not {*kept["validation"], *kept["test"]} & {*kept["train"]}
    prepare("again")
    for name in ("train.jsonl", "validation.jsonl", "test.jsonl", "dropped.jsonl"):
        assert (folder / "out" / name).read_bytes() == (folder / "again" / name).read_bytes()


def test_new_rows_are_treated_as_those_of_the_set(folder):
    manifest = json.loads(json.dumps(prepare("out")))
    known = next(
        row
        for split in ("validation", "test")
        for row in prepared.rows(folder / "out", manifest, split)
    )
    number = known.fields["text"].split()[1]
    (new,) = run.replay(
        manifest,
        [
            Row(
                {
                    "text": (
                        f"The <i>number</i> {number} &amp; A@B{number}.org told of word{number}"
                        " again"
                    )
                },
                "new.jsonl",
                1,
            )
        ],
    )
    assert new.fields["text"] == known.fields["text"]
    with pytest.raises(
        DataError,
        match=r"new.jsonl:1: the stage words of the training data drops this row \(no words left\)",
    ):
        run.replay(manifest, [Row({"text": "the"}, "new.jsonl", 1)])
