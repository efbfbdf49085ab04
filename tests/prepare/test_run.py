"""`prepare` from end to end, with small stages made here: counts, resumption, processes, the same
bytes, the manifest, replay.
"""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Optional

import pytest

from jaxsft.commands import prepare as command
from jaxsft.config import overrides
from jaxsft.data import formats, prepared
from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare import run, stages
from jaxsft.prepare.quality import inputs
from jaxsft.prepare.stage import Report, Stage, number_of, text_of, with_fields


@dataclass(frozen=True)
class Upper(Stage):
    replayed: ClassVar[bool] = True
    slow: ClassVar[bool] = True
    fields: list[str] = field(default_factory=lambda: ["text"])

    def row(self, row, state, report):
        report.changed["upper"] += 1
        return with_fields(
            row, **{name: text_of(row, name, "stages.upper.fields").upper() for name in self.fields}
        )


@dataclass(frozen=True)
class Short(Stage):
    least: int = 2

    def row(self, row, state, report):
        if len(row.fields["text"]) < self.least:
            report.drop(row, "too short")
            return None
        return row


@dataclass(frozen=True)
class Fill(Stage):
    learns: ClassVar[bool] = True
    replayed: ClassVar[bool] = True
    field: str = "n"

    def fit(self, rows, report):
        known = [
            v for row in rows if (v := number_of(row, self.field, "stages.fill.field")) is not None
        ]
        return {"mean": sum(known) / len(known)}

    def row(self, row, state, report):
        value = number_of(row, self.field, "stages.fill.field")
        report.changed["filled"] += value is None
        return with_fields(row, **{self.field: state["mean"] if value is None else value})


@dataclass(frozen=True)
class Twice(Stage):
    on: ClassVar[str] = "train"

    def rows(self, split, rows, state, report) -> Iterator[Row]:
        for row in rows:
            yield row
            yield row
            report.add("copy")


@dataclass(frozen=True)
class Halves(Stage):
    on: ClassVar[str] = "all"
    lose: Optional[int] = None  # this many rows vanish: a bug

    def sets(self, sets, reports):
        rows = list(sets["all"])[self.lose or 0 :]
        return {"train": rows[::2], "test": rows[1::2]}


STAGES = {"upper": Upper, "short": Short, "fill": Fill, "twice": Twice, "halves": Halves}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "get", lambda name: STAGES[name])
    rows = [{"text": chr(97 + i % 26) * (i % 5), "n": None if i % 3 == 0 else i} for i in range(40)]
    formats.write(rows, tmp_path / "in.jsonl")
    return tmp_path


def prepare(folder, listed, **more):
    given = {
        "data": {"path": str(folder / "in.jsonl")},
        "stages": listed,
        "output": {"dir": str(folder / "out")},
        **more,
    }
    config = overrides.composed(overrides.from_values(given), "prepare")
    return run.prepare(config)


def everything(folder):
    return {p.name: p.read_bytes() for p in sorted((folder / "out").iterdir())}


ALL = [
    "upper",
    "short",
    "halves",
    "upper",
    {"fill": {"field": "n"}},
    "twice",
    {"upper": {"fields": ["text"]}},
]


def test_every_row_is_accounted_for(folder):
    manifest, done = prepare(folder, ALL)
    assert done and [s["stage"] for s in manifest["stages"]] == [
        "read",
        "upper",
        "short",
        "halves",
        "upper",
        "fill",
        "twice",
        "upper",
    ]
    told = {s["stage"]: s for s in manifest["stages"]}
    assert told["short"]["sets"]["all"] == {"read": 40, "dropped": {"too short": 16}}
    assert told["twice"]["sets"] == {
        "train": {"read": 12, "dropped": {}, "added": {"copy": 12}},
        "test": {"read": 12, "dropped": {}},
    }
    assert told["fill"]["state"] == {
        "mean": (
            sum(n for n in kept_numbers(folder)[::2] if n)
            / sum(n is not None for n in kept_numbers(folder)[::2])
        )
    }
    assert {n: s["rows"] for n, s in manifest["splits"].items()} == {"train": 24, "test": 12}
    assert all(
        len(list(prepared.rows(folder / "out", manifest, n))) == s["rows"]
        for n, s in manifest["splits"].items()
    )
    lost = [
        json.loads(line) for line in (folder / "out" / "dropped.jsonl").read_text().splitlines()
    ]
    assert len(lost) == 16 and lost[0] == {
        "row": f"{folder}/in.jsonl:1",
        "set": "all",
        "stage": "short",
        "reason": "too short",
    }
    assert "short         all         40 rows, - 16 too short" in command.summary(manifest)


def test_the_options_of_a_split_are_read_with_its_file(folder):
    """In preparation and in the quality card; for a split that has no file they are an error."""
    (folder / "all.json").write_text(
        json.dumps({"a": [{"text": "aa"}] * 3, "b": [{"text": "bb"}] * 2})
    )
    data = {
        "train": f"{folder}/all.json",
        "test": f"{folder}/all.json",
        "options": {"records": "a", "test": {"records": "b"}},
    }
    manifest, _ = prepare(folder, ["upper"], data=data)
    assert {name: part["rows"] for name, part in manifest["splits"].items()} == {
        "train": 3,
        "test": 2,
    }
    given = overrides.composed(overrides.from_values({"data": data}), "prepare").data
    assert [
        (name, row.fields["text"]) for name, row in inputs.of_config(given).rows("train", "test")
    ] == [("train", "aa")] * 3 + [("test", "bb")] * 2
    for read in (
        lambda data: prepare(folder, ["upper"], data=data),
        lambda data: inputs.of_config(dataclasses.replace(given, **data)),
    ):
        with pytest.raises(
            ConfigError, match=r"data\.options\.validation: is read with data\.validation=FILE only"
        ):
            read(data | {"options": {"validation": {"records": "b"}}})


def kept_numbers(folder):
    return [
        row.fields["n"] for row in formats.read(folder / "in.jsonl") if len(row.fields["text"]) >= 2
    ]


def test_the_same_again_does_nothing_and_another_set_is_not_overwritten(folder):
    manifest, _ = prepare(folder, ALL)
    before = everything(folder)
    assert prepare(folder, ALL) == (manifest, False) and everything(folder) == before
    with pytest.raises(ConfigError, match=r"holds another prepared set.*output.overwrite=true"):
        prepare(folder, ALL[:4])
    assert everything(folder) == before
    (folder / "out" / "train.jsonl").write_text("damaged")
    with pytest.raises(ConfigError, match="holds another"):
        prepare(folder, ALL)
    assert (
        prepare(folder, ALL, output={"dir": str(folder / "out"), "overwrite": True})[1]
        and everything(folder) == before
    )
    assert [p.name for p in folder.iterdir()] == sorted(
        ["in.jsonl", "out"], key=[p.name for p in folder.iterdir()].index
    )


def test_the_account_of_dropped_rows_is_part_of_the_set(folder):
    manifest, _ = prepare(folder, ALL)
    before = everything(folder)
    (folder / "out" / "dropped.jsonl").write_text("")
    with pytest.raises(ConfigError, match="holds another"):
        prepare(folder, ALL)
    assert (
        prepare(folder, ALL, output={"dir": str(folder / "out"), "overwrite": True})
        == (manifest, True)
        and everything(folder) == before
    )


def test_processes_and_shards_change_no_row(folder):
    prepare(folder, ALL)
    one = everything(folder)
    formats.write([{"text": "x"}], folder / "other.jsonl")
    prepare(
        folder, ALL, output={"dir": str(folder / "out"), "overwrite": True, "shards": 3}, workers=2
    )
    assert (
        b"".join(everything(folder)[f"train-{i:05d}-of-00003.jsonl"] for i in range(3))
        == one["train.jsonl"]
    )


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet", "array_record"])
def test_every_format_gives_the_rows_back_and_the_same_bytes(folder, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    expected = {
        split: [row.fields for row in prepared.rows(folder / "out", prepare(folder, ALL)[0], split)]
        for split in ("train", "test")
    }
    where = {"dir": str(folder / kind), "format": kind}
    manifest, _ = prepare(folder, ALL, output=where)
    before = {p.name: p.read_bytes() for p in (folder / kind).iterdir()}
    as_text = (
        (lambda rows: [{k: str(v) for k, v in row.items()} for row in rows])
        if kind == "csv"
        else (lambda rows: rows)
    )
    for split, rows in expected.items():
        path = prepared.paths(folder / kind, manifest)[split]
        assert as_text([row.fields for row in formats.read(path, columns=["text"])]) == as_text(
            rows
        )
    assert prepare(folder, ALL, output=where) == (manifest, False)
    (folder / kind / "manifest.json").write_text(json.dumps({**manifest, "key": "old"}))
    prepare(folder, ALL, output={**where, "overwrite": True})
    assert {p.name: p.read_bytes() for p in (folder / kind).iterdir()} == before


def test_an_interrupted_preparation_goes_on_behind_the_last_stage_that_was_done(
    folder, monkeypatch
):
    prepare(folder, ALL)
    undisturbed = everything(folder)
    calls = []
    fit = Fill.fit
    monkeypatch.setattr(
        Fill, "fit", lambda self, rows, report: calls.append("fit") or fit(self, rows, report)
    )

    def fails(self, split, rows, state, report):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Twice, "rows", fails)
        with pytest.raises(KeyboardInterrupt):
            prepare(
                folder, ALL, output={"dir": str(folder / "out"), "overwrite": True, "origin": True}
            )
    assert (
        everything(folder) == undisturbed and (folder / ".out.work").is_dir() and calls == ["fit"]
    )
    manifest, _ = prepare(
        folder, ALL, output={"dir": str(folder / "out"), "overwrite": True, "origin": True}
    )
    assert calls == ["fit"] and not (folder / ".out.work").exists()
    plain = json.loads(undisturbed["manifest.json"])
    assert manifest["stages"] == plain["stages"]
    assert [
        {k: v for k, v in json.loads(line).items() if k != "origin"}
        for line in (folder / "out" / "train.jsonl").open()
    ] == [json.loads(line) for line in undisturbed["train.jsonl"].splitlines()]


def test_another_model_is_another_preparation(folder):
    def other(texts):
        return texts

    config = lambda out: overrides.composed(
        [f"data.path={folder / 'in.jsonl'}", "stages=[short]", f"output.dir={folder / out}"],
        "prepare",
    )
    assert (
        run.prepare(config("out"), {"predict": list})[1]
        and not run.prepare(config("out"), {"predict": list})[1]
    )
    with pytest.raises(ConfigError, match="holds another prepared set"):
        run.prepare(config("out"), {"predict": other})


def test_functions_of_one_name_are_asked_again_with_overwrite(folder):
    config = lambda more: overrides.composed(
        [
            f"data.path={folder / 'in.jsonl'}",
            "stages=[short]",
            f"output.dir={folder / 'out'}",
            more,
        ],
        "prepare",
    )
    assert (
        run.prepare(config("workers=1"), {"predict": list})[1]
        and not run.prepare(config("workers=1"), {"predict": list})[1]
    )
    assert run.prepare(config("output.overwrite=true"), {"predict": list})[1]


def test_a_stage_that_loses_rows_is_found_out(folder):
    with pytest.raises(AssertionError, match="halves: 40 rows in"):
        prepare(folder, [{"halves": {"lose": 1}}])
    assert not (folder / "out").exists()


@pytest.mark.parametrize("listed", [["fill"], ["twice"]])
def test_what_needs_training_rows_asks_for_a_split(folder, listed):
    with pytest.raises(ConfigError, match="put split before it"):
        prepare(folder, listed)


@pytest.mark.parametrize(
    "listed, part",
    [
        ([{"short": {"leest": 3}}], "stages.short.leest: unknown option; did you mean least"),
        ([{"short": {"least": "x"}}], "stages.short: "),
        ([{"short": {}, "upper": {}}], "expected a name, or one name with its options"),
    ],
)
def test_options_are_strict(folder, listed, part):
    with pytest.raises(ConfigError, match=part):
        prepare(folder, listed)


@pytest.mark.parametrize(
    "more, part",
    [
        ({"workers": 0}, "workers=0: expected at least 1"),
        ({"output": {"dir": "x", "shards": 0}}, "output.shards=0: expected at least 1"),
        ({"output": {"dir": "x", "format": "doc"}}, "output.format=doc: expected one of jsonl"),
        ({"output": {}}, "output.dir is missing"),
        ({"data": {}}, "give data.path=FILE"),
        (
            {"data": {"path": "x", "on_bad_row": "skip"}},
            "data.on_bad_row=skip: expected one of error, quarantine",
        ),
    ],
)
def test_values_are_checked_before_anything_is_read(folder, more, part):
    with pytest.raises(ConfigError, match=part):
        prepare(folder, [], **more)


def test_rows_that_cannot_be_read_are_counted_and_named(folder):
    (folder / "in.jsonl").write_text('{"text": "aa"}\n{"text": \n' + '{"text": "bb"}\n' * 9)
    with pytest.raises(DataError, match=r"in.jsonl:2: broken JSON .*data.on_bad_row=quarantine"):
        prepare(folder, ["short"])
    data = {"path": str(folder / "in.jsonl"), "on_bad_row": "quarantine"}
    manifest, _ = prepare(folder, ["short"], data=data)
    assert (
        manifest["stages"][0]["sets"]["all"] == {"read": 11, "dropped": {"unreadable": 1}}
        and manifest["splits"]["all"]["rows"] == 10
    )
    lost = json.loads((folder / "out" / "dropped.jsonl").read_text())
    assert lost["row"].endswith("in.jsonl:2") and lost["reason"].startswith(
        "unreadable: broken JSON"
    )
    with pytest.raises(
        DataError, match=r"1 of 11 rows of all cannot be read, more than data.max_dropped=0.05"
    ):
        prepare(folder, [], data={**data, "max_dropped": 0.05}, output={"dir": str(folder / "new")})


@pytest.mark.parametrize(
    "listed, split",
    [(["halves", {"short": {"least": 9}}, "upper"], "train"), ([{"short": {"least": 9}}], "all")],
)
def test_a_set_without_rows_to_train_on_is_an_error(folder, listed, split):
    with pytest.raises(
        DataError, match=rf"stage short dropped the last rows of {split} \(\d+ too short\)"
    ):
        prepare(folder, listed)
    assert not (folder / "out").exists()


def test_replay_treats_new_rows_as_the_training_rows_were(folder):
    manifest, _ = prepare(folder, ALL)
    mean = next(s["state"]["mean"] for s in manifest["stages"] if s["stage"] == "fill")
    new = run.replay(
        manifest, [Row({"text": "a", "n": None}, "new", 1), Row({"text": "b", "n": 5}, "new", 2)]
    )
    assert [row.fields for row in new] == [{"text": "A", "n": mean}, {"text": "B", "n": 5.0}]
    with pytest.raises(DataError, match="new:1: missing column 'n'"):
        run.replay(manifest, [Row({"text": "a"}, "new", 1)])


def test_random_numbers_of_a_row_depend_on_the_row_alone():
    row, stage = Row({}, "a.csv", 3), Short()
    assert stage.rng(row).random() == Short(least=5).rng(row).random() != stage.rng(row, 1).random()
    assert all(
        stage.rng(Row({}, file, 3)).random() == stage.rng(row).random()
        for file in ("./a.csv", "/data/a.csv", "x/../a.csv")
    )
    report = Report()
    report.merge(Report(dropped=[("a:1", "x")], facts={"n": 1}))
    assert report.dropped == [("a:1", "x")] and report.facts == {"n": 1}
