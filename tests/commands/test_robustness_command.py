"""`jaxsft robustness` on small runs: perturbations, tests of behaviour, substituted tokens."""

import dataclasses
import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

import jaxsft
from jaxsft.errors import ConfigError
from jaxsft.evaluation import attack
from jaxsft.evaluation.compare import Settings
from tests import tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run of task=classify `a`, the same again as `b`, and their data."""
    folder = tiny.data(tmp_path_factory.mktemp("robustness"))
    config = tiny.config(folder, folder / "a", task="classify")
    jaxsft.train(config)
    shutil.copytree(folder / "a", folder / "b")
    return folder


def command(*arguments):
    code, out, err = tiny.jaxsft("robustness", *map(str, arguments))
    assert code == 0, err
    return out


def test_perturbations_of_two_runs(place):
    out = command(
        f"run={place / 'a'}", place / "b", f"data={place / 'labels_held.jsonl'}",
        "robustness.perturbations=[case,delete]", "robustness.strengths=[0.5]",
        "robustness.metrics=[accuracy,f1_macro]", "evaluation.replicates=100", "--json",
    )  # fmt: skip
    report = json.loads(out)
    assert list(report["models"]) == ["a", "b"] and report["rows"] == 12
    of = report["models"]["a"]["numbers"]
    assert list(of) == ["accuracy", "f1_macro"]
    # what is told as it is equals what eval says
    _, told, _ = tiny.jaxsft(
        "eval", f"run={place / 'a'}", f"data.path={place / 'labels_held.jsonl'}"
    )
    assert of["accuracy"]["clean"]["value"] == json.loads(told)["labels_held/accuracy"]
    for entry in of["accuracy"]["conditions"]:
        assert entry["drop"]["value"] == pytest.approx(
            of["accuracy"]["clean"]["value"] - entry["value"]
        )
    folder = place / "a" / "robustness" / "labels_held"
    assert json.loads((folder / "robustness.json").read_text())["rows"] == 12
    assert "side by side" in (folder / "robustness.md").read_text()
    curves = json.loads((folder / "figures" / "robustness.json").read_text())["curves"]
    # the same perturbed rows for both
    assert all(e["value"] == e["low"] == e["high"] == 0 for e in report["differences"])
    assert {(c["model"], c["perturbation"]) for c in curves} >= {("a", "case"), ("b", "delete")}


def test_behaviour(place):
    content = {
        "slots": {"word": ["red", "blue"]},
        "tests": [
            {"name": "same", "kind": "invariance", "templates": "a {word} cat", "vary": "word"},
            {
                "name": "more", "kind": "direction", "templates": "{word}", "change": "{word} cat",
                "label": "en", "expect": "not_lower", "tolerance": 1,
            },
        ],
    }  # fmt: skip
    file = place / "t.yaml"
    file.write_text(yaml.safe_dump(content))
    labels = {json.loads(line)["label"] for line in (place / "labels.jsonl").open()}
    assert "en" in labels
    out = command(f"run={place / 'a'}", f"tests={file}", "--json", f"output={place / 'o'}")
    same, more = json.loads(out)["tests"]["a"]
    assert same["cases"] == 1 and (more["cases"], more["failures"]) == (2, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give data=FILE, tests=FILE.yaml, or both"),
        (["tests=x.yaml", "attack.queries=9"], "attack.queries: is of data=FILE"),
        (["data=x", "robustness.perturbation=[case]"], "unknown option; did you mean"),
        (["data=x", "robustness.strengths=[2]"], "expected shares above 0"),
        (["data=x", "robustness.perturbations=[cases]"], "some of noise, keyboard"),
        (["data=x", "attack.queries=0"], "at least 2"),
        (["data=x", "--csv"], "there is --json"),
        (["data=x", "robustness.seed=1", "robustness.seed=2"], "given twice"),
    ],
)
def test_a_wrong_command_is_one_sentence(place, arguments, message):
    code, _, err = tiny.jaxsft("robustness", f"run={place / 'a'}", *arguments)
    assert code == 1 and message in err and len(err.strip().splitlines()) == 1


# --- substituted tokens
# --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def model(place):
    return jaxsft.load(place / "a")


def texts(model):
    rng, size = np.random.default_rng(0), model.params["embed"]["tokens"]["w"].shape[0]
    tokens = jnp.asarray(rng.integers(0, min(size, 200), (3, 16)), jnp.int32)
    return tokens, jnp.asarray([16, 9, 12]), jnp.asarray([0, 1, 0])


def test_gradient_of_each_position(model):
    """The rows put behind the table have the gradient of the embedding of each position."""
    tokens, lengths, labels = texts(model)
    params, own = model.params, model.parts.model
    read = functools.partial(attack._logits, model.task, params=params, lengths=lengths, types=None)
    vectors = params["embed"]["tokens"]["w"][tokens]
    loss = functools.partial(attack._loss_of_vectors, own, read, labels)
    plain = attack._losses(read(own, tokens=tokens), labels).sum()
    np.testing.assert_allclose(loss(vectors), plain, rtol=1e-6)
    gradient = jax.grad(loss)(vectors)
    assert float(jnp.abs(gradient[1, 9:]).max()) == 0  # behind the end of a text
    step = jnp.zeros_like(vectors).at[0, 3].set(1e-2 * gradient[0, 3])
    slope = (loss(vectors + step) - loss(vectors - step)) / 2
    np.testing.assert_allclose(slope, (step * gradient).sum(), rtol=0.05)


def test_budget_and_limits(model):
    tokens, lengths, labels = texts(model)
    size = model.params["embed"]["tokens"]["w"].shape[0]
    open_places = jnp.zeros(tokens.shape, bool).at[:, 2:6].set(True)
    allowed = jnp.zeros(size, bool).at[40:90].set(True)
    options = attack.AttackOptions(queries=20, edits=3, candidates=4, similarity=-1.0)
    first = attack._logits(
        model.task,
        model.parts.model,
        params=model.params,
        tokens=tokens,
        lengths=lengths,
        types=None,
    ).argmax(-1)
    labels = first.at[2].set(1 - first[2])  # the last one is wrong as it is
    run = jax.jit(functools.partial(attack.attacked, model.parts.model, model.task, options))
    end = jax.device_get(run(model.params, allowed, tokens, lengths, open_places, None, labels))
    assert end.done.all() and (end.queries <= 20).all() and (end.changed.sum(-1) <= 3).all()
    assert end.queries[2] == 1 and not end.changed[2].any()
    differ = end.tokens != np.asarray(tokens)
    assert (differ == end.changed).all() and not end.changed[:, 6:].any()
    assert np.asarray(allowed)[end.tokens[differ]].all() and end.changed[:2].any()
    # what it says of the end is what the model says
    again = attack._logits(
        model.task, model.parts.model, params=model.params, tokens=jnp.asarray(end.tokens),
        lengths=lengths, types=None,
    ).argmax(-1)  # fmt: skip
    np.testing.assert_array_equal(again, end.predicted)


def test_attack_of_a_file(place, model):
    out = command(
        f"run={place / 'a'}", f"data={place / 'labels_held.jsonl'}", "attack.queries=40",
        "attack.edits=6", "attack.similarity=-1", "--json",
    )  # fmt: skip
    found = json.loads(out)["attacks"]["a"]
    assert found["rows"] == 12 and "models" not in json.loads(out)
    assert found["accuracy_under_attack"]["value"] <= found["accuracy"]["value"]
    for example in found["examples"]:
        assert example["text"] != example["changed"] and example["queries"] <= 40


def test_places_that_are_open():
    words = attack.Vocabulary(np.array([0, 1, 1, 0, 1], bool), np.array([0, 0, 0, 1, 0], bool))
    ids = np.array([4, 1, 2, 3, 1, 4])  # [CLS] word word ##inner word [SEP]
    found = attack.open_places(ids, (1, 1), words)
    assert found.tolist() == [False, True, False, False, True, False]


def test_pairs_are_refused(place, model):
    from jaxsft.data.formats import Row

    pair = dataclasses.replace(model.config.data.columns, text_pair="other")
    config = dataclasses.replace(
        model.config, data=dataclasses.replace(model.config.data, columns=pair)
    )
    row = Row({"text": "a", "other": "b", "label": "en"}, "x.jsonl", 1)

    class OfPairs:
        task, params = model.task, model.params

    OfPairs.config = config
    with pytest.raises(ConfigError, match="found a second one"):
        attack.run(OfPairs, [row], attack.AttackOptions(), Settings())


def test_noisy_rows_of_a_file(place):
    """The same rows in another form are a condition; other rows are an error."""
    held = [json.loads(line) for line in (place / "labels_held.jsonl").open()]
    tiny.write_lines(place / "noisy.jsonl", [{**r, "text": r["text"].upper()} for r in held])
    out = command(
        f"run={place / 'a'}", f"data={place / 'labels_held.jsonl'}",
        f"robustness.noisy=[{place / 'noisy.jsonl'}]", "evaluation.replicates=100", "--json",
    )  # fmt: skip
    (entry,) = json.loads(out)["models"]["a"]["numbers"]["accuracy"]["conditions"]
    _, told, _ = tiny.jaxsft("eval", f"run={place / 'a'}", f"data.path={place / 'noisy.jsonl'}")
    assert entry["perturbation"] == "noisy"
    assert entry["value"] == json.loads(told)["noisy/accuracy"]
    for rows, message in ((held[:-1], "has 11 rows, expected 12"), (held[::-1], "another label")):
        tiny.write_lines(place / "other.jsonl", rows)
        code, _, err = tiny.jaxsft(
            "robustness", f"run={place / 'a'}", f"data={place / 'labels_held.jsonl'}",
            f"robustness.noisy=[{place / 'other.jsonl'}]",
        )  # fmt: skip
        assert code == 1 and message in err


def test_words_with_labels(tmp_path):
    """Characters of tagged words change, and their number does not."""
    rows = [
        {"tokens": ["Anna", "saw", "Rome", "."], "tags": ["B-PER", "O", "B-LOC", "O"]},
        {"tokens": ["we", "like", "Oslo"], "tags": ["O", "O", "B-LOC"]},
    ] * 6
    tiny.write_lines(tmp_path / "tags.jsonl", rows)
    config = tiny.config(
        tmp_path, tmp_path / "run", task="tag",
        data={"train": str(tmp_path / "tags.jsonl"), "validation": str(tmp_path / "tags.jsonl")},
        train={"duration": "4steps", "batch_size": 4, "log_every": "1steps"},
        model={"layers": 2, "embed": 16, "heads": 2, "kv_heads": 2, "head_dim": 8, "mlp": 32,
               "context": 128, "causal": False},
    )  # fmt: skip
    jaxsft.train(config)
    asked = [f"run={tmp_path / 'run'}", f"data={tmp_path / 'tags.jsonl'}"]
    more = ["robustness.perturbations=[keyboard]", "robustness.strengths=[0.5]", "--json"]
    out = command(*asked, *more, "robustness.metrics=[f1_micro]", "evaluation.replicates=100")
    told = json.loads(out)["models"]["run"]
    assert list(told["numbers"]) == ["f1_micro"]
    assert 0 <= told["flips"][0]["value"] <= 1
    code, _, err = tiny.jaxsft("robustness", *asked, *more, "robustness.metrics=[f7]")
    assert code == 1 and "robustness.metrics=[f7]: is no number of task=tag" in err
    code, _, err = tiny.jaxsft("robustness", *asked, "robustness.perturbations=[delete]")
    assert code == 1 and "each word has a label here" in err
