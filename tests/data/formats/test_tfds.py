"""TFDS data sets without TensorFlow: what we write TFDS reads, what TFDS writes we read, and rows
come back exactly.
"""

import io
import json
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.data.formats import read, tfds
from jaxsft.data.formats.tfds_write import write_tfds
from jaxsft.errors import ConfigError, DataError

ROWS = [
    {
        "text": "grün 🙂",
        "n": 2**62 + 1,
        "half": 0.5,
        "ok": True,
        "tags": ["a", ""],
        "ids": [],
        "tenth": 0.1,
        "chat": [{"role": "user"}],
        "mixed": 1,
    },
    {
        "text": "",
        "n": -(2**63),
        "half": -2.0,
        "ok": False,
        "tags": [],
        "ids": [3, 4],
        "tenth": 1.0,
        "chat": [],
        "mixed": "1",
        "late": None,
    },
]


def fields(path, **options):
    return [row.fields for row in read(path, options=options)]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_rows_come_back_exactly_and_the_same_rows_give_the_same_bytes(tmp_path):
    splits = {"train": ROWS * 7, "test": ROWS[:1]}
    a, b = (write_tfds(tmp_path / name, "mini", "1.0.0", splits, shards=3) for name in "ab")
    assert fields(a, split="train") == ROWS * 7 and fields(a, split="test") == ROWS[:1]
    assert [row.line for row in read(a, options={"split": "train"})] == list(range(1, 15))
    assert contents(a) == contents(b)
    assert sorted(name for name in contents(a) if "train" in name) == [
        f"mini-train.array_record-0000{i}-of-00003" for i in range(3)
    ]
    kinds = json.loads((a / "features.json").read_text())["featuresDict"]["features"]
    as_json = {name for name, kind in kinds.items() if kind.get("description") == tfds.JSON_TEXT}
    # what a tf.train.Example does not hold exactly
    assert as_json == {"tenth", "chat", "mixed", "late"}
    write_tfds(a, "mini", "1.0.0", {"train": ROWS})  # takes the place of the old
    assert fields(a) == ROWS and sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_tfds_reads_it_in_a_process_without_tensorflow(tmp_path):
    write_tfds(tmp_path / "set", "mini", "1.0.0", {"train": ROWS * 4}, shards=2)
    code = f"""
import sys
import tensorflow_datasets as tfds
source = tfds.builder_from_directory({str(tmp_path / "set")!r}).as_data_source()["train"]
print(len(source), source[1]["n"], source[6]["text"].decode(), list(source[5]["ids"]))
from jaxsft.data import formats
from jaxsft.data.formats.tfds_write import write_tfds
assert len(formats.read({str(tmp_path / "set")!r})) == 8
write_tfds({str(tmp_path / "again")!r}, "mini", "1.0.0", {{"train": [{{"text": "a"}}]}})
assert "tensorflow" not in sys.modules and "jax" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == f"8 {-(2**63)} grün 🙂 [np.int64(3), np.int64(4)]"


value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats(allow_nan=False)
    | st.floats(width=32, allow_nan=False)
    | st.text(max_size=4),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=2), inside, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["a", "b", "c/d", "ü"]), value, min_size=1),
        min_size=1,
        max_size=4,
    )
)
def test_any_json_comes_back_exactly(tmp_path_factory, rows):
    folder = write_tfds(tmp_path_factory.mktemp("t") / "set", "any", "2.0.1", {"every": rows})
    found = fields(folder)
    assert found == rows
    assert repr([sorted(row.items(), key=lambda item: item[0]) for row in found]) == repr(
        [sorted(r.items(), key=lambda item: item[0]) for r in rows]
    )


def prepared(folder, features, examples, file_format="array_record", splits=("train",)):
    """As TFDS itself writes it."""
    import tensorflow_datasets as library

    class Given(library.core.GeneratorBasedBuilder, skip_registration=True):
        name = "given"
        VERSION = library.core.Version("1.0.0")
        url_infos: ClassVar = {}  # else it looks for a file of checksums beside this module

        def _info(self):
            return library.core.DatasetInfo(
                builder=self, features=library.features.FeaturesDict(features(library.features))
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples() for split in splits}

        def _generate_examples(self):
            yield from enumerate(examples)

    builder = Given(data_dir=str(folder), file_format=file_format)
    builder.download_and_prepare()
    return folder / "given" / "1.0.0"


@pytest.mark.parametrize("file_format", ["array_record", "parquet"])
def test_what_tfds_itself_prepares(tmp_path, file_format, monkeypatch):
    features = lambda f: {
        "text": f.Text(),
        "label": f.ClassLabel(names=["neg", "pos"]),
        "ids": f.Tensor(shape=(None,), dtype=np.int32),
        "turns": f.Sequence({"role": f.ClassLabel(names=["user", "model"]), "text": f.Text()}),
        "meta": {"score": np.float32, "tags": f.Sequence(f.Text())},
        "pair": f.Translation(["de", "en"]),
    }
    turn = {"role": "model", "text": "ä"}
    example = {
        "text": "grün",
        "label": "pos",
        "ids": np.array([1, 2], np.int32),
        "turns": [turn, {"role": 0, "text": ""}],
        "meta": {"score": 0.5, "tags": ["x", "y"]},
        "pair": {"de": "Haus", "en": "house"},
    }
    unlabelled = {**example, "label": -1, "turns": [], "text": "b"}
    folder = prepared(
        tmp_path, features, [example, unlabelled], file_format, ("train", "validation")
    )
    rows = sorted(fields(folder, split="train"), key=lambda row: row["text"], reverse=True)
    assert rows[0] == {**example, "ids": [1, 2], "turns": [turn, {"role": "user", "text": ""}]}
    assert rows[1]["label"] is None and rows[1]["turns"] == []
    assert {row["label"] for row in fields(folder, split="train", class_names=False)} == {1, -1}
    if file_format == "array_record":
        assert len(fields(folder, split="train[:1]")) == 1
    else:  # TFDS reads the whole split and says nothing
        with pytest.raises(DataError, match="gives 2 rows, expected 1"):
            fields(folder, split="train[:1]")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert sorted(fields("tfds:given:validation"), key=str) == sorted(
        fields("tfds:given/1.0.0", split="train"), key=str
    )
    for path, split in ((folder, ""), (folder, "dev"), ("tfds:given:dev", "")):
        with pytest.raises(
            DataError, match=r"set data\.options\.split to one of train, validation"
        ):
            read(path, options={"split": split} if split else None)


def test_an_image_is_refused_unless_other_columns_are_asked_for(tmp_path):
    folder = prepared(
        tmp_path,
        lambda f: {
            "image": f.Image(),
            "grid": f.Tensor(shape=(1, 1), dtype=np.int64),
            "text": f.Text(),
        },
        [{"image": io.BytesIO(b"\x89PNG"), "grid": [[1]], "text": "a"}],
    )
    with pytest.raises(
        DataError, match=r"the feature '(image|grid)' is .*set data.options.columns"
    ):
        fields(folder)
    assert fields(folder, columns=["text"]) == [{"text": "a"}]
    with pytest.raises(DataError, match="'image' is of the kind Image"):
        fields(folder, columns=["text", "image"])


def test_names_that_mean_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    write_tfds(tmp_path / "glue" / "sst2" / "1.0.0", "glue", "1.0.0", {"train": [{"a": 1}]})
    assert fields("tfds:glue") == [{"a": 1}]
    write_tfds(tmp_path / "glue" / "sst2" / "1.10.0", "glue", "1.10.0", {"train": [{"a": 2}]})
    write_tfds(tmp_path / "glue" / "sst2" / "1.9.0", "glue", "1.9.0", {"train": [{"a": 3}]})
    assert fields("tfds:glue/sst2:train") == [{"a": 2}]  # the newest
    write_tfds(tmp_path / "glue" / "cola" / "1.0.0", "glue", "1.0.0", {"train": [{"a": 4}]})
    for path, part in (
        ("tfds:glue", "the configs cola, sst2"),
        ("tfds:nothing", "TFDS_DATA_DIR"),
        ("tfds:../x y", "expected tfds:name"),
    ):
        with pytest.raises(DataError, match=part):
            read(path)


def test_what_is_damaged_is_one_sentence(tmp_path):
    folder = write_tfds(tmp_path / "set", "mini", "1.0.0", {"train": ROWS})
    shard = folder / "mini-train.array_record-00000-of-00001"
    for damage in (
        lambda: shard.write_bytes(b"x" * 70_000),
        shard.unlink,
        lambda: (folder / "features.json").write_text("{"),
    ):
        damage()
        with pytest.raises(DataError) as caught:
            read(folder)
        assert str(caught.value).startswith(str(folder)) and "\n" not in str(caught.value)
    info = json.loads((folder / "dataset_info.json").read_text())
    write_tfds(tmp_path / "set", "mini", "1.0.0", {"train": ROWS})
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    with pytest.raises(DataError, match="tfrecord files need TensorFlow"):
        read(folder)


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path):
    for error, part, arguments in (
        (ConfigError, "lower case", ("Mini", "1.0.0", {"train": ROWS})),
        (ConfigError, "version", ("mini", "1", {"train": ROWS})),
        (ConfigError, "split", ("mini", "1.0.0", {"a-b": ROWS})),
        (ConfigError, "not all", ("mini", "1.0.0", {"all": ROWS})),
        (ConfigError, "no split", ("mini", "1.0.0", {})),
        (DataError, "'train' has no rows", ("mini", "1.0.0", {"train": []})),
        (
            DataError,
            "row 1 of train, column 'a': found a bytes",
            ("mini", "1.0.0", {"train": [{"a": [b"x"]}]}),
        ),
        (DataError, "column name ''", ("mini", "1.0.0", {"train": [{"": 1}]})),
        (DataError, "no columns", ("mini", "1.0.0", {"train": [{}]})),
    ):
        with pytest.raises(error, match=part):
            write_tfds(tmp_path / "set", *arguments)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match="no TFDS data set"):
        write_tfds(tmp_path / "mine", "mini", "1.0.0", {"train": ROWS})
