"""`jaxsft transfer` on two small runs."""

import json
import shutil

import pytest

import jaxsft
from jaxsft.rundir import read_json
from tests import tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Runs of task=classify `en` and `de`, and files of two sets with the same ids."""
    folder = tiny.data(tmp_path_factory.mktemp("transfer"))
    jaxsft.train(tiny.config(folder, folder / "en", task="classify"))
    shutil.copytree(folder / "en", folder / "de")
    rows = [json.loads(line) for line in (folder / "labels.jsonl").open()][:12]
    rows = [{**row, "id": f"s{i}"} for i, row in enumerate(rows)]
    tiny.write_lines(folder / "e.jsonl", rows)
    upper = [{**row, "text": row["text"].upper()} for row in rows]
    tiny.write_lines(folder / "d.jsonl", upper[::-1])
    tiny.write_lines(folder / "short.jsonl", upper[1:])
    return folder


def arguments(place, *more, en="e.jsonl", de="d.jsonl"):
    runs = f"runs={{en: {place / 'en'}, de: {place / 'de'}}}"
    sets = f"eval.sets={{en: {place / en}, de: {place / de}}}"
    return ["transfer", runs, sets, "evaluation.replicates=100", *more]


def test_matrix_and_consistency(place):
    code, out, err = tiny.jaxsft(*arguments(place, "aligned=id", "metric=accuracy", "--json"))
    assert code == 0, err
    report = json.loads(out)
    assert report == read_json(place / "en" / "transfer" / "transfer.json")
    _, told, _ = tiny.jaxsft("eval", f"run={place / 'en'}", f"data.path={place / 'd.jsonl'}")
    cell = report["cells"]["en"]["de"]
    assert cell["value"] == json.loads(told)["d/accuracy"] and not cell["own"]
    assert report["rows"] == {"en": 12, "de": 12} and cell["n"] == 12
    assert report["cells"]["de"]["de"]["own"] and report["gain"]["mean"]["value"] == 0
    # predictions are held against each other by id, not by place
    lines = {}
    for name in ("e", "d"):
        tiny.jaxsft(
            "predict", f"run={place / 'en'}", f"input={place / name}.jsonl",
            f"output={place / 'out'}_{name}.jsonl",
        )  # fmt: skip
        found = map(json.loads, (place / f"out_{name}.jsonl").open())
        lines[name] = {line["id"]: line["prediction"] for line in found}
    same = [lines["e"][one] == lines["d"][one] for one in lines["e"]]
    (pair,) = report["consistency"]["en"]["pairs"]
    assert (pair["value"], pair["n"]) == (sum(same) / 12, 12)
    page = (place / "en" / "transfer" / "transfer.html").read_text()
    assert 'class="own"' in page and "the same sentence in two languages" in page
    assert "**" in (place / "en" / "transfer" / "transfer.md").read_text()


@pytest.mark.parametrize(
    ("more", "files", "message"),
    [
        (["aligned=id"], {"de": "short.jsonl"}, "id=s0 of en is not in de"),
        (["aligned=order"], {"de": "short.jsonl"}, "row 12 of en is not in de"),
        (["aligned=sent_id"], {}, "sent_id"),
        (["metric=f7"], {}, "f7: is no number"),
        (["aligned=id", "aligned=id"], {}, "given twice"),
    ],
)
def test_a_wrong_command_is_one_sentence(place, more, files, message):
    code, _, err = tiny.jaxsft(*arguments(place, *more, **files))
    line = err.strip().splitlines()[-1]
    assert code == 1 and line.startswith("jaxsft: ") and message in line


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ("{}", "expected {NAME: DIR, ...} or"),
        ("[x, x]", "given twice"),
        ("{a: 3}", "expected a run directory, found 3"),
    ],
)
def test_wrong_runs(runs, message):
    code, _, err = tiny.jaxsft("transfer", f"runs={runs}", "eval.sets={a: b.csv}")
    assert code == 1 and message in err
