"""Splits of one file: what they lack is told, and what could never be learnt is refused."""

from __future__ import annotations

from jaxsft import tasks
from jaxsft.data.splits import read_splits
from jaxsft.reports import card, ledger_facts
from jaxsft.rundir import read_json
from jaxsft.training import loop
from tests import tiny


def rows(**counts):
    return [
        {"text": f"{label} number {i}", "label": label}
        for label, count in counts.items()
        for i in range(count)
    ]


def config(path, run_dir, **data):
    given = {"train": None, "validation": None, "path": str(path), **data}
    return tiny.config(
        path.parent, run_dir, "classify", data=given, train={"duration": "1steps", "batch_size": 4}
    )


def test_labels_that_a_split_lacks_are_told(tmp_path, capfd):  # guards E2
    path = tiny.write_lines(tmp_path / "all.jsonl", rows(many=20, two=2, one=1))
    loop.train(config(path, tmp_path / "run"))
    ledger = read_json(tmp_path / "run" / "ledger.json")
    assert (
        "lacks" not in ledger["train"]
        and ledger["test"]["lacks"] == ["one", "two"]
        and ledger["validation"]["lacks"] == ["one"]
    )
    assert "test has no row of 2 labels: one, two" in capfd.readouterr().out
    assert ledger_facts.accounts(tmp_path / "run")[1]["labels without a row"] == {
        "validation": "1 (one)",
        "test": "2 (one, two)",
    }
    assert "no row of 2 labels" in card._limits(tmp_path / "run")
    # a function of the content alone
    again = tiny.write_lines(tmp_path / "again.jsonl", rows(one=1, many=20, two=2)[::-1])
    before, after = (
        read_splits(config(p, tmp_path / "x"), tasks.get("classify")) for p in (path, again)
    )
    assert {n: {r.text for r in s.records} for n, s in before.items()} == {
        n: {r.text for r in s.records} for n, s in after.items()
    }


def test_a_row_with_a_label_that_training_would_lack_goes_there(tmp_path):
    path = tiny.write_lines(tmp_path / "all.jsonl", rows(many=20, one=1))
    splits = read_splits(
        config(path, tmp_path / "run", fractions=[0.3, 0.4, 0.3]), tasks.get("classify")
    )
    assert {r.label for r in splits["train"].records} == {
        "many",
        "one",
    } and "1 rows are in train" in splits["train"].notes[0]
    assert sum(len(part.records) for part in splits.values()) == 21


def test_a_split_of_tags_is_one_that_the_check_takes(tmp_path):
    """Tags that occur once are in train, whatever the hash says, and the rows of a prompt with
    several answers share a part.
    """
    path = tmp_path / "rare.conll"
    path.write_text("".join(f"word{i}\tNN\nruns\tV{i}\n\n" for i in range(30)), encoding="utf-8")
    given = tiny.config(tmp_path, tmp_path / "run", "tag", data={"train": None, "path": str(path)})
    splits = read_splits(given, tasks.get("tag"))
    tags = {name: {tag for r in part.records for tag in r.tags} for name, part in splits.items()}
    assert splits["train"].notes and all(tags["train"] >= other for other in tags.values())


def test_a_text_that_is_spelt_otherwise_stays_in_its_split(tmp_path):
    """As `jaxsft prepare` splits: whatever the case, the Unicode form and the white space, and
    whatever label it has.
    """
    spelt = lambda n: (f"{n} caf\u00e9s", f" {n}  cafe\u0301s", f"{n} CAF\u00c9S")
    written = [
        {"text": text, "label": "ab"[(n + i) % 2]}
        for n in range(20)
        for i, text in enumerate(spelt(n))
    ]
    path = tiny.write_lines(tmp_path / "all.jsonl", written)
    splits = read_splits(config(path, tmp_path / "run"), tasks.get("classify"))
    texts = {name: {r.text.split()[0] for r in part.records} for name, part in splits.items()}
    assert (
        sum(len(part.records) for part in splits.values()) == 60
        and sum(map(len, texts.values())) == 20
    )
