"""task=joint: intent and slots are learnt together, and a frame is right where both are."""

import numpy as np
import pytest

from jaxsft import api, rundir, tasks
from jaxsft.config.schema import Columns
from jaxsft.data import encoded_split, formats
from jaxsft.data.formats import Row
from jaxsft.data.records import Slots, parse_rows, slots_record
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import DataError
from tests import tiny
from tests.conftest import make_config
from tests.measuring import numbers_of
from tests.realdata import real

RECORDS = [
    Slots(("rain", "in", "Rome"), ("O", "O", "B-city"), "iob2", (), "weather"),
    Slots(("wake", "me"), ("O", "O"), "iob2", (), "alarm"),
]


def made(**options):
    kind = tasks.get("joint")
    config = make_config("joint", **options)
    return kind(
        config, Tokenizer.bytes(), kind.fit(config, Tokenizer.bytes(), RECORDS, ["f:1", "f:2"])
    )


def test_a_frame_is_right_where_intent_and_slots_are():
    """The windows of a long text vote on its intent; a row that was dropped is wrong."""
    t = made(data={"too_long": "window", "max_length": 16})
    long = Slots(tuple("word" for _ in range(8)), ("O",) * 8, "iob2", (), "weather")
    split = encoded_split.load_split(
        "test", [*RECORDS, long], ["f:1", "f:2", "f:3"], t, t.config.data, 64
    )
    rows = split.arrays["row"].tolist()
    assert rows.count(2) > 2 and sum(
        split.arrays["segment.weight"][split.arrays["row"] == 2]
    ) == pytest.approx(1)
    gold = {
        "word.prediction": split.arrays["word.tag"].copy(),
        "intent": np.eye(2)[split.arrays["segment.label"].astype(int)],
    }
    assert (
        numbers_of(t, split, gold) | {"words": 13} == numbers_of(t, split, gold)
        and numbers_of(t, split, gold)["frame_accuracy"] == 1
    )
    # Rome
    gold["word.prediction"][np.flatnonzero(split.arrays["word.own"])[2]] = t.labels.index("O")
    gold["intent"][rows.index(2)] = [5, 0]  # one window outvotes the others
    numbers = numbers_of(t, split, gold)
    assert numbers["frame_accuracy"] == pytest.approx(1 / 3) and numbers[
        "intent_accuracy"
    ] == pytest.approx(2 / 3)
    assert numbers["accuracy"] == pytest.approx(12 / 13) and numbers["f1_micro"] == 0
    lines = list(t.predictions(split, gold, None))
    assert [line["correct"] for line in lines] == [False, True, False]
    assert t.predicted(lines[2]) == {"prediction": ["O"] * 8, "predicted_intent": "alarm"}


def test_an_intent_that_was_not_seen_is_told_with_its_place():
    with pytest.raises(
        DataError,
        match=(
            r"f:9: label 'music' is not in the vocabulary of 2 labels \(alarm, weather\); add it by"
            r" task.intents"
        ),
    ):
        made().encode_all([Slots(("play",), ("O",), "iob2", (), "music")], ["f:9"])


def test_intents_of_real_files():
    """xSID has them in a comment, SNIPS beside spans of a text, of which one ends inside a word
    where a space is missing: it is put aside.
    """
    for path, read, broken in (
        ("xsid_0.7_eval/en.valid.conll.gz", 300, []),
        ("snips_cc0/validate_GetWeather.json.gz", 100, [651]),
    ):
        rows, aside = formats.read(real(path)), []
        kept, records = parse_rows(rows, slots_record, Columns(), aside, "quarantine")
        assert (
            len(rows) == read
            and [bad.line for bad in aside] == broken
            and len(records) == read - len(broken)
        )
        assert [r.label for r in records] == [row.fields["intent"] for row in kept]
        assert any(tag.startswith("B-") for r in records for tag in r.tags)


def test_from_the_file_to_the_file(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(60):
        city, asks = str(rng.choice(["Rome", "Oslo"])), bool(rng.random() < 0.5)
        words = ["rain", "in", city] if asks else ["go", "to", city, "now"]
        rows.append(
            {
                "tokens": words,
                "tags": ["B-city" if w == city else "O" for w in words],
                "intent": "weather" if asks else "travel",
            }
        )
    tiny.write_lines(tmp_path / "train.jsonl", rows[:48])
    tiny.write_lines(tmp_path / "held.jsonl", rows[48:])
    options = [
        "model.embed=32",
        "model.layers=1",
        "model.context=64",
        "precision=fp32",
        "tokenizer=bytes",
        "mesh.data=1",
        "model.dropout=0",
    ]
    options += [
        "train.duration=30steps",
        "optim.learning_rate=0.01",
        "evaluation.every=30steps",
        "checkpoint.every=30steps",
        "model.mlp=64",
    ]
    options += ["evaluation.metric=validation/intent_accuracy"]
    splits = [
        f"data.train={tmp_path / 'train.jsonl'}",
        f"data.validation={tmp_path / 'held.jsonl'}",
    ]
    code, _, err = tiny.jaxsft(
        "train", "task=joint", *splits, f"run_dir={tmp_path / 'run'}", *options
    )
    assert code == 0, err
    result = rundir.read_json(tmp_path / "run" / "result.json")
    assert result["validation/frame_accuracy"] > 0.9 and result["validation/rows"] == 12
    (line,) = api.load(tmp_path / "run").predict([{"tokens": ["rain", "in", "Oslo"]}])
    assert line["predicted_intent"] == "weather" and line["prediction"] == ["O", "O", "B-city"]
    assert api.load(tmp_path / "run").task.unlabelled(
        Row({"text": "go to Rome"}, "f", 1), Columns()
    ).tokens == ("go", "to", "Rome")
