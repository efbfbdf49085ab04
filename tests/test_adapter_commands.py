"""`eval`, `predict` and `generate` of runs with an adapter, by the command line: the numbers of
training, and the answers of `generate`.
"""

import json

import pytest

from jaxsft.rundir import read_json, read_jsonl
from tests import tiny
from tests.tiny import jaxsft

# one that is merged, and those with virtual tokens; that the others are merged alike is shown in
# tests/models/adapters
ADAPTERS = {
    "lora": ("adapter=lora", "adapter.rank=2"),
    "prefix": ("adapter=prefix", "adapter.tokens=3"),
    "prompt": ("adapter=prompt", "adapter.tokens=3"),
}
MERGED = ("lora",)
LEARN = (
    "optim.learning_rate=0.05",
    "schedule=constant",
    "precision=fp32",
    "mesh.data=1",
    "train.duration=6steps",
    "train.batch_size=8",
)
ANSWERS = ("evaluation.generate=end", "generate.allow_cut=true", "generate.max_new_tokens=6")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data, and the run whose weights the adapters stand beside."""
    folder = tiny.data(tmp_path_factory.mktemp("data"))
    plain = (
        f"data.train={folder / 'chat.jsonl'}",
        f"run_dir={folder / 'base'}",
        "evaluation.generate=never",
    )
    done("train", "task=chat", *plain, *tiny.MODEL, *LEARN)
    return folder


def done(*arguments):
    code, out, err = jaxsft(*arguments)
    assert code == 0, err
    return out


def scored(folder, run):
    """The numbers of `eval` on the held-out file, without its name."""
    return {
        key.partition("/")[2]: value
        for key, value in json.loads(
            done("eval", f"run={run}", f"data.path={folder / 'chat_held.jsonl'}")
        ).items()
    }


def predicted(folder, run, out):
    """The rows of `predict`, which are those of `generate`, from the first prompts of the held-out
    file.
    """
    asked = tiny.write_lines(
        out / "in.jsonl",
        [{"prompt": row["prompt"]} for row in read_jsonl(folder / "chat_held.jsonl")[:3]],
    )
    done(
        "predict",
        f"run={run}",
        f"input={asked}",
        f"output={out / 'out.jsonl'}",
        "generate.max_new_tokens=6",
    )
    rows = read_jsonl(out / "out.jsonl")
    lines = done(
        "generate", f"run={run}", f"input={asked}", "generate.max_new_tokens=6"
    ).splitlines()
    assert [json.loads(line) for line in lines] == rows and len(rows) == 3
    single = done(
        "generate", f"run={run}", f"prompt={rows[1]['prompt']}", "generate.max_new_tokens=6"
    )
    assert single == rows[1]["prediction"] + "\n"
    return rows


@pytest.mark.parametrize(
    "name",
    ["lora", *(pytest.param(name, marks=pytest.mark.slow) for name in ADAPTERS if name != "lora")],
)
def test_a_run_with_an_adapter_is_evaluated_and_asked(name, place, tmp_path):  # guards E12, G1
    """`eval` gives the numbers that training ended with, `predict` what `generate` gives; merged
    into other weights or exported, it says the same.
    """
    data = (f"data.train={place / 'chat.jsonl'}", f"data.validation={place / 'chat_held.jsonl'}")
    run, base = tmp_path / "run", f"train.init_from={place / 'base'}"
    done(
        "train",
        "task=chat",
        *data,
        *ADAPTERS[name],
        base,
        f"run_dir={run}",
        *tiny.MODEL,
        *LEARN,
        *ANSWERS,
    )
    ended = {
        key.partition("/")[2]: v
        for key, v in read_json(run / "result.json").items()
        if key.startswith("validation/")
    }
    found = scored(place, run)
    assert {key: found[key] for key in ended} == pytest.approx(ended, rel=1e-5) and {
        "loss",
        "exact_match",
        "stopped",
    } <= set(ended)
    logged = {
        line["step"]: line["loss"]
        for line in read_jsonl(run / "metrics.jsonl")
        if line["kind"] == "validation"
    }
    # of the weights that were kept
    assert logged[read_json(run / "result.json")["train/best_step"]] == pytest.approx(
        found["loss"], rel=1e-5
    )
    plain = scored(place, place / "base")
    assert abs(plain["loss"] - found["loss"]) > 1e-3  # the adapter is there
    rows = predicted(place, run, tmp_path)
    done(
        "generate",
        f"run={run}",
        f"prompt={rows[0]['prompt']}",
        "generate.num_beams=2",
        "generate.stop=[q]",
        "generate.max_new_tokens=6",
    )
    if name not in MERGED:
        return
    still = ("optim.learning_rate=1e-30", "train.duration=1steps", "evaluation.generate=never")
    done(
        "train",
        "task=chat",
        *data,
        f"train.init_from={run}",
        f"run_dir={tmp_path / 'merged'}",
        *tiny.MODEL,
        *LEARN,
        *still,
    )
    merged = scored(place, tmp_path / "merged")
    assert (
        merged["loss"] == pytest.approx(found["loss"], rel=1e-5)
        and predicted(place, tmp_path / "merged", tmp_path) == rows
    )
    done("export", f"run={run}", f"to={tmp_path / 'folder'}")
    asked = done(
        "generate",
        f"run={tmp_path / 'folder'}",
        f"prompt={rows[1]['prompt']}",
        "generate.max_new_tokens=6",
        "precision=fp32",
    )
    assert asked == rows[1]["prediction"] + "\n"
