"""Classes of transformers with a trained head: read as they are, and as a start. The oracle is
transformers, by tools/golden/heads.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jaxsft
from jaxsft import halves
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.hf import pretrained_folder
from jaxsft.hf import read as pretrained
from jaxsft.models.attention import TokenInfo
from jaxsft.models.transformer import Transformer
from jaxsft.products import ROUNDED
from jaxsft.rundir import read_json
from jaxsft.sharding.weights import flatten, specs
from jaxsft.training import components, runs, setup
from jaxsft.training import pretrained as hf
from jaxsft.training.components import Components
from tests import tiny
from tests.training import test_pretrained as test_hf
from tests.training.test_pretrained import FAST
from tools.golden.families import weights
from tools.golden.heads import TEXTS

GOLDEN = Path(__file__).parents[1] / "hf" / "families" / "golden_heads"
BERT = ["task.pool=first", "task.head=dense"]
LAST = ["task.pool=last"]  # the class has no bias; ours starts at zero


def folder(path: Path, name: str, drop: tuple[str, ...] = (), **changes) -> Path:
    """The folder of a case, with the tokenizer of bytes; `changes` of its config."""
    about = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(about["config"] | changes))
    drawn = weights(about["shapes"], about["seed"])
    save_file(
        {key: value for key, value in drawn.items() if not key.startswith(drop or ("-",))},
        path / "model.safetensors",
    )
    Tokenizer.bytes().save(path)
    return path


def logits(name: str) -> list[np.ndarray]:
    found = np.load(GOLDEN / f"{name}.npz")
    return [found[f"out{i}"] for i in range(len(TEXTS))]


def labels_of(name: str) -> list[str]:
    return list(json.loads((GOLDEN / f"{name}.json").read_text())["config"]["id2label"].values())


def begun(
    tmp_path, source, *given: str, rows: list[dict], task: str = "classify"
) -> tuple[Components, dict]:
    """(parts, what a run says of the weights that it starts from)."""
    data = tiny.write_lines(tmp_path / f"{task}.jsonl", rows)
    config = setup.resolve(
        jaxsft.compose(
            f"task={task}", f"data.train={data}", f"model.pretrained={source}", *FAST, *given
        )
    )
    parts = components.prepare(config)[0]
    return parts, hf.facts(parts, Path)


def started(tmp_path, source, *given: str, rows: list[dict]) -> tuple[Components, dict, dict]:
    """(parts, weights at the start, what the run says of them)."""
    parts, about = begun(tmp_path, source, *given, rows=rows)
    return parts, flatten(jax.tree.map(np.asarray, runs.starting_params(parts))), about


CLASSIFIERS = [
    ("bert", "first", "tanh"),
    ("llama", "last", "tanh"),
    ("modernbert_mean", "mean", "gelu"),
    ("deberta_tanh", "first", "tanh"),
]


# --- as it is
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name, pool, activation", CLASSIFIERS)
# guards G3
def test_a_classifier_says_what_it_says_in_transformers(name, pool, activation, tmp_path):
    model, softmax = (
        jaxsft.load(folder(tmp_path / "in", name), "precision=fp32"),
        lambda z: np.exp(z - z.max()) / np.exp(z - z.max()).sum(),
    )
    assert (model.task.name, model.config.task.pool, model.config.task.activation) == (
        "classify",
        pool,
        activation,
    )
    for line, z in zip(model.predict(list(TEXTS)), logits(name), strict=True):
        assert line["prediction"] == labels_of(name)[int(z.argmax())]
        np.testing.assert_allclose(line["probability"], softmax(z).max(), rtol=1e-5)


def test_a_number_and_several_labels_likewise(tmp_path):
    (one, *_), z = (
        jaxsft.load(folder(tmp_path / "one", "bert_number"), "precision=fp32").predict(list(TEXTS)),
        logits("bert_number"),
    )
    np.testing.assert_allclose(one["prediction"], z[0][0], rtol=1e-5)
    (many, *_), z = (
        jaxsft.load(folder(tmp_path / "many", "llama_many"), "precision=fp32").predict(list(TEXTS)),
        logits("llama_many"),
    )
    np.testing.assert_allclose(
        [many["probability"][name] for name in labels_of("llama_many")],
        1 / (1 + np.exp(-z[0])),
        atol=1e-5,
    )


@pytest.mark.parametrize("name", ["distilbert_tags", "t5_tags", "bert_span", "llama_span"])
def test_a_head_over_tokens_says_of_each_what_it_says_in_transformers(name, tmp_path):  # guards G3
    model = jaxsft.load(folder(tmp_path / "in", name), "precision=fp32")
    for text, expected in zip(TEXTS, logits(name), strict=True):
        ids = np.array([model.tokenizer.wrap(model.tokenizer.encode(text), None).ids])
        where = TokenInfo(
            np.ones(ids.shape, np.int32), np.arange(ids.shape[1], dtype=np.int32)[None]
        )
        hidden = model.run.parts.model.hidden(model.params, ids, where)
        found = model.run.parts.model.head.apply({"params": model.params["head"]}, hidden)[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    if name.endswith("span"):
        (line,) = model.predict([{"question": "who?", "context": TEXTS[1]}])
        assert model.task.name == "span" and line["prediction"] and line["prediction"] in TEXTS[1]
        return
    assert (model.task.name, model.task.labels, model.task.scheme) == (
        "tag",
        ["O", "I-X", "B-X"],
        "iob2",
    )
    for text, expected, line in zip(
        TEXTS,
        logits(name),
        model.predict([{"tokens": text.split()} for text in TEXTS]),
        strict=True,
    ):
        firsts = [
            1 + i
            for i, letter in enumerate(text)
            if letter != " " and (i == 0 or text[i - 1] == " ")
        ]
        assert line["prediction"] == [labels_of(name)[int(expected[i].argmax())] for i in firsts]


def test_eval_of_a_folder_writes_nothing_into_it(tmp_path):
    source, z = folder(tmp_path / "in", "bert"), logits("bert")
    best = [labels_of("bert")[int(x.argmax())] for x in z]
    rows = [
        {"text": text, "label": label}
        for text, label in zip(
            TEXTS, [best[0], best[1], "bad" if best[2] != "bad" else "good"], strict=True
        )
    ]
    data, before = (
        tiny.write_lines(tmp_path / "rows.jsonl", rows),
        sorted(path.name for path in source.iterdir()),
    )
    code, out, err = tiny.jaxsft("eval", f"run={source}", f"data.path={data}")
    assert (
        code == 0
        and json.loads(out)["rows/accuracy"] == pytest.approx(2 / 3)
        and "nothing is written; output=FOLDER" in err
    )
    code, again, _ = tiny.jaxsft(
        "eval", f"run={source}", f"data.path={data}", f"output={tmp_path / 'out'}"
    )
    assert (
        code == 0
        and json.loads(again) == json.loads(out)
        and read_json(tmp_path / "out" / "result.json")["checkpoint_step"] == 0
    )
    assert (tmp_path / "out" / "predictions").is_dir() or list(
        (tmp_path / "out").glob("predictions*")
    )
    assert sorted(path.name for path in source.iterdir()) == before
    tiny.write_lines(data, [{"text": "a", "label": "sad"}])
    code, _, err = tiny.jaxsft("eval", f"run={source}", f"data.path={data}")
    assert (
        code == 1 and "label 'sad' is not in the vocabulary of 3 labels (mixed, bad, good)" in err
    )


def test_a_folder_without_its_head_is_one_sentence(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"its head cannot be taken: BertForSequenceClassification has no classifier\.weight",
    ):
        jaxsft.load(folder(tmp_path / "in", "bert", drop=("classifier.weight",)))
    with pytest.raises(
        ConfigError,
        match=r"writes nothing and has no head of a task; start from it by model\.pretrained=",
    ):
        jaxsft.load(
            folder(
                tmp_path / "body",
                "bert",
                drop=("classifier", "bert.pooler"),
                architectures=["BertModel"],
            )
        )


@pytest.mark.parametrize(
    "wrong, why",
    [
        (
            {"problem_type": "poetry"},
            (
                r"problem_type='poetry' is unknown; expected one of single_label_classification,"
                r" multi_label_classification"
            ),
        ),
        (
            {"id2label": {"a": "bad", "1": "good", "2": "mixed"}},
            r"id2label=\{'a': 'bad', .*: expected the label of each output at its number",
        ),
        (
            {"id2label": {"1": "bad", "2": "good", "3": "mixed"}},
            r"expected the label of each output at its number, from 0",
        ),
        ({"id2label": ["bad", "good", "mixed"]}, r"id2label=.*: expected an object or null"),
        ({"problem_type": ["poetry"]}, r"problem_type="),
        ({"id2label": None, "num_labels": "3"}, r"num_labels='3'"),
        ({"id2label": None, "num_labels": 10**12}, r"num_labels=1000000000000"),
    ],
)
def test_a_config_that_says_nothing_of_its_outputs_is_one_sentence(wrong, why, tmp_path):
    with pytest.raises(ConfigError, match=why):
        jaxsft.load(folder(tmp_path / "in", "bert", **wrong))


# --- as a start
# --------------------------------------------------------------------------------------------------
ROWS = [
    {"text": text, "label": label}
    for text, label in zip(TEXTS, ("good", "bad", "mixed"), strict=True)
]


def test_the_head_is_taken_in_the_order_of_the_labels(tmp_path):
    source = folder(tmp_path / "in", "bert")
    parts, taken, about = started(tmp_path, source, *BERT, rows=ROWS)
    theirs = load_file(source / "model.safetensors")
    assert parts.task.labels == ["bad", "good", "mixed"] and (
        about["fresh"],
        about["left"],
        about["head"],
    ) == ([], [], None)
    np.testing.assert_array_equal(taken["head/out/w"].T, theirs["classifier.weight"][[1, 2, 0]])
    np.testing.assert_array_equal(taken["head/out/b"], theirs["classifier.bias"][[1, 2, 0]])
    np.testing.assert_array_equal(taken["head/dense/w"].T, theirs["bert.pooler.dense.weight"])
    reset = started(tmp_path, source, *BERT, "model.init=reset:head/out/.*", rows=ROWS)[1]
    fresh = flatten(jax.tree.map(np.asarray, parts.init_params()))
    np.testing.assert_array_equal(reset["head/out/w"], fresh["head/out/w"])
    np.testing.assert_array_equal(reset["head/dense/w"], taken["head/dense/w"])


@pytest.mark.slow
def test_a_run_from_a_classifier_begins_as_good_as_that_is(tmp_path):
    """Trained for a step that changes nothing, it scores as `jaxsft eval` of the folder; frozen,
    the head is taken again when the run is opened.
    """
    source = folder(tmp_path / "in", "llama")
    data = tiny.write_lines(tmp_path / "rows.jsonl", ROWS)
    given = [
        f"data.train={data}",
        f"data.test={data}",
        f"model.pretrained={source}",
        *LAST,
        "task.bias=false",
        *FAST,
        "train.freeze=[head/.*]",
    ]
    given += [
        "loss.label_smoothing=0",
        "optim.learning_rate=1e-30",
        "model.dropout=0",
        f"run_dir={tmp_path / 'run'}",
    ]
    result = jaxsft.train("task=classify", *given)
    opened = jaxsft.load(source, "precision=fp32")
    scores = opened.evaluate(data)
    assert (
        result.numbers["test/loss"] == pytest.approx(scores["loss"], rel=1e-5)
        and result.numbers["test/accuracy"] == scores["accuracy"]
    )
    ours, theirs = (
        model.predict(list(TEXTS))
        for model in (jaxsft.load(result.run_dir, "precision=fp32"), opened)
    )
    assert [line["probability"] for line in ours] == pytest.approx(
        [line["probability"] for line in theirs], rel=1e-5
    )
    jaxsft.export(result, tmp_path / "out")  # with the labels in our order
    exported = jaxsft.load(tmp_path / "out", "precision=fp32")
    again = exported.predict(list(TEXTS))
    assert exported.task.labels == ["bad", "good", "mixed"]
    assert [line["probability"] for line in again] == pytest.approx(
        [line["probability"] for line in ours], rel=1e-5
    )
    # A run as the source has a head of as many outputs, which must mean the same too.
    head = [*LAST, "task.bias=false"]
    others = [{**row, "label": name} for row, name in zip(ROWS, "xyz", strict=True)]
    with pytest.raises(
        ConfigError,
        match=(
            r"model\.pretrained=\S+: output 0 of its head is 'bad', here 'x'; set"
            r" train\.init_fresh=\['head/\.\*'\]"
        ),
    ):
        started(tmp_path, result.run_dir, *head, rows=others)
    with pytest.raises(
        ConfigError,
        match=(
            r"output 0 of its head is 'bad', here 'good'; set task\.labels=\['bad', 'good',"
            r" 'mixed'\], or train"
        ),
    ):
        started(tmp_path, result.run_dir, *head, "task.labels=[good,bad,mixed]", rows=ROWS)
    started(tmp_path, result.run_dir, *head, "train.init_fresh=['head/.*']", rows=others)


@pytest.mark.parametrize(
    "name, task, given, rows, why",
    [
        (
            "bert",
            "classify",
            BERT,
            [{**ROWS[0], "label": "fine"}, *ROWS[1:]],
            "its labels are mixed, bad, good, those of the data bad, fine, mixed",
        ),
        (
            "bert",
            "classify",
            BERT,
            ROWS[:2],
            r"it has 3 outputs \(mixed, bad, good\), the task has 2 \(bad, good\)",
        ),
        (
            "llama_many",
            "classify",
            LAST,
            ROWS,
            (
                "problem_type=multi_label_classification, and task=classify is"
                " single_label_classification"
            ),
        ),
        (
            "distilbert_tags",
            "classify",
            [*BERT, "task.activation=relu"],
            ROWS,
            "is that of DistilBertForTokenClassification, and task=classify has",
        ),
    ],
)
def test_a_head_that_does_not_fit_starts_anew_and_says_why(name, task, given, rows, why, tmp_path):
    source = folder(tmp_path / "in", name)
    _, about = begun(tmp_path, source, *given, rows=rows, task=task)
    assert "head/out/w" in about["fresh"] and about["left"]
    assert re.search(f"its trained head is not taken: .*{why}", hf.told(about)), hf.told(about)


NUMBERS = [{"text": text, "label": i} for i, text in enumerate(TEXTS)]


@pytest.mark.parametrize(
    "name, task, given, rows, why",
    [
        ("bert", "classify", ["task.pool=mean"], ROWS, "task.pool=mean is task.pool=first there"),
        (
            "bert",
            "classify",
            ["task.head=linear"],
            ROWS,
            "task.head=linear is task.head=dense there",
        ),
        (
            "bert",
            "classify",
            ["task.bias=false"],
            ROWS,
            "has bert.pooler.dense.bias, classifier.bias, and the head of the task",
        ),
        ("bert_number", "regress", [], NUMBERS, "set task.standardize=false"),
        (
            "modernbert_mean",
            "classify",
            ["task.pool=first"],
            ROWS,
            "classifier_pooling=mean there, and cls by the options",
        ),
    ],
)
def test_an_option_never_replaces_a_trained_head(name, task, given, rows, why, tmp_path):
    source = folder(tmp_path / "in", name)
    with pytest.raises(
        ConfigError,
        match=(
            rf"its.* head cannot be taken: .*{why}.*train\.init_fresh=\['head/\.\*'\] starts with a"
            r" new head"
        ),
    ):
        begun(tmp_path, source, *given, rows=rows, task=task)
    _, about = begun(tmp_path, source, *given, "train.init_fresh=['head/.*']", rows=rows, task=task)
    assert "head/out/w" in about["fresh"] and about["head"] is None


@pytest.mark.parametrize("name", ["bert", "llama", "modernbert_mean", "deberta_tanh"])
def test_the_head_of_the_source_is_the_standard_one(name, tmp_path):
    """With no option of a head given, all of a trained head is taken but a bias that the class has
    not.
    """
    parts, about = begun(tmp_path, folder(tmp_path / "in", name), rows=ROWS)
    assert (about["head"], about["left"]) == (None, []) and all(
        path.endswith("/b") for path in about["fresh"]
    )
    wanted = {
        "bert": BERT,
        "llama": [*LAST, "task.bias=False"],
        "modernbert_mean": ["task.pool=mean", "task.head=normed"],
        "deberta_tanh": BERT,
    }
    assert all(
        str(getattr(parts.config.task, key.removeprefix("task."))) == value
        for key, value in (o.split("=") for o in wanted[name])
    )


def test_a_folder_of_sentence_vectors_is_pooled_as_they_were(tmp_path):
    source = folder(tmp_path / "in", "bert", drop=("classifier",), architectures=["BertModel"])
    assert begun(tmp_path, source, rows=ROWS)[0].config.task.pool == "first"
    modules(source, mean_tokens=True)
    assert begun(tmp_path, source, rows=ROWS)[0].config.task.pool == "mean"
    modules(source, max_tokens=True)
    parts = begun(tmp_path, source, rows=ROWS)[0]
    assert parts.config.task.pool == "max" and parts.config.task.head == "linear"
    assert ("task.pool", "as sentence-transformers") in parts.config.origins
    given = begun(tmp_path, source, "task.pool=first", rows=ROWS)[0]
    assert given.config.task.pool == "first"  # of who asks for it


def modules(source, *kinds, **modes):
    """Writes the layout of sentence-transformers, as its library does."""
    kinds = ("Transformer", "Pooling", *kinds)
    kind = lambda i, name: {"idx": i, "name": str(i), "path": f"{i}_{name}" if i else ""}
    write = lambda path, value: (source / path).write_text(json.dumps(value))
    (source / "1_Pooling").mkdir(exist_ok=True)
    write("1_Pooling/config.json", {f"pooling_mode_{name}": on for name, on in modes.items()})
    made = [kind(i, n) | {"type": f"sentence_transformers.models.{n}"} for i, n in enumerate(kinds)]
    write("modules.json", made)


@pytest.mark.parametrize(
    ("kinds", "modes", "sentence"),
    [
        ((), {"mean_tokens": True, "cls_token": True}, "pools by mean_tokens and cls_token"),
        ((), {"weightedmean_tokens": True}, "pools by weightedmean_tokens"),
        ((), {"mean_tokens": False}, "pools by nothing"),
        (("Dense",), {"mean_tokens": True}, "2_Dense: a layer behind the pooling"),
        (("LSTM",), {"mean_tokens": True}, "the module LSTM has no counterpart here"),
    ],
)
def test_vectors_that_cannot_be_made_are_told(kinds, modes, sentence, tmp_path):
    source = folder(tmp_path / "in", "bert", drop=("classifier",), architectures=["BertModel"])
    modules(source, *kinds, **modes)
    with pytest.raises(ConfigError, match=sentence):
        begun(tmp_path, source, rows=ROWS)
    given = ("task.pool=mean", "task.head=linear")
    assert begun(tmp_path, source, *given, rows=ROWS)[0].config.task.pool == "mean"


def test_vectors_of_texts_behind_a_prompt_are_told(tmp_path):
    source = folder(tmp_path / "in", "bert", drop=("classifier",), architectures=["BertModel"])
    modules(source, mean_tokens=True)
    about = {"prompts": {"query": "query: ", "none": ""}, "default_prompt_name": None}
    write = lambda: (source / "config_sentence_transformers.json").write_text(json.dumps(about))
    for about["default_prompt_name"] in (None, "none"):
        write()
        assert begun(tmp_path, source, rows=ROWS)[0].config.task.pool == "mean"
    about["default_prompt_name"] = "query"
    write()
    with pytest.raises(ConfigError, match="default_prompt_name='query' puts 'query: ' before each"):
        begun(tmp_path, source, rows=ROWS)
    assert begun(tmp_path, source, "task.pool=max", rows=ROWS)[0].config.task.pool == "max"


def test_numbers_name_labels_that_have_no_names(tmp_path):
    names = {str(i): f"LABEL_{i}" for i in range(3)}
    source = folder(tmp_path / "in", "bert", id2label=names, label2id={})
    _, taken, about = started(
        tmp_path, source, *BERT, rows=[{"text": text, "label": i} for i, text in enumerate(TEXTS)]
    )
    assert about["head"] is None
    np.testing.assert_array_equal(
        taken["head/out/w"].T, load_file(source / "model.safetensors")["classifier.weight"]
    )


def test_the_pooler_of_a_body_is_that_of_a_head(tmp_path):
    """A file of the body alone has it without a prefix; the classes start anew."""
    source = folder(tmp_path / "in", "bert", drop=("classifier",), architectures=["BertModel"])
    tensors = {
        key.removeprefix("bert."): value
        for key, value in load_file(source / "model.safetensors").items()
    }
    save_file(tensors, source / "model.safetensors")
    _, taken, about = started(tmp_path, source, *BERT, rows=ROWS)
    assert (about["fresh"], about["head"]) == (["head/out/b", "head/out/w"], None)
    np.testing.assert_array_equal(taken["head/dense/w"].T, tensors["pooler.dense.weight"])
    _, about = begun(tmp_path, source, "task.pool=mean", "task.head=dense", rows=ROWS)
    assert "head/dense/w" in about["fresh"]


# --- what is held
# --------------------------------------------------------------------------------------------------
def test_weights_are_held_once(tmp_path):
    """Layers are laid apart to generate, and together again to be evaluated; both are all that the
    model holds.
    """
    model = jaxsft.load(test_hf.folder(tmp_path / "in"), "precision=fp32")
    before = flatten(jax.tree.map(np.array, model.params))  # copies: a view would hold the array
    shape = before["layers/0/mlp/up/w"].shape[1:]  # of gate and up alone
    held = lambda: sum(leaf.shape[0] for leaf in jax.live_arrays() if leaf.shape[1:] == shape)
    assert held() == 6
    once, first = held(), model.generate("red", max_new_tokens=4)
    assert sorted(model._held.layers["layers"], key=int) == ["0", "1", "2"] and held() == once
    after = flatten(jax.tree.map(np.array, model.params))
    assert after.keys() == before.keys() and held() == once
    for path, value in before.items():
        np.testing.assert_array_equal(after[path], value)
    assert model.generate("red", max_new_tokens=4) == first


@pytest.mark.parametrize(
    "name, task", [("llama", "lm"), ("qwen3_moe", "lm"), ("deberta", "mlm"), ("gemma3", "lm")]
)
def test_weights_that_are_rounded_once_give_the_same_numbers(name, task, tmp_path):
    """Of precision=bf16: those of linear layers are rounded when they are read, and not in each
    product.
    """
    source = pretrained_folder.open_source(test_hf.folder(tmp_path / "in", name))
    config = source.model()
    ids = np.random.default_rng(0).integers(0, 256, (2, 12))
    where = TokenInfo(np.ones(ids.shape, np.int32), np.tile(np.arange(12, dtype=np.int32), (2, 1)))
    found = []
    for rounded, bits in ((False, False), (True, False), (True, True)):
        model = Transformer(config, config.vocab_rows, ROUNDED if rounded else "bf16")
        declared = specs(jax.eval_shape(model.init, jax.random.key(0)))
        products = pretrained.read_by_products(flatten(declared)) if rounded else set()
        empty = {
            path: jax.numpy.zeros(spec.shape, "uint16" if bits and path in products else spec.dtype)
            for path, spec in flatten(declared).items()
        }
        todo = pretrained.plan(source, flatten(declared), None)
        held = pretrained.load(
            source,
            todo,
            empty,
            rounded=products,
        )
        params = jax.tree.unflatten(
            jax.tree.structure(declared), [held[path] for path in flatten(declared)]
        )
        found.append(np.asarray(jax.jit(model.hidden)(params, ids, where)))
    for other in found[1:]:
        assert np.abs(found[0] - other).max() <= 2e-5 * np.abs(found[0]).max()


def test_a_large_folder_is_held_in_bfloat16(tmp_path, monkeypatch, capsys):
    """Of precision=bf16 on a CPU, and answers as one that is held in float32; a user sees its
    numbers.
    """
    source = test_hf.folder(tmp_path / "in")
    held = lambda model: {leaf.dtype.name for leaf in jax.tree.leaves(model.run.params)}
    plain = jaxsft.load(source, "precision=bf16")
    assert held(plain) == {"float32"} and "held in bfloat16" not in capsys.readouterr().err
    for name in ("LARGE", "SMALL"):
        monkeypatch.setattr(halves, name, 0)
    model = jaxsft.load(source, "precision=bf16")
    assert held(model) == {"float32", "uint16"}
    assert "its weights are held in bfloat16" in capsys.readouterr().err
    numbers, before = flatten(model.params), flatten(plain.params)
    for path, value in before.items():
        np.testing.assert_array_equal(np.asarray(numbers[path], np.float32), value)
    assert numbers["layers/0/mlp/up/w"].dtype == "bfloat16"
    assert model.generate(["red", "a blue"], max_new_tokens=6) == plain.generate(
        ["red", "a blue"], max_new_tokens=6
    )
    assert held(model) == {"float32", "uint16"}
