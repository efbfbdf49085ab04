"""The recipes of conf/experiment run, each in miniature, from a folder of a pretrained model of its
kind.
"""

from __future__ import annotations

import pytest

import jaxsft
from jaxsft.config import compose
from jaxsft.config.overrides import config_folder
from tests import tiny
from tests.training import test_pretrained, test_pretrained_pairs

SMALL = [
    "precision=fp32",
    "mesh.data=1",
    "train.duration=2steps",
    "train.batch_size=2",
    "evaluation.generate=never",
]
CHATS = [
    {"messages": [{"role": "user", "content": w}, {"role": "assistant", "content": w[::-1]}]}
    for w in ("red", "blue", "green")
]
TEXTS = [{"text": w, "label": w[0]} for w in ("anna", "bert", "amir", "ben")]
TAGS = [{"tokens": ["Anna", "sings"], "tags": ["B-PER", "O"]}] * 3
PAIRS = [{"a": w, "b": w[::-1], "score": k / 2} for k, w in enumerate(("red", "blue", "green"))]
LINES = [{"source": w, "target": w[::-1]} for w in ("red", "blue", "green")]
COLUMNS = ["data.columns.text=a", "data.columns.text_pair=b", "data.columns.score=score"]
# name: the rows, further options, the family of the model, and what must be among what the run
# chose
RECIPES = {
    "sft_full": (CHATS, [], "llama", {"optim.learning_rate": 2e-5, "adapter.name": "none"}),
    "sft_lora": (CHATS, [], "llama", {"optim.learning_rate": 2e-4, "adapter.rank": 16}),
    "encoder_classify": (TEXTS, [], "bert", {"schedule.name": "linear", "task.name": "classify"}),
    "encoder_ner": (TAGS, [], "bert", {"task.valid": True, "task.name": "tag"}),
    "encoder_similarity": (PAIRS, COLUMNS, "bert", {"task.loss": "mse", "task.name": "pair"}),
    "translate": (
        LINES,
        ["task.scores=[exact_match]"],
        "t5_v1_1",
        {"generate.num_beams": 4, "task.name": "seq2seq"},
    ),
}


def test_every_recipe_is_run_here():
    files = {path.stem for path in (config_folder() / "experiment").glob("*.yaml")}
    assert files == {*RECIPES, "none", "demo"}


@pytest.mark.parametrize(
    "name",
    [
        name if name == "sft_lora" else pytest.param(name, marks=pytest.mark.slow)
        for name in RECIPES
    ],
)
def test_a_recipe_trains_in_miniature(name, tmp_path):
    rows, given, family, expected = RECIPES[name]
    make = test_pretrained_pairs.folder if family.startswith("t5") else test_pretrained.folder
    source = make(tmp_path / "model", family)
    data = tiny.write_lines(tmp_path / "rows.jsonl", rows)
    config = jaxsft.compose(
        f"experiment={name}",
        f"data.train={data}",
        f"model.pretrained={source}",
        f"run_dir={tmp_path / 'run'}",
        *given,
        *SMALL,
    )
    chosen = compose.flat(compose.to_dict(config))
    assert {key: chosen[key] for key in expected} == expected
    assert jaxsft.train(config).numbers["train/steps"] == 2
