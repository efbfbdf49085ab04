"""Scores of tokens against closed forms: a linear model, planted rationales, and tiny runs."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsft
from jaxsft.config.explain_options import ExplainOptions
from jaxsft.config.option import declarations
from jaxsft.data.pipeline import Batch
from jaxsft.errors import ConfigError, DataError
from jaxsft.evaluation import attributions, explain, faithfulness, influence, probing
from jaxsft.evaluation.attributions import Effort, attribute
from jaxsft.evaluation.text_scores import ScoredTexts, TextScores
from jaxsft.models.attention import TokenInfo
from jaxsft.models.explained_transformer import ExplainedTransformer
from jaxsft.models.layer_stack import layers_of
from tests import tiny

LINEAR = ("integrated_gradients", "occlusion", "shapley", "kernelshap", "exact")


class LinearScores(TextScores):
    """One number of a text: the sum of `w . x` over its tokens."""

    kind = "numbers"

    def embeddings(self, params, batch):
        return params["table"][batch.tokens]

    def absent(self, params, texts):
        real = self.embeddings(params, texts.batch)
        return jnp.where(texts.explained[..., None], params["table"][0], real)

    def outputs(self, params, batch, vectors, keep=None):
        real = (batch.segment_ids > 0)[..., None]
        return (jnp.where(real, vectors, 0) @ params["w"]).sum(1)[:, None]


def linear(count=3, size=6):
    draw = np.random.default_rng(0)
    params = {"table": draw.normal(size=(9, 4)), "w": draw.normal(size=4)}
    params = {name: x.astype(np.float32) for name, x in params.items()}
    tokens = draw.integers(1, 9, (count, size)).astype(np.int32)
    lengths = np.array([size, size - 2, size - 1])[:count]
    real = np.arange(size) < lengths[:, None]
    batch = Batch(tokens, None, None, real.astype(np.int32), np.where(real, np.arange(size), 0)
                  .astype(np.int32), np.arange(count)[:, None], {})  # fmt: skip
    explained = real & (np.arange(size) > 0)
    texts = ScoredTexts(batch, explained, np.arange(count))
    return LinearScores(None, None, params, "zero"), texts, params


def test_a_linear_model_has_one_answer():
    scores, texts, params = linear()
    target, effort = np.zeros(3, np.int64), Effort(steps=16, samples=64)
    x = params["table"][texts.batch.tokens]
    plain = np.where(texts.explained, x @ params["w"], 0)
    fromzero = np.where(texts.explained, (x - params["table"][0]) @ params["w"], 0)
    for method in ("gradient_x_input", "smoothgrad"):
        found = attribute(method, scores, texts, target, effort)
        np.testing.assert_allclose(found, plain, atol=1e-5)
    for method in LINEAR:
        found = attribute(method, scores, texts, target, effort)
        np.testing.assert_allclose(found, fromzero, atol=1e-4, err_msg=method)
    found = attribute("lime", scores, texts, target, effort)
    np.testing.assert_allclose(found, fromzero, atol=0.05)


def test_faithfulness_of_a_linear_model_is_known():
    scores, texts, _ = linear()
    target = np.zeros(3, np.int64)
    found = attribute("occlusion", scores, texts, target, Effort())
    without, alone = faithfulness.curves(scores, texts, target, found)
    whole, none = without[:, 0], without[:, -1]
    np.testing.assert_allclose(alone[:, -1], whole, atol=1e-5)
    np.testing.assert_allclose(alone[:, 0], none, atol=1e-5)
    highest = found[0][texts.explained[0]].max()  # a tenth of five tokens is one
    assert without[0, 1] == pytest.approx(whole[0] - highest, abs=1e-4)
    best = faithfulness.of_scores(scores, texts, target, found)
    worst = faithfulness.of_scores(scores, texts, target, -found)
    assert (best["comprehensiveness"] > worst["comprehensiveness"]).all()
    assert (best["deletion_auc"] < worst["deletion_auc"]).all()
    assert (best["insertion_auc"] > worst["insertion_auc"]).all()


def test_plausibility_and_agreement():
    _, texts, _ = linear()
    gold = np.zeros(texts.explained.shape, bool)
    gold[:2, 2] = True
    right = faithfulness.plausibility(texts, gold.astype(float), gold)
    np.testing.assert_array_equal(right["auprc"], [1, 1, np.nan])
    np.testing.assert_array_equal(right["token_f1"], [1, 1, np.nan])
    wrong = faithfulness.plausibility(texts, -gold.astype(float), gold)
    np.testing.assert_allclose(wrong["auprc"][:2], [1 / 5, 1 / 3])
    scores = np.random.default_rng(1).normal(size=texts.explained.shape)
    same = faithfulness.agreement(texts, scores, 3 * scores)
    np.testing.assert_allclose(same["rank_correlation"], 1)
    turned = faithfulness.agreement(texts, scores, -scores)
    np.testing.assert_allclose(turned["rank_correlation"], -1)
    bounds = faithfulness.mean_bounds(right, texts.rows, 0.95, 100)
    assert bounds["auprc"]["value"] == 1
    assert bounds["auprc"]["n"] == 2


# --- tiny runs
# --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A run in which one word decides the label, and a file with that word as the reason."""
    folder, draw = tmp_path_factory.mktemp("planted"), np.random.default_rng(0)
    words, rows = ["red", "map", "sun", "oak", "tin", "bay"], []
    for _ in range(240):
        label = str(draw.choice(["up", "down", "flat"]))  # flat: neither word
        why = {"up": ["z"], "down": ["q"], "flat": []}[label]
        text = [str(w) for w in draw.choice(words, 4)]
        text[2:2] = why
        rows.append({"text": " ".join(text), "label": label, "why": why})
    tiny.write_lines(folder / "train.jsonl", rows[:220])
    tiny.write_lines(folder / "held.jsonl", rows[220:])
    jaxsft.train(
        "task=classify", *tiny.MODEL, "precision=fp32", "train.duration=120steps", "mesh.data=1",
        "optim.learning_rate=1e-2", "evaluation.dynamics=true", "evaluation.every=60steps",
        data={"train": folder / "train.jsonl", "test": folder / "held.jsonl"},
        run_dir=folder / "run",
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def loaded(planted):
    return jaxsft.load(planted / "run")


def of(model, file, **options):
    options = ExplainOptions(**options)
    split, rows = model.encoded(file, "explain", options.rows)
    one = explain.explain(model.task, model.parts.model, model.params, split, options)
    return one, rows, options


def test_a_planted_rationale_is_found(planted, loaded):
    methods = "integrated_gradients,occlusion"
    one, rows, options = of(loaded, planted / "held.jsonl", method=methods, rows=20)
    given = [row.fields["why"] for row in rows]
    gold = explain.rationales(one.split, one.texts, loaded.task, given, "why")
    assert gold.sum(1).tolist() == [len(row.fields["why"]) for row in rows]
    found = explain.summary(one, options, gold)
    found = {(line["method"], line["number"]): line for line in found}
    assert found["integrated_gradients", "completeness_gap"]["largest"] < 1e-3
    for method in methods.split(","):
        assert found[method, "comprehensiveness"]["difference_low"] > 0
        assert found[method, "auprc"]["difference_low"] > 0
    with pytest.raises(DataError, match="expected words"):
        explain.rationales(one.split, one.texts, loaded.task, [[3]] * 20, "why")


def test_shapley_of_a_model(planted, loaded):
    methods = "exact,kernelshap,shapley"
    one, _, _ = of(loaded, planted / "held.jsonl", method="exact", rows=1)
    first = np.flatnonzero(one.texts.explained[0])
    one.texts.explained[0, first[7:]] = False  # 128 coalitions
    target, effort = one.target, Effort(samples=2000)
    exact, kernel, sampled = (
        attribute(method, one.scores, one.texts, target, effort) for method in methods.split(",")
    )
    np.testing.assert_allclose(kernel, exact, atol=1e-4)
    np.testing.assert_allclose(sampled, exact, atol=0.5)
    assert attributions.completeness(one.scores, one.texts, target, exact).max() < 1e-4


def test_maps_are_what_attention_does(planted, loaded):
    one, _, _ = of(loaded, planted / "held.jsonl", method="rollout", rows=3)
    model, params, batch = loaded.parts.model, loaded.params, one.texts.batch
    told = ExplainedTransformer.of(model)
    where = TokenInfo(batch.segment_ids, batch.positions, batch.types)
    states, maps = told.layer_states(params, batch.tokens, where, maps=True)
    hidden = model.hidden(params, batch.tokens, where)
    np.testing.assert_allclose(states[-1], hidden, atol=1e-5)
    real = batch.segment_ids > 0
    sums = np.moveaxis(np.asarray(maps.sum(-1)), 2, -1)  # [layers, texts, queries, heads]
    np.testing.assert_allclose(sums[:, real], 1, atol=1e-5)
    stack = jax.tree.map(lambda a: a[0], params["layers"]["0"])
    positions = told._positions(params, where, where, states.dtype)
    layer = jax.tree.map(lambda a: a[0], layers_of(model.config, 0, 1))
    _, found = model.block().apply(
        {"params": stack}, states[0], where, positions, layer, None,
        capture_intermediates=True, mutable=["intermediates"],
    )  # fmt: skip
    captured = found["intermediates"]["attention"]
    v, out = (captured[name]["__call__"][0] for name in ("v", "o"))
    mixed = jnp.einsum("bhst,bthn->bshn", maps[0], v)
    again = jnp.einsum("bshn,hnd->bsd", mixed, stack["attention"]["o"]["w"])
    again += stack["attention"]["o"].get("b", 0)
    np.testing.assert_allclose(again[real], out[real], atol=1e-5)


def test_influence_is_what_a_step_on_a_training_row_does(planted, loaded):
    one, _, _ = of(loaded, planted / "train.jsonl", method="random", rows=8, target="gold")
    product, cosine, _ = influence.similarities(one.scores, one.texts, one.target, one.split)
    np.testing.assert_allclose(np.diag(cosine), 1, atol=1e-3)  # with its own label
    params, batch, scores = loaded.params, one.texts.batch, one.scores
    j, step = 3, 1e-3

    def loss(head):
        outputs = scores.outputs({**params, "head": head}, batch, None)
        return -jax.nn.log_softmax(outputs[j])[one.target[j]]

    slopes = jax.grad(loss)(params["head"])
    moved = {**params, "head": jax.tree.map(lambda w, g: w - step * g, params["head"], slopes)}
    score = lambda p: np.asarray(scores.score(scores.outputs(p, batch, None), one.target))
    change = (score(moved) - score(params)) / step
    np.testing.assert_allclose(product[:, j], change, rtol=0.02, atol=5e-3)
    found = influence.lines(one, one.split, shown=2)
    assert found[0]["for"][0]["label"] == one.split.records[0].label


def test_layers_and_heads(planted, loaded):
    one, _, options = of(loaded, planted / "held.jsonl", method="random", rows=20)
    found = probing.layers(one, options)
    assert len(found["probe"]) == 3
    assert found["probe"][-1]["value"] > 0.8
    assert len(found["skipped"]) == 2
    gates = np.ones((2, 2), np.float32)
    same = one.scores.outputs(probing.gated(loaded.params, gates), one.texts.batch, None)
    np.testing.assert_allclose(same, one.outputs, atol=1e-5)
    heads = probing.heads(one)
    step, i = 1e-2, (0, 1)
    score = lambda g: np.asarray(
        one.scores.score(
            one.scores.outputs(probing.gated(loaded.params, g), one.texts.batch, None), one.target
        )
    )
    up, down = gates.copy(), gates.copy()
    up[i], down[i] = 1 + step, 1 - step
    slope = np.abs(score(up) - score(down)).mean() / (2 * step)
    assert heads[i] == pytest.approx(slope, rel=0.02, abs=1e-3)


def test_every_method_has_its_option_and_command(planted):
    doc = dataclasses.fields(ExplainOptions)[0].metadata["doc"]
    assert doc.partition(": ")[2].split(" | ") == list(attributions.METHODS)
    code, out, err = tiny.jaxsft(
        "explain", f"run={planted / 'run'}", f"data={planted / 'held.jsonl'}", "explain.rows=6",
        "explain.method=gradient_x_input,rollout", "explain.orders=1", "explain.rationale=why",
        f"explain.against={planted / 'run'}", "explain.against_precision=bf16",
        f"explain.influence={planted / 'train.jsonl'}", "explain.layers=true",
        f"output={planted / 'out'}",
    )  # fmt: skip
    assert code == 0, err
    assert "rank_correlation_with_against" in out
    assert "rank_correlation_with_bf16" in out
    lines = [json.loads(x) for x in (planted / "out" / "explanations.jsonl").read_text().split("\n")
             if x]  # fmt: skip
    assert len(lines) == 6
    assert len(lines[0]["tokens"]) == len(lines[0]["scores"]["rollout"])
    page = (planted / "out" / "explanations.html").read_text()
    assert 'class="tokens"' in page
    assert "<script" not in page
    for bad, why in (("explain.method=magic", "unknown"), ("explain.target=left", "expected"),
                     ("explain.row=3", "unknown"), ("explain.rows=0", "at least 1")):  # fmt: skip
        code, _, err = tiny.jaxsft(
            "explain", f"run={planted / 'run'}", f"data={planted / 'held.jsonl'}", bad
        )
        assert code == 1, bad
        assert why in err


def test_dynamics_of_the_run(planted):
    found = json.loads((planted / "run" / "figures" / "dynamics.json").read_text())
    assert [one["step"] for one in found["evaluations"]] == [60, 120]
    assert len(found["rows"]) == len(found["confidence"]) == 220
    assert (planted / "run" / "figures" / "dynamics.png").exists()


def test_an_answer_is_explained_by_its_prompt(tmp_path):
    files = tiny.data(tmp_path)
    small = ["model.layers=1", *(x for x in tiny.FAST if not x.startswith("model.layers"))]
    tiny.train("task=chat", *small, f"data.train={files / 'chat.jsonl'}",
               "generate.allow_cut=true", f"run_dir={tmp_path / 'run'}")  # fmt: skip
    model = jaxsft.load(tmp_path / "run")
    one, _, _ = of(model, files / "chat_held.jsonl", method="integrated_gradients", rows=2)
    assert one.scores.names == ("answer",)
    path = one.found["integrated_gradients"]
    gap = attributions.completeness(one.scores, one.texts, one.target, path)
    assert gap.max() < 1e-3
    trained = one.texts.batch.loss_weight > 0
    assert not (one.texts.explained & trained).any()
    assert one.texts.explained.any(1).all()
    with pytest.raises(ConfigError, match="no head of its own"):
        influence.lines(one, one.split)


def test_the_page_of_documentation_has_every_option():
    page = (Path(__file__).parents[2] / "docs" / "explain.md").read_text(encoding="utf-8")
    for name, declaration in declarations(ExplainOptions).items():
        default = declaration.default
        shown = "null" if default is None else default
        shown = str(default).lower() if isinstance(default, bool) else shown
        assert f"| `explain.{name}` | `{shown}` |" in page
