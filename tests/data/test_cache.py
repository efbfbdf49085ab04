"""The cache of examples: found by everything that they depend on, and never trusted when
damaged."""

import dataclasses
import json
import os
import time

import numpy as np
import pytest

from jaxsft import tasks
from jaxsft.data import cache, encoded_split
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from tests.conftest import make_config, make_records

ARRAYS = {"tokens": np.arange(7, dtype=np.int32), "loss_weight": np.ones((2, 3), np.float32)}


class Build:
    """Counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return ARRAYS, {"limit": 8}


def check(found):
    arrays, facts = found
    assert facts == {"limit": 8} and set(arrays) == set(ARRAYS)
    for name, expected in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], expected)
        assert arrays[name].dtype == expected.dtype


def test_built_once(tmp_path):
    build = Build()
    for _ in range(3):
        check(cache.load_or_build(tmp_path / "a" / "key", build))
    # nothing is left aside
    assert build.calls == 1 and [p.name for p in (tmp_path / "a").iterdir()] == ["key"]


def swap(folder):
    """Another entry in its place, whole in itself."""
    cache.load_or_build(
        folder.with_name("other"), lambda: ({"tokens": ARRAYS["tokens"][::-1]}, {"limit": 9})
    )
    folder.rename(folder.with_name("aside"))
    folder.with_name("other").rename(folder)


def edit(folder, change):
    stored = json.loads((folder / "facts.json").read_text())
    change(stored)
    (folder / "facts.json").write_text(json.dumps(stored))


def another_shape(folder):
    """The same bytes."""
    np.save(folder / "loss_weight.npy", ARRAYS["loss_weight"].reshape(3, 2))


def flip(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))


DAMAGE = {
    "a flipped bit": lambda folder: flip(folder / "tokens.npy"),
    "a cut array": (
        lambda folder: (folder / "tokens.npy").write_bytes(
            (folder / "tokens.npy").read_bytes()[:-5]
        )
    ),
    "an empty array": lambda folder: (folder / "loss_weight.npy").write_bytes(b""),
    "a missing array": lambda folder: (folder / "tokens.npy").unlink(),
    "no facts": lambda folder: (folder / "facts.json").unlink(),
    "broken facts": (
        lambda folder: (folder / "facts.json").write_text('{"facts": {', encoding="utf-8")
    ),
    "a changed count": lambda folder: edit(folder, lambda stored: stored["facts"].update(limit=9)),
    "a changed key": lambda folder: edit(folder, lambda stored: stored.update(key="other")),
    "nested without end": (
        lambda folder: (folder / "facts.json").write_text("[" * 100_000 + "]" * 100_000)
    ),
    "an entry of another key": swap,
    "another shape": another_shape,
    "a folder for an array": lambda folder: (
        (folder / "tokens.npy").unlink(),
        (folder / "tokens.npy").mkdir(),
    ),
    "facts of another shape": (
        lambda folder: (folder / "facts.json").write_text(json.dumps({"crc": {}}), encoding="utf-8")
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_folder_is_built_again(tmp_path, damage):
    build = Build()
    cache.load_or_build(tmp_path / "key", build)
    damage(tmp_path / "key")
    check(cache.load_or_build(tmp_path / "key", build))
    check(cache.load_or_build(tmp_path / "key", build))
    assert build.calls == 2


def test_root(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.root(None) == tmp_path / "jaxsft" and cache.root("here").name == "here"


# --- the key
# --------------------------------------------------------------------------------------------------
def folder_of(
    monkeypatch,
    tmp_path,
    task="chat",
    *,
    tokenizer=None,
    records=None,
    context=64,
    min_length=1,
    code=None,
    task_options=None,
    **data,
):
    """The name of the folder that a split is stored in."""
    config = make_config(task, data=data, task=task_options or {})
    kind, tokenizer, records = (
        tasks.get(task),
        tokenizer or Tokenizer.bytes(),
        records or make_records(task, 6, longest=20),
    )
    one = kind(config, tokenizer, kind.fit(config, tokenizer, *records))
    seen = []
    monkeypatch.setattr(
        cache,
        "load_or_build",
        lambda folder, build: seen.append(folder.name) or (*build()[:1], build()[1]),
    )
    if code:
        monkeypatch.setattr(cache, "code_digest", lambda: code)
    encoded_split.load_split("train", *records, one, config.data, context, min_length=min_length)
    monkeypatch.undo()
    return seen[0]


def test_the_key_tells_apart_what_examples_depend_on(monkeypatch, tmp_path):  # guards D7
    records, where = make_records("chat", 6, longest=20)
    last = dataclasses.replace(
        records[-1],
        messages=(
            *records[-1].messages[:-1],
            dataclasses.replace(records[-1].messages[-1], weight=0.125),
        ),
    )
    template = tmp_path / "template.jinja"
    template.write_text(
        "{% for m in messages %}{{ m.role }}{% generation %}{{ m.content }}<|end|>{% endgeneration"
        " %}{% endfor %}"
    )
    template.write_text(
        "{% for m in messages %}{{ '<|' + m.role + '|> ' }}{% if m.role == 'assistant' %}{%"
        " generation %}{{ m.content }}<|end|>{% endgeneration %}{% else %}{{ m.content }}<|end|>{%"
        " endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|> {% endif %}"
    )
    learnt = Tokenizer.train(["the cat sat"] * 3, 270)
    changes = {
        "nothing": {},
        "a weight": {"records": ([*records[:-1], last], where)},
        "the order": {"records": (records[::-1], where)},
        "tokenizer": {"tokenizer": learnt},
        "template": {"task_options": {"template": str(template)}},
        "context": {"context": 48},
        "min_length": {"min_length": 64},
        "max_length": {"max_length": 64},
        "too_long": {"too_long": "drop"},
        "require_stop": {"require_stop": False},
        "max_dropped": {"max_dropped": 0.5},
        "code": {"code": "other"},
    }
    keys = {name: folder_of(monkeypatch, tmp_path, **change) for name, change in changes.items()}
    assert len(set(keys.values())) == len(changes), keys
    # What does not change an example shares the folder.
    assert folder_of(monkeypatch, tmp_path, plan_seed=3, packing=False) == keys["nothing"]
    assert (
        folder_of(
            monkeypatch, tmp_path, records=(records, [w.replace("rows", "other") for w in where])
        )
        == keys["nothing"]
    )


def test_the_labels_are_in_the_key(monkeypatch, tmp_path):  # guards D7
    plain = folder_of(monkeypatch, tmp_path, "classify")
    more = folder_of(
        monkeypatch, tmp_path, "classify", task_options={"labels": ["good", "fair", "bad"]}
    )
    assert (
        plain != more
        and folder_of(monkeypatch, tmp_path, "classify", task_options={"pool": "last"}) == plain
    )


def test_a_change_of_the_code_is_seen():  # guards D7
    """The digest covers the encoder, the templates, the tokenizer and the tasks."""
    from pathlib import Path

    package = Path(cache.__file__).parent.parent
    hashed = sorted([*(package / "data").rglob("*.py"), *(package / "tasks").glob("*.py")])
    assert {
        "encode.py",
        "templates.py",
        "tokenizer.py",
        "chat.py",
        "classify.py",
        "lm.py",
        "pipeline.py",
    } <= {p.name for p in hashed}
    cache.code_digest.cache_clear()
    before = cache.code_digest()
    read = Path.read_bytes
    try:
        Path.read_bytes = lambda self: read(self) + (b"#" if self.name == "encode.py" else b"")
        cache.code_digest.cache_clear()
        assert cache.code_digest() != before
    finally:
        Path.read_bytes = read
        cache.code_digest.cache_clear()


def test_a_split_is_the_same_from_the_cache(tmp_path):
    config, records = (
        make_config(
            "chat", data={"cache_dir": str(tmp_path), "max_dropped": 0.5, "too_long": "drop"}
        ),
        make_records("chat", 20, longest=60),
    )
    kind, tokenizer = tasks.get("chat"), Tokenizer.bytes()
    one = kind(config, tokenizer, kind.fit(config, tokenizer, *records))
    fresh, stored = (
        encoded_split.load_split("train", *records, one, config.data, 48) for _ in range(2)
    )
    assert (
        fresh.ledger == stored.ledger
        and fresh.dropped == stored.dropped
        and fresh.dropped
        and fresh.limit == stored.limit == 48
    )
    assert fresh.arrays.keys() == stored.arrays.keys()
    for name in fresh.arrays:
        np.testing.assert_array_equal(fresh.arrays[name], stored.arrays[name])


def test_what_was_longest_unused_is_removed_first(tmp_path):
    """Reading is a use; what this run reads, and what another one is writing aside, stays."""
    now = time.time()
    for name, days, size in (
        ("old", 9, 300),
        ("read", 8, 200),
        ("mine", 7, 100),
        ("new", 2, 50),
        (".left-a", 6, 40),
        (".written-b", 0.5, 30),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.npy").write_bytes(bytes(size))
        for path in (tmp_path / name / "x.npy", tmp_path / name):
            os.utime(path, (now - days * cache.DAY,) * 2)
    cache.used(tmp_path / "read")
    assert cache.prune(tmp_path, 720, ["mine"]) == (6, 720, 0)
    assert cache.prune(tmp_path, 719, ["mine"]) == (5, 420, 1) and not (tmp_path / "old").exists()
    # .left-a and new, which are older than what was read
    assert cache.prune(tmp_path, 330, ["mine"]) == (3, 330, 2)
    assert cache.prune(tmp_path, 0, ["mine"]) == (2, 130, 1) and sorted(
        p.name for p in tmp_path.iterdir()
    ) == [".written-b", "mine"]
