"""Every real JSON, CSV and Parquet-like file reads with the number of rows that its SOURCE.txt
gives, or the test says how the numbers relate.
"""

import re
from pathlib import Path

import pytest

from jaxsft.data.formats import read
from tests.realdata import real

# How a file is read: format detection, suffix and the options that it needs; what SOURCE.txt counts
# that is no row.
HOW = {
    "advglue_dev/dev.json": {"options": {"records": "*"}},
    "banking77/categories.json": {"options": {"records": "*"}},
    "cleanlab_label_errors/dataset_indexing__imdb_test_set_index_to_filename.json": {
        "options": {"records": "*"}
    },
    "nlupp_multilabel/ontology.json": {"options": {"records": "*.*"}},  # 62 intents and 17 slots
    "snips_cc0/train_PlayMusic_full.json.gz": {"encoding": "latin-1"},
}
LINES = {  # SOURCE.txt counts lines here: a header, and cells over several lines
    "banking77/train.csv": 10015 - 10003,
    "banking77/test.csv": 3084 - 3080,
    "e2e_nlg/devset.csv.gz": 1,
    "e2e_nlg/testset_w_refs.csv.gz": 1,
    "emobank/emobank.csv.gz": 1,
    "emobank/individual_reader_ratings.csv.gz": 1,
}
FOLDERS = (
    "advglue_dev",
    "banking77",
    "cleanlab_label_errors",
    "e2e_nlg",
    "emobank",
    "fastchat_mtbench",
    "gpteacher",
    "gsm8k",
    "nlupp_multilabel",
    "self_instruct_seed",
    "snips_cc0",
)


def counted(folder: Path) -> dict[str, int]:
    """The row counts of SOURCE.txt, by path."""
    lines = (folder / "SOURCE.txt").read_text().splitlines()
    found = (re.match(r"  (\S+) <- .*? rows=(\d+) ", line) for line in lines)
    return {f"{folder.name}/{match[1]}": int(match[2]) for match in found if match}


@pytest.mark.parametrize("folder", FOLDERS)
def test_row_counts_of_source_txt(folder):
    files = counted(real(folder))
    assert files
    for path, rows in files.items():
        if re.search(r"\.(jsonl?|csv)(\.gz)?$", path):
            assert len(read(real(path), **HOW.get(path, {}))) == rows - LINES.get(path, 0), path


def test_the_nested_files_hold_what_they_should():
    advglue = [
        row.fields
        for row in read(real("advglue_dev/dev.json"), options={"records": "*", "key": "task"})
    ]
    assert {row["task"]: sum(r["task"] == row["task"] for r in advglue) for row in advglue} == {
        "sst2": 148,
        "qqp": 78,
        "mnli": 121,
        "mnli-mm": 162,
        "qnli": 148,
        "rte": 81,
    }
    labels = {row.fields["category"] for row in read(real("banking77/train.csv"))}
    assert {
        row.fields["value"]
        for row in read(real("banking77/categories.json"), options={"records": "*"})
    } == labels
    intents = {
        row.fields["key"]
        for row in read(real("nlupp_multilabel/ontology.json"), options={"records": "intents.*"})
    }
    used = {
        intent
        for row in read(f"{real('nlupp_multilabel/banking')}/*.json")
        for intent in row.fields.get("intents", [])
    }
    assert len(used) > 40 and used <= intents


def test_snips_spans_lie_where_the_words_are():
    for path in sorted(real("snips_cc0").glob("validate_*.json.gz")):
        rows = [row.fields for row in read(path)]
        assert len({row["intent"] for row in rows}) == 1 and rows[0]["intent"] in path.name
        for row in rows:
            assert all(row["text"][span["start"] : span["end"]].strip() for span in row["spans"])
