"""Where a set comes from and where it goes: sets as inputs, files beside them, folders that cannot
be, two commands at once, a full disk.
"""

import json
import resource
from pathlib import Path

import pytest

from jaxsft import api, cli, tasks
from jaxsft.config import overrides
from jaxsft.data import formats, prepared
from jaxsft.data.splits import read_splits
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError, DataError, JaxsftError
from jaxsft.prepare import run
from jaxsft.runlock import RunLock
from jaxsft.training import setup

ROWS = [{"text": f"a sentence about {i} things", "mood": "ab"[i % 2], "n": i} for i in range(40)]


def prepare(folder, listed, out="out", data=None, **more):
    given = {
        "data": data or {"path": str(folder / "in.jsonl")},
        "stages": listed,
        "output": {"dir": str(out if out == "." else folder / out)},
    }
    return run.prepare(
        overrides.composed([*overrides.from_values(given), *overrides.from_values(more)], "prepare")
    )


@pytest.fixture
def folder(tmp_path):
    formats.write(ROWS, tmp_path / "in.jsonl")
    return tmp_path


@pytest.mark.parametrize("form, shards", [("jsonl", 1), ("csv", 3), ("jsonl", 9)])
def test_a_prepared_set_is_read_as_its_splits_and_not_as_a_folder(folder, form, shards):
    listed = [{"heuristics": {"max_chars": 26, "min_chars": 26}}, "split"]
    data = {"path": str(folder / "in.jsonl"), "columns": {"label": "mood"}}
    first, _ = prepare(
        folder,
        listed,
        "s[e]t",
        data,
        output={"dir": str(folder / "s[e]t"), "format": form, "shards": shards},
    )
    again, _ = prepare(folder, ["clean"], data={"path": str(folder / "s[e]t")})
    assert {s: part["rows"] for s, part in again["splits"].items()} == {
        s: part["rows"] for s, part in first["splits"].items()
    }
    assert again["columns"] == {"label": "mood"}


def test_the_splits_of_a_prepared_set_are_found_in_a_folder_of_any_name_and_not_replaced_in_silence(
    folder,
):
    prepare(folder, ["split"], "s[e]t", output={"dir": str(folder / "s[e]t"), "shards": 2})
    overridden = ["task=classify", f"data.path={folder}/s[e]t", "data.columns.label=mood"]
    config = setup.resolve(api.compose(*overridden))
    records = read_splits(config, tasks.get("classify"))
    assert (
        sum(len(part.records) for part in records.values()) == 40
        and prepared.around(config.data.train)["splits"].keys() == records.keys()
    )
    with pytest.raises(
        ConfigError, match=r"prepared set with its own splits and excludes data.test"
    ):
        setup.resolve(api.compose(*overridden, f"data.test={folder}/in.jsonl"))


def test_lists_of_columns_go_from_the_preparation_into_training(folder):
    manifest, _ = prepare(
        folder,
        ["split"],
        data={"path": str(folder / "in.jsonl"), "columns": {"labels": ["n", "mood"]}},
    )
    assert manifest["columns"] == {"labels": ["n", "mood"]}
    config = setup.of_prepared(api.compose("task=multilabel", f"data.path={folder}/out"))
    assert list(config.data.columns.labels) == ["n", "mood"] and config.data.columns.text is None
    config = setup.of_prepared(
        api.compose(
            "task=multilabel",
            f"data.path={folder}/out",
            "data.columns.labels=[n]",
            "data.columns.text=t",
        )
    )
    assert list(config.data.columns.labels) == ["n"] and config.data.columns.text == "t"


def test_a_file_beside_the_files_of_a_prepared_set_is_none_of_them(folder):
    prepare(folder, ["split"])
    formats.write(ROWS, folder / "out" / "new.jsonl")
    assert (
        prepared.around(folder / "out" / "new.jsonl") is None
        and prepared.around(folder / "out" / "test.jsonl") is not None
    )


def test_folders_that_cannot_be_are_named(folder, monkeypatch):
    formats.write(ROWS, folder / "data" / "a.jsonl")
    with pytest.raises(ConfigError, match=r"lies in .*all of which is read as data"):
        prepare(folder, [], "data/out", {"path": str(folder / "data")})
    with pytest.raises(ConfigError, match="found a file, expected a folder"):
        prepare(folder, [], "in.jsonl")
    (folder / "empty").mkdir()
    monkeypatch.chdir(folder / "empty")
    with pytest.raises(ConfigError, match="expected the name of a folder"):
        prepare(folder, [], ".")


def test_a_long_text_in_an_option_is_no_file(folder):
    manifest, _ = prepare(folder, [{"clean": {"patterns": ["x" * 5000]}}])
    assert [found["set"] for found in manifest["inputs"]] == ["all"] and json.dumps(
        manifest["stages"]
    )


def test_two_commands_never_work_in_one_folder(folder):
    (folder / ".out.work").mkdir()
    with (
        RunLock(folder / ".out.work"),
        pytest.raises(
            JaxsftError,
            match=r"prepares this set already; wait for it, or give another output.dir=",
        ),
    ):
        prepare(folder, ["clean"])
    assert (
        not (folder / "out").exists()
        and prepare(folder, ["clean"])[1]
        and not (folder / ".out.work").exists()
    )


def test_a_full_disk_is_told_in_one_sentence_and_leaves_no_half_set(folder):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, limit[1]))
    try:
        with pytest.raises(JaxsftError, match=r"cannot write \(File too large\)"):
            prepare(folder, [{"heuristics": {"max_chars": 25}}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert (
        not (folder / "out").exists()
        and prepare(folder, [{"heuristics": {"max_chars": 25}}])[0]["splits"]["all"]["rows"] == 10
    )


@pytest.mark.parametrize("place", ["/proc/none/set", "in.jsonl/set"])
def test_a_place_where_nothing_can_be_made_is_told(folder, place):
    with pytest.raises(DataError, match="cannot make the folder for rows between stages"):
        prepare(folder, [], folder / place)


def test_another_model_gives_another_set(folder, capsys):
    for name, weights in (("one", "w"), ("two", "v")):
        (folder / name / "checkpoints" / "1").mkdir(parents=True)
        (folder / name / "config.yaml").write_text("task: chat")
        (folder / name / "checkpoints" / "1" / "weights").write_text(weights)
    listed = [
        "prepare",
        f"data.path={folder}/in.jsonl",
        f"output.dir={folder}/out",
        "stages=[clean]",
    ]
    assert cli.main([*listed, f"run={folder}/one"]) == 0 == cli.main([*listed, f"run={folder}/one"])
    assert "nothing was done" in capsys.readouterr().out
    assert (
        cli.main([*listed, f"run={folder}/two"]) == 1
        and "holds another prepared set" in capsys.readouterr().err
    )
    (folder / "one" / "checkpoints" / "1" / "weights").write_text("trained on")
    assert (
        cli.main([*listed, f"run={folder}/one"]) == 1
        and "holds another prepared set" in capsys.readouterr().err
    )


def test_the_command_line_gives_stages_a_model(folder, monkeypatch):
    predict = lambda records: [
        {**record, "prediction": record["prompt"].upper()} for record in records
    ]
    monkeypatch.setattr(
        api, "model_functions", lambda run: {"predict": predict} if run == "runs/mine" else {}
    )
    stages = "stages=[split,{augment:{methods:[back_translation]}}]"
    assert (
        cli.main(
            [
                "prepare",
                f"data.path={folder}/in.jsonl",
                f"output.dir={folder}/out",
                stages,
                "run=runs/mine",
            ]
        )
        == 0
    )
    texts = [row.fields["text"] for row in formats.read(folder / "out" / "train.jsonl")]
    assert len(texts) == 56 and sum(text.isupper() for text in texts) == 28


def test_raw_rows_do_not_measure_a_model_of_prepared_rows(folder):
    def splits(**files):
        given = [f"data.{name}={folder}/{file}" for name, file in files.items()]
        config = setup.resolve(api.compose("task=classify", "data.columns.label=mood", *given))
        return read_splits(config, tasks.get("classify"))

    prepare(folder, ["split", {"scale": {"fields": ["n"]}}])
    prepare(folder, ["dedup", "split"], "only_chosen")
    for train, test in (
        ("out/train.jsonl", "in.jsonl"),
        ("in.jsonl", "out/test.jsonl"),
        ("out/train.jsonl", "only_chosen/test.jsonl"),
    ):
        with pytest.raises(
            DataError,
            match=(
                r"data.test=.* was not prepared as data.train=.* was \(scale\); prepare them in one"
                r" command"
            ),
        ):
            splits(train=train, test=test)
    assert splits(train="out/train.jsonl", test="out/test.jsonl") and splits(
        train="only_chosen/train.jsonl", test="in.jsonl"
    )


def test_the_spelling_of_a_path_changes_no_row(folder, monkeypatch):
    monkeypatch.chdir(folder)
    listed = ["split", {"augment": {"methods": ["swap"]}}, "balance"]
    columns = {"columns": {"label": "mood"}}
    for out, path in (
        ("plain", "in.jsonl"),
        ("dotted", "./in.jsonl"),
        ("whole", f"{folder}/in.jsonl"),
    ):
        prepare(folder, listed, out, {"path": path, **columns})
    assert (
        len({(folder / out / "train.jsonl").read_bytes() for out in ("plain", "dotted", "whole")})
        == 1
    )


def test_a_set_that_was_put_aside_by_a_command_that_was_killed_comes_back(folder, monkeypatch):
    again = {"dir": str(folder / "out"), "overwrite": True}
    first, _ = prepare(folder, ["clean"])
    before = (folder / "out" / "all.jsonl").read_bytes()
    rename = Path.rename

    def killed(self, target):
        if Path(target) == folder / "out":
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(Path, "rename", killed)
        broken.setattr(run.shutil, "rmtree", lambda *_, **__: None)
        prepare(folder, ["split"], output=again)
    assert not (folder / "out").exists() and len(list(folder.glob(".out.writing-*"))) == 2
    assert (
        prepare(folder, ["clean"]) == (first, False)
        and (folder / "out" / "all.jsonl").read_bytes() == before
    )
    assert sorted(path.name for path in folder.iterdir()) == ["in.jsonl", "out"]


def test_what_a_killed_command_left_is_cleared_away_and_other_sets_are_not(folder):
    for name in (".out.writing-abcd", ".out.writing-abcd.old", ".out2.writing-abcd"):
        (folder / name).mkdir()
    prepare(folder, ["clean"], "out")
    assert sorted(path.name for path in folder.iterdir()) == [
        ".out2.writing-abcd",
        "in.jsonl",
        "out",
    ]


@pytest.mark.parametrize("inner", ["", "tokenizer"])
def test_another_tokenizer_in_the_folder_of_an_option_is_another_preparation(folder, inner):
    place = folder / "mine" / inner
    Tokenizer.bytes().save(place)
    (folder / "mine" / "checkpoints").mkdir()
    listed = [{"heuristics": {"tokenizer": str(folder / "mine"), "min_tokens": 2}}]
    first, _ = prepare(folder, listed)
    assert [part["file"] for part in first["inputs"] if part["set"] is None] == [
        str(path) for path in sorted(place.iterdir()) if path.is_file()
    ]
    assert prepare(folder, listed) == (first, False)
    (place / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(ConfigError, match="holds another prepared set"):
        prepare(folder, listed)


def test_a_number_that_is_not_finite_is_named_where_it_was_read(folder):
    (folder / "in.jsonl").write_text(
        '{"text": "a b", "n": 1}\n{"text": " "}\n{"text": "c d", "n": NaN}\n'
    )
    with pytest.raises(
        DataError,
        match=(
            r"in.jsonl:3: cannot be written to all.jsonl: row 2, column 'n': found nan.*; set"
            r" output.format=csv, or"
        ),
    ):
        prepare(folder, ["clean"])
    assert sorted(path.name for path in folder.iterdir()) == [".out.work", "in.jsonl"]
    manifest, _ = prepare(
        folder, ["clean", {"missing": {"fields": ["n"]}}], data={"train": str(folder / "in.jsonl")}
    )
    assert manifest["splits"]["train"]["rows"] == 1
