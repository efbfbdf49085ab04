"""Sets that are noisy by themselves, as rows."""

import json

import pytest

from jaxsft.errors import DataError
from tests.realdata import real
from tools import robustness_sets


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_adversarial_glue(tmp_path):
    files = robustness_sets.advglue(str(real("advglue_dev/dev.json")), tmp_path)
    assert sum(map(len, files.values())) == 738
    sst2 = lines(tmp_path / "sst2.jsonl")
    assert len(sst2) == 148 and set(sst2[0]) == {"text", "label"}
    assert {row["label"] for row in sst2} == {"neg", "pos"}
    assert set(lines(tmp_path / "mnli.jsonl")[0]) == {"text", "text_pair", "label"}


@pytest.mark.parametrize(("language", "least"), [("en", 100), ("de", 40), ("fr", 200)])
def test_pairs_of_print_and_what_it_says(tmp_path, language, least):
    robustness_sets.hipe(str(real(f"hipe2022_ajmc/{language}/ocr-correction.tsv")), tmp_path)
    ocr, corrected = lines(tmp_path / "ocr.jsonl"), lines(tmp_path / "corrected.jsonl")
    assert len(ocr) == len(corrected) >= least
    assert [row["label"] for row in ocr] == [row["label"] for row in corrected]
    assert sum(a["text"] != b["text"] for a, b in zip(ocr, corrected, strict=True)) > 0.9 * len(ocr)


def test_digits(tmp_path):
    pytest.importorskip("sklearn")
    files = robustness_sets.digits(tmp_path)
    assert {name: len(rows) for name, rows in files.items()} == {
        "train": 1437, "test": 360, "test_noisy": 360,
    }  # fmt: skip
    one, noisy = lines(tmp_path / "test.jsonl")[0], lines(tmp_path / "test_noisy.jsonl")[0]
    a, b = one["text"].split(), noisy["text"].split()
    assert len(a) == len(b) == 64 and one["label"] == noisy["label"]
    assert 0 < sum(x != y for x, y in zip(a, b, strict=True)) < 20
    assert robustness_sets.digits(tmp_path) == files


def test_a_wrong_file(tmp_path):
    (tmp_path / "a.json").write_text('{"cola": []}')
    with pytest.raises(DataError, match="'cola' is no task"):
        robustness_sets.advglue(str(tmp_path / "a.json"), tmp_path)
    (tmp_path / "a.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(DataError, match="expected the columns"):
        robustness_sets.hipe(str(tmp_path / "a.tsv"), tmp_path)
