"""Examples with a source: fitted, counted, cached and packed in two streams that stay together."""

import numpy as np
import pytest

from jaxsft.config.schema import DataConfig
from jaxsft.data import encode, encoded_split, long_texts, pipeline
from jaxsft.data.encode import Encoded
from jaxsft.data.split_ledger import ledger_entry
from jaxsft.errors import DataError

END = 9


def encoded(source, target, **more):
    """A target of ids from 100 on, with END, and a source of ids from 200 on, with END."""
    ids = np.array([1, *range(100, 100 + target), END], np.int32)
    weights = np.array([0] + [1] * (target + 1), np.float32)
    return Encoded(
        ids,
        weights,
        stop_ids=(END,),
        source=np.array([*range(200, 200 + source), END], np.int32),
        **more,
    )


class Task:
    """What `load_split` needs of a task."""

    digest = "a task"

    @staticmethod
    def encode_all(records, where):
        return [r if isinstance(r, str) else encoded(*r) for r in records]


def split(records, tmp_path, context=64, **data):
    config = DataConfig(cache_dir=str(tmp_path), **data)
    where = [f"a:{i + 1}" for i in range(len(records))]
    return config, encoded_split.load_split("train", records, where, Task, config, context)


@pytest.mark.parametrize("packing", [True, False])
# guards B3, B4, B6, E3
def test_an_epoch_holds_both_streams_of_every_example_once(packing, tmp_path):
    sizes = [tuple(map(int, x)) for x in np.random.default_rng(0).integers(1, 30, (50, 2))]
    config, found = split(sizes, tmp_path, packing=packing)
    for _ in range(2):  # built, and read from the cache
        config, found = split(sizes, tmp_path, packing=packing)
        batches, seen = pipeline.make_batches(found, config, 3, seed=1), []
        assert batches.plan.source_length == found.source_limit == 32
        for k in range(len(batches)):
            b = batches[k]
            assert (
                b.source.tokens.shape == (3, 32)
                and not b.source.tokens[b.source.segment_ids == 0].any()
            )
            for (i, j), e in np.ndenumerate(b.example_ids):
                mine, source = b.segment_ids[i] == j + 1, b.source.segment_ids[i] == j + 1
                assert mine.any() == source.any() == (e >= 0)
                if e >= 0:
                    n, m = sizes[e][1], sizes[e][0]
                    assert b.tokens[i, mine].tolist() == [1, *range(100, 100 + n)]
                    assert b.targets[i, mine].tolist() == [*range(100, 100 + n), END]
                    assert b.source.tokens[i, source].tolist() == [*range(200, 200 + m), END]
                    assert b.source.positions[i, source].tolist() == list(range(m + 1))
                    seen.append(int(e))
            there = (
                (b.example_ids >= 0).sum(),
                (b.segment_ids > 0).sum(),
                (b.source.segment_ids > 0).sum(),
            )
            assert (len(batches.sizes(k)), *batches.sizes(k).sum(0)) == there
        assert sorted(seen) == list(range(50))
    entry = ledger_entry(batches)
    assert entry["source_tokens"] == {
        "read": sum(m + 1 for m, _ in sizes),
        "kept": sum(m + 1 for m, _ in sizes),
        "dropped": {},
    }
    assert (
        entry["source_lengths"]["max"] == max(m for m, _ in sizes) + 1
        and entry["packing"]["source"]["real"] == entry["source_tokens"]["kept"]
    )


def test_one_stream_has_no_second(tmp_path):
    config = DataConfig(cache_dir=str(tmp_path))

    class One(Task):
        encode_all = staticmethod(
            lambda records, where: [encoded(*r)._replace(source=None) for r in records]
        )

    found = encoded_split.load_split("train", [(1, 2)], ["a:1"], One, config, 64)
    batches = pipeline.make_batches(found, config, 1, seed=None)
    assert (
        batches[0].source is None and batches.sizes(0).tolist() == [3] and found.source_limit == 0
    )
    assert not {"source_tokens", "source_lengths"} & ledger_entry(batches).keys()


def test_a_long_source_is_an_error_or_follows_the_policy(tmp_path):  # guards B6, D2, D4, D8
    rows = [(3, 4), (9, 4), (5, 4)]
    with pytest.raises(
        DataError,
        match=(
            r"a:2: the source has 10 tokens, but a row holds 8 \(1 of 3 rows of train are longer\);"
            r" .*max_source_length"
        ),
    ):
        split(rows, tmp_path, max_source_length=8)
    kept = lambda found, e: found.arrays["source_tokens"][
        found.arrays["source_offsets"][e] : found.arrays["source_offsets"][e + 1]
    ].tolist()
    _, right = split(rows, tmp_path, max_source_length=8, too_long="truncate_right")
    assert kept(right, 1) == [*range(200, 207), END]  # what closes it stays
    _, left = split(rows, tmp_path, max_source_length=8, too_long="truncate_left")
    assert kept(left, 1) == [*range(202, 209), END]
    for found in (left, right):
        assert (
            found.ledger["source_tokens"] == {"read": 20, "kept": 18, "dropped": {"truncated": 2}}
            and found.ledger["rows"]["truncated"] == 1
        )
    _, dropped = split(rows, tmp_path, max_source_length=8, too_long="drop", max_dropped=0.5)
    assert dropped.dropped == {1: "too_long"} and dropped.ledger["source_tokens"] == {
        "read": 20,
        "kept": 10,
        "dropped": {"too_long": 10},
    }
    assert dropped.ledger["tokens"]["dropped"] == {"too_long": 6}


@pytest.mark.parametrize("too_long", ["truncate_left", "truncate_right"])
def test_a_long_target_keeps_what_the_decoder_starts_from(too_long):  # guards C1, D8
    """Whatever the side; without its stop token it is dropped, unless the option says otherwise."""
    build = lambda stop: encode.build(
        [encoded(2, 3), encoded(2, 9)],
        ["a:1", "a:2"],
        long_texts.Limits(5, too_long, stop, source=8),
        max_dropped=0.5,
        split="x",
    )
    assert build(True)[2] == {1: "stop_token_truncated"}
    long = build(False)[0][1]
    assert long.tokens.tolist() == [1, 100, 101, 102, 103] and long.targets.tolist() == [
        100,
        101,
        102,
        103,
        104,
    ]
