"""The studies of `experiments/` in miniature, and the page that is made of what they came to."""

import csv
import importlib.util
import zipfile

import numpy as np
import pytest
import yaml

from jaxsft import api
from jaxsft.rundir import read_json, write_json, write_text
from jaxsft.sweeps import study_file
from jaxsft.training import setup
from tests.sweeps.fake_sweep import Made, make
from tools.docs import studies

ARMS = {"base": {"task.bias": True}, "good": {"task.bias": False}}
STUDY = {"question": "Is a bias of use?", "baseline": "base", "arms": ARMS}


def script(name):
    """The module `experiments/NAME/make_data.py`."""
    path = studies.EXPERIMENTS / name / "make_data.py"
    spec = importlib.util.spec_from_file_location(f"{name}_data", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["long_tail", "label_noise"])
def test_every_arm_is_a_config(name):
    study = study_file.read(studies.EXPERIMENTS / name)
    for arm in study.about["arms"].values():
        options = {**study.options, **arm, "train.backbone": "trained"}
        config = setup.resolve(api.compose(**options))
        assert config.task.loss == arm.get("task.loss", "cross_entropy")


def test_the_tail_is_as_long_as_the_study_says():
    counts = script("long_tail").tail(77, 100, 50)
    assert counts[0] == 100 and counts[-1] == 2 and counts == sorted(counts, reverse=True)


def test_a_share_of_the_labels_is_another():
    flipped = script("label_noise").flipped
    labels = np.repeat(np.arange(5), 200)
    found = flipped(labels, 5, 0.4)
    assert (found != labels).sum() == 400 and set(found) == set(range(5))
    # each other label as often, about
    table = np.bincount(labels[found != labels] * 5 + found[found != labels], minlength=25)
    assert (table.reshape(5, 5)[~np.eye(5, dtype=bool)] > 8).all()


def test_one_word_decides_the_label_of_a_planted_sentence(tmp_path):
    path, lines = tmp_path / "sentences.zip", {"neg": [], "pos": []}
    for i in range(30):
        lines["pos" if i % 3 else "neg"].append(f"film number {i} is seen")
    with zipfile.ZipFile(path, "w") as archive:
        for label, texts in lines.items():
            archive.writestr(
                f"sentence_polarity/rt-polarity.{label}", "\n".join([*texts, texts[0]])
            )
    module = script("movie_sentences")
    made = module.made(str(path), 20, held=5, sizes=(12, 5))
    assert {name: len(rows) for name, rows in made.items()} == {
        "train": 20, "validation": 5, "test": 5, "planted_train": 12, "planted_test": 5
    }  # fmt: skip
    parts = [{row["text"] for row in made[name]} for name in ("train", "validation", "test")]
    assert len(set.union(*parts)) == 30
    planted = [*made["planted_train"], *made["planted_test"]]
    assert {row["label"] for row in planted} == set(module.WORDS)
    for row in planted:
        words = row["text"].split()
        assert [w for w in words if w in module.WORDS.values()] == row["why"]
        assert row["why"] == [module.WORDS[row["label"]]] and len(words) == 6


def test_a_sweep_becomes_a_section_of_the_page(tmp_path):
    quality = lambda options: 0.7 if options["task.bias"] else 0.85
    how = Made(arms=list(ARMS.values()), seeds=range(4), quality=quality, rows=400, study=STUDY)
    sweep = make(tmp_path / "sweep", how)
    runs = sorted((sweep / "jobs").iterdir())
    rows = [{"text": f"t{i}", "kind": "odd" if i % 2 else "even"} for i in range(400)]
    with (tmp_path / "test.csv").open("w", encoding="utf-8", newline="") as file:
        lines = csv.DictWriter(file, ["text", "kind"])
        lines.writeheader()
        lines.writerows(rows)
    config = {"evaluation": {"slices": ["kind"]}, "data": {"test": str(tmp_path / "test.csv")}}
    for i, run in enumerate(runs):  # the second arm is right where the first is not
        write_text(run / "config.yaml", yaml.safe_dump(config))
        right = [row["kind"] == "even" or i >= 4 for row in rows]
        lines = [f'{{"row": {n}, "correct": {str(one).lower()}}}\n' for n, one in enumerate(right)]
        write_text(run / "predictions" / "test.jsonl", "".join(lines))
    (tmp_path / "mine").mkdir()
    studies.main(sweep, tmp_path / "mine")
    found = read_json(tmp_path / "mine" / "results.json")
    base, good = found["arms"]
    assert good["verdict"] == "better" and good["low"] > 0 and "effect" not in base
    assert good["slices"]["kind=odd"]["effect"] == 1 and good["slices"]["kind=even"]["effect"] == 0
    assert good["effect"] == pytest.approx(good["test"] - base["test"], abs=1e-6)
    # the same study with the arms the other way round: the sign of each effect is that of the arm
    turned = {**found, "arms": [base, good | {"verdict": "worse", "effect": -0.1, "p_holm": 0.2}]}
    write_json(tmp_path / "worse" / "results.json", turned)
    text = studies.page(tmp_path)
    assert text.count("## Is a bias of use?") == 2
    assert "| good | yes |" in text and "| good | no, it harmed |" in text and "p = 0.200" in text
    assert "1.000 (+1.000 [+1.000, +1.000])" in text
