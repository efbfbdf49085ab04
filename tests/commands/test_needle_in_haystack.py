"""`jaxsft needle` on a small run."""

import json

import pytest

import jaxsft
from jaxsft.rundir import read_json
from tests import tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tiny.data(tmp_path_factory.mktemp("needle"))
    model = {"layers": 1, "embed": 16, "heads": 2, "kv_heads": 2, "head_dim": 8, "mlp": 32,
             "context": 256}  # fmt: skip
    train = {"duration": "2steps", "batch_size": 4, "log_every": "1steps"}
    jaxsft.train(tiny.config(folder, folder / "run", model=model, train=train))
    (folder / "filler.txt").write_text("The red cat sleeps. A blue dog runs home. " * 20)
    return folder


def needle(place, *more):
    options = ["trials=2", "depths=[0,1]", "needle={key} is {value}.", "question={key}?"]
    asked = [f"run={place / 'run'}", f"filler={place / 'filler.txt'}", *options]
    if not any("max_new_tokens" in word for word in more):
        asked.append("generate.max_new_tokens=8")
    return tiny.jaxsft("needle", *asked, *more)


def test_a_report_of_all_cells(place):
    code, out, err = needle(place, "lengths=[96,128]", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report == read_json(place / "run" / "needle" / "needle.json")
    assert [(c["length"], c["depth"]) for c in report["cells"]] == [
        (96, 0), (96, 1), (128, 0), (128, 1),
    ]  # fmt: skip
    for cell in report["cells"]:
        assert cell["length"] - 12 < cell["tokens"] <= cell["length"]
        assert cell["reached"] == cell["depth"] and cell["exact"]["n"] == 2
        assert isinstance(cell["example"]["answer"], str)
    assert "<small>" in (place / "run" / "needle" / "needle.html").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["lengths=[512]"], "512 tokens and an answer of up to 8 are more than model.context=256"),
        (["lengths=[96]", "generate.max_new_tokens=1"], "but a value has"),
        (["lengths=[4]"], "the needle and the question alone"),
        (["lengths=[96]", "depth=[0]"], "did you mean depths=?"),
    ],
)
def test_a_wrong_command_is_one_sentence(place, more, message):
    code, _, err = needle(place, *more)
    assert code == 1 and message in err.strip().splitlines()[-1]
