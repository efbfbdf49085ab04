"""The format of PEFT: what that library computed with small models (tools/golden/peft.py), from its
tensors, and the same tensors back.
"""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from safetensors.numpy import load_file, save_file

from jaxsft.config import adapters as options
from jaxsft.errors import CheckpointError, ConfigError
from jaxsft.hf import peft_config, peft_read, peft_write, pretrained_folder
from jaxsft.models import adapters
from jaxsft.models.attention import TokenInfo
from jaxsft.sharding.weights import flatten, specs
from tests.hf.families import hf
from tools.golden.peft import tensors

GOLDEN = Path(__file__).parent / "golden"
BLOCK = ("layers/.*/(q|k|v|o|gate|up|down)",)
CASES = {
    "lora": options.LoRA(rank=3, alpha=5, target=BLOCK),
    "rslora_biases": options.LoRA(rank=3, alpha=5, scaling="sqrt", target=("layers/.*/(q|v)",)),
    "lora_gpt2": options.LoRA(rank=2, alpha=4, target=("layers/.*/(o|up)",)),
    "lora_head": options.LoRA(rank=2, alpha=4, target=("head", "embed/tokens")),
    "dora": options.DoRA(rank=3, alpha=5, target=BLOCK),
    "ia3": options.IA3(),
    "prefix": options.Prefix(tokens=3),
    "prompt": options.Prompt(tokens=3),
}
VIRTUAL = ("num_virtual_tokens", "token_dim", "num_layers")
each = pytest.mark.parametrize("name", CASES)


def folder_of(name, tmp_path):
    """(what the case says, its folder of PEFT, its tensors)."""
    about = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    drawn = tensors(about["shapes"], about["seed"])
    folder = tmp_path / "peft"
    folder.mkdir()
    (folder / peft_write.CONFIG).write_text(json.dumps(about["config"]), encoding="utf-8")
    save_file(
        {key: np.ascontiguousarray(value) for key, value in drawn.items()},
        folder / peft_write.WEIGHTS,
    )
    return about, folder, drawn


def model_of(about, config, tmp_path, kind="lm"):
    """(model, fresh parameters, what `read` and `write` need of them)."""
    folder = hf.write(about["base"], tmp_path / "base")
    plain, params = hf.load(folder, kind)
    model = dataclasses.replace(plain, adapter=config)
    declared = specs(jax.eval_shape(model.init, jax.random.key(0)))
    own = nn.meta.unbox(
        adapters.init(
            config, {k: v for k, v in declared.items() if k != "adapters"}, jax.random.key(1)
        )
    )
    params = adapters.start(config, {**params, "adapters": own}, jax.random.key(2))
    family = pretrained_folder.open_source(folder).family
    return (
        model,
        params,
        {
            "specs": flatten(declared),
            "model": model.config,
            "family": family,
            "head": family.heads.get(kind),
        },
    )


def with_read(params, found):
    leaves = [jnp.asarray(found.get(path, value)) for path, value in flatten(params).items()]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


def logits(model, params, ids):
    p = model.prompt_length
    ids, n = np.concatenate([np.zeros((1, p), np.int32), ids], axis=1), ids.shape[1] + p
    where = TokenInfo(jnp.ones((1, n), jnp.int32), jnp.arange(n)[None] - p)
    return np.asarray(model.logits(params, jax.jit(model.hidden)(params, ids, where)))[:, p:]


@each
def test_logits_are_those_of_peft(name, tmp_path):
    about, folder, _ = folder_of(name, tmp_path)
    model, params, how = model_of(about, CASES[name], tmp_path)
    expected = np.load(GOLDEN / f"{name}.npz")
    before = logits(model, params, expected["ids"].astype(np.int32))
    params = with_read(params, peft_read.read(folder, CASES[name], flatten(params), **how))
    after = logits(model, params, expected["ids"].astype(np.int32))
    np.testing.assert_allclose(after, expected["logits"], rtol=2e-4, atol=2e-5)
    assert np.abs(before - after).max() > 1e-2  # the adapter matters
    if adapters.KINDS[CASES[name].name].merges:
        merged = adapters.merge(CASES[name], params)
        again = logits(
            dataclasses.replace(model, adapter=options.NoAdapter()),
            merged,
            expected["ids"].astype(np.int32),
        )
        np.testing.assert_allclose(again, expected["logits"], rtol=2e-4, atol=2e-5)


@each
def test_what_is_written_is_what_was_read(name, tmp_path):
    """Names, shapes and bits of the tensors, and every option that PEFT computes with."""
    about, folder, drawn = folder_of(name, tmp_path)
    _, params, how = model_of(about, CASES[name], tmp_path)
    params = with_read(params, peft_read.read(folder, CASES[name], flatten(params), **how))
    peft_write.write(
        tmp_path / "out", CASES[name], flatten(params), kind="lm", base="somewhere", **how
    )
    found = load_file(tmp_path / "out" / peft_write.WEIGHTS)
    assert found.keys() == drawn.keys()
    for key, value in drawn.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)
    written = json.loads((tmp_path / "out" / peft_write.CONFIG).read_text(encoding="utf-8"))
    for key in (
        "peft_type",
        "task_type",
        "r",
        "lora_alpha",
        "use_rslora",
        "use_dora",
        "fan_in_fan_out",
        "num_virtual_tokens",
        "token_dim",
        "num_layers",
    ):
        standard = False if key.startswith(("use_", "fan_")) else None
        assert written.get(key, standard) == about["config"].get(key, standard), key
    targets = about["config"].get("target_modules", [])
    assert all(
        any(module == t or module.endswith(f".{t}") for t in targets)
        for module in written.get("target_modules", [])
    )


def test_pissa_becomes_lora_of_twice_the_rank(tmp_path):
    """PEFT has no subtracted start: the two products together are one."""
    about, _, _ = folder_of("lora", tmp_path)
    config = options.LoRA(rank=2, alpha=3.0, init="pissa", target=("layers/.*/(q|down)",))
    model, params, how = model_of(about, config, tmp_path)
    params = jax.tree.map(lambda x: x, params)
    for stack in params["adapters"]["layers"].values():
        for site in (stack["attention"]["q"], stack["mlp"]["down"]):
            site["b"] = site["b"] + 0.05
    peft_write.write(tmp_path / "out", config, flatten(params), **how)
    plain = options.LoRA(rank=4, alpha=6.0, target=config.target)
    other, fresh, how = model_of(about, plain, tmp_path)
    read = with_read(fresh, peft_read.read(tmp_path / "out", plain, flatten(fresh), **how))
    ids = np.arange(2, 9, dtype=np.int32)[None]
    np.testing.assert_allclose(
        logits(model, params, ids), logits(other, read, ids), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda folder, drawn: save_file(
                {k: drawn[k] for k in list(drawn)[1:]}, folder / peft_write.WEIGHTS
            ),
            "which this adapter needs",
        ),
        (
            lambda folder, drawn: save_file(
                drawn | {"x": np.zeros(1)}, folder / peft_write.WEIGHTS
            ),
            "has x, for which this model has no place",
        ),
        (
            lambda folder, drawn: (folder / peft_write.WEIGHTS).write_bytes(b"nothing"),
            "is no adapter of PEFT that can be read",
        ),
    ],
    ids=["missing", "additional", "damaged"],
)
def test_a_folder_that_does_not_fit_is_an_error(change, message, tmp_path):
    about, folder, drawn = folder_of("lora", tmp_path)
    _, params, how = model_of(about, CASES["lora"], tmp_path)
    change(folder, {key: np.ascontiguousarray(value) for key, value in drawn.items()})
    with pytest.raises(CheckpointError, match=message):
        peft_read.read(folder, CASES["lora"], flatten(params), **how)


def test_other_options_are_an_error(tmp_path):
    about, folder, _ = folder_of("lora", tmp_path)
    _, params, how = model_of(about, CASES["lora"], tmp_path)
    for change, message in (
        ({"rank": 2}, "says adapter.rank=3, this run has adapter.rank=2; set adapter.rank=3"),
        ({"scaling": "sqrt"}, "adapter.scaling"),
    ):
        with pytest.raises(ConfigError, match=message):
            peft_read.read(
                folder, dataclasses.replace(CASES["lora"], **change), flatten(params), **how
            )


def changed(folder, **keys):
    file = folder / peft_write.CONFIG
    file.write_text(
        json.dumps(json.loads(file.read_text(encoding="utf-8")) | keys), encoding="utf-8"
    )


def site(found, module):
    """The factors of a site, layer by layer."""
    return {
        leaf: np.concatenate([found[p] for p in sorted(found) if p.endswith(f"{module}/{leaf}")])
        for leaf in ("a", "b")
    }


@pytest.mark.parametrize(
    "key",
    [
        r".*\.self_attn\.q_proj",
        "q_proj",
        "q_pro.",
        r"self_attn\.(q_proj|nothing)",
        r"^model\.layers\.\d+\.self_attn\.q_proj",
    ],
)
def test_a_pattern_of_scales_is_matched_as_the_library_does(key, tmp_path):
    """One scale holds for all modules here, so that another one is in the second factor."""
    about, folder, _ = folder_of("lora", tmp_path)
    _, params, how = model_of(about, CASES["lora"], tmp_path)
    before = peft_read.read(folder, CASES["lora"], flatten(params), **how)
    changed(folder, alpha_pattern={key: 20, ".*": 5})  # the first that matches holds
    after = peft_read.read(folder, CASES["lora"], flatten(params), **how)
    for module, times in (("attention/q", 4), ("attention/k", 1)):
        old, new = site(before, module), site(after, module)
        np.testing.assert_array_equal(new["a"], old["a"])
        np.testing.assert_allclose(new["b"], old["b"] * times, rtol=1e-6)


@pytest.mark.parametrize(
    "key, why",
    [
        ("(a+)+", "or one of a group, is not read"),
        ("q.*.*.*.*", "over 3 repetitions"),
        ("q(", "is no regular"),
        ("no", "no module"),
    ],
)
def test_a_pattern_that_cannot_be_matched_is_one_sentence(key, why, tmp_path):
    about, folder, _ = folder_of("lora", tmp_path)
    _, params, how = model_of(about, CASES["lora"], tmp_path)
    changed(folder, rank_pattern={key: 3})
    with pytest.raises(ConfigError, match=why):
        peft_read.read(folder, CASES["lora"], flatten(params), **how)


@pytest.mark.parametrize(
    "start", ["pissa_niter_4", "olora", "corda", "loftq", "lora_ga", "soon", 1, 0, ["pissa"]]
)
def test_a_base_that_the_start_of_an_adapter_changed_is_refused(start, tmp_path):
    _, folder, _ = folder_of("lora", tmp_path)
    changed(folder, init_lora_weights=start)
    with pytest.raises(
        ConfigError,
        match=r"init_lora_weights=.*its base is not that of the model.*merge_and_unload",
    ):
        peft_read.read(folder, CASES["lora"], {}, {}, None, None)


@pytest.mark.parametrize("start", [True, False, None, "gaussian", "eva", "orthogonal", "mica"])
def test_a_start_that_leaves_the_base_alone_is_read(start, tmp_path):
    _, folder, _ = folder_of("lora", tmp_path)
    values = json.loads((folder / peft_write.CONFIG).read_text(encoding="utf-8")) | {
        "init_lora_weights": start,
        "some_later_option": None,
    }
    peft_config.check(folder / peft_write.CONFIG, values, CASES["lora"])


def test_every_key_is_read_without_effect_or_an_error():
    """The fields of the library's classes, of its version 0.21; `runtime_config` is not written by
    it.
    """
    values = {"peft_type": "LORA", "r": 3, "lora_alpha": 5, "alora_invocation_tokens": None}
    place, plain = Path("adapter_config.json"), CASES["lora"]
    peft_config.check(place, values, plain)
    for key in (*peft_config.REFUSED, "some_later_option"):
        for value in (True, [1], {"a": 1}, "x", 1, 0.5):
            with pytest.raises(
                ConfigError, match=f"{key}=.*(is not read; expected none|nothing here reads it)"
            ):
                peft_config.check(place, values | {key: value}, plain)
    assert not peft_config.READ & peft_config.REFUSED
    wrong = {
        "r": "3",
        "lora_alpha": "5",
        "use_rslora": "no",
        "use_dora": 1,
        "bias": 0,
        "peft_type": ["LORA"],
        "prefix_projection": "x",
    }
    for key, value in (wrong | {"peft_type": "ADALORA"}).items():
        with pytest.raises(
            ConfigError,
            match=(
                rf"adapter_config\.json: {key}=.*: (expected (a word|a whole number from 1 to"
                r" 65536|a number above 0|true or false)$|is not read)"
            ),
        ):
            peft_config.check(place, values | {key: value}, plain)
    with pytest.raises(ConfigError, match="bias=lora_only: is not read"):
        peft_config.check(place, values | {"bias": "lora_only"}, plain)


def test_the_keys_are_those_of_the_library():
    library = pytest.importorskip("peft")
    for name in ("LoraConfig", "IA3Config", "PrefixTuningConfig", "PromptTuningConfig"):
        fields = {field.name for field in dataclasses.fields(getattr(library, name))}
        assert fields <= peft_config.READ | peft_config.REFUSED, (
            fields - peft_config.READ - peft_config.REFUSED
        )


def test_a_folder_of_pissa_has_its_start_taken_out_again(tmp_path):
    """The merged weight is `w - scale a0 b0 + scale a b`, where `a0 b0` is the principal part of
    w."""
    about, folder, drawn = folder_of("lora", tmp_path)
    changed(folder, init_lora_weights="pissa")
    _, params, how = model_of(about, CASES["lora"], tmp_path)
    with pytest.raises(ConfigError, match=r"init_lora_weights=pissa: .*set adapter\.init=pissa"):
        peft_read.read(folder, CASES["lora"], flatten(params), **how)
    config = dataclasses.replace(CASES["lora"], init="pissa")
    _, params, how = model_of(about, config, tmp_path)
    params = with_read(params, peft_read.read(folder, config, flatten(params), **how))
    w, scale = np.asarray(flatten(params)["layers/0/mlp/down/w"][1], np.float64), 5 / 3
    u, s, v = np.linalg.svd(w)
    name = f"{peft_write.ROOT}model.layers.1.mlp.down_proj.lora_"
    a, b = drawn[f"{name}A.weight"].T.astype(np.float64), drawn[f"{name}B.weight"].T
    expected = w - (u[:, :3] * s[:3]) @ v[:3] + scale * a @ b
    np.testing.assert_allclose(
        flatten(adapters.merge(config, params))["layers/0/mlp/down/w"][1],
        expected,
        rtol=1e-4,
        atol=1e-5,
    )
    changed(folder, init_lora_weights=True)
    with pytest.raises(
        ConfigError, match=r"adapter\.init=pissa: .* holds trained weights; set adapter\.init=zero"
    ):
        peft_read.read(folder, config, flatten(params), **how)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_no_number_is_named(value, tmp_path):
    _, folder, drawn = folder_of("lora", tmp_path)
    name = sorted(drawn)[1]
    drawn[name][0, 0] = value
    save_file({k: np.ascontiguousarray(v) for k, v in drawn.items()}, folder / peft_write.WEIGHTS)
    with pytest.raises(CheckpointError, match=f"{name} has values that are no finite numbers"):
        peft_read.read(folder, CASES["lora"], {}, {}, None, None)


FUSED = {  # by golden model, layers that are one in its files
    "phi3": options.LoRA(rank=2, alpha=3.0, target=("layers/.*/(q|k|v|gate|up)",)),
    "gpt2": options.LoRA(rank=2, alpha=3.0, scaling="sqrt", target=("layers/.*/(q|v|o)",)),
    "gpt_neox": options.LoRA(rank=2, alpha=3.0, target=("layers/.*/(k|v)",)),
    "modernbert_biases": options.LoRA(rank=2, alpha=3.0, init="pissa", target=("layers/.*/(q|k)",)),
    "llama_tied_biases": options.LoRA(rank=2, alpha=3.0, target=("embed/tokens", "layers/.*/q")),
}
ROWWISE = {"phi3": options.DoRA(rank=2, alpha=3.0, target=("layers/.*/(q|v|up)",))}


def written(base, config, tmp_path):
    """(model, parameters whose adapters were drawn, the options and tensors of the folder that is
    written for PEFT).
    """
    kind = None if base.startswith("modernbert") else "lm"
    model, params, how = model_of({"base": base}, config, tmp_path, kind)
    rng = np.random.default_rng(3)
    own = {
        path: value
        for path, value in flatten(params).items()
        if path.startswith("adapters/") and path.endswith(MOVED)
    }
    drawn = {path: value + 0.1 * rng.standard_normal(value.shape) for path, value in own.items()}
    params = with_read(params, drawn)
    peft_write.write(
        tmp_path / "out", config, flatten(params), kind=kind, base=str(tmp_path / "base"), **how
    )
    about = json.loads((tmp_path / "out" / peft_write.CONFIG).read_text(encoding="utf-8"))
    return model, params, about, load_file(tmp_path / "out" / peft_write.WEIGHTS)


MOVED = ("/a", "/b", "/magnitude", "/inputs", "/outputs")


@pytest.mark.parametrize("name", FUSED)
def test_parts_of_a_fused_layer_are_one_adapter(name, tmp_path):
    """`W + scale B A` of the whole layer is what merging its parts gives; the ranks are those of
    all parts together.
    """
    config = FUSED[name]
    model, params, about, tensors = written(name, config, tmp_path)
    source = pretrained_folder.open_source(tmp_path / "base")
    bare = lambda values: {
        key.removeprefix(source.family.prefix): np.asarray(value, np.float64)
        for key, value in values.items()
    }
    before = bare({key: source.tensors.read(key) for key in source.tensors})
    after = bare(merged_tensors(model, config, params, source))
    targets = set()
    for key, a in tensors.items():
        if key.endswith(("lora_A.weight", "lora_embedding_A")):
            module = (
                key.removeprefix(peft_write.ROOT)
                .removesuffix(".lora_A.weight")
                .removesuffix(".lora_embedding_A")
            )
            b = tensors[key.replace("lora_A", "lora_B").replace("embedding_A", "embedding_B")]
            rank = about["rank_pattern"].get(module, about["r"])
            assert a.shape[0] == b.shape[1] == rank
            scale = about["alpha_pattern"].get(module, about["lora_alpha"]) / (
                rank if not about["use_rslora"] else rank**0.5
            )
            delta = scale * (b.astype(np.float64) @ a)
            # PEFT turns it for Conv1D and for embeddings
            turned = "embedding" in key or name == "gpt2"
            tensor = (
                "embed_tokens.weight"
                if module == "lm_head"
                else f"{module.removeprefix(source.family.prefix)}.weight"
            )
            np.testing.assert_allclose(
                before[tensor] + (delta.T if turned else delta), after[tensor], rtol=1e-5, atol=1e-5
            )
            targets.add(module)
    assert targets == set(about["target_modules"]) and (name == "llama_tied_biases") == (
        "lm_head" in targets
    )
    moved = {
        key.removesuffix(".weight")
        for key, value in after.items()
        if not np.allclose(value, before[key])
    }
    assert moved == {module.removeprefix(source.family.prefix) for module in targets - {"lm_head"}}


def merged_tensors(model, config, params, source):
    """The tensors of the body, by their names, when the adapters are part of the weights."""
    flat = {
        path: np.asarray(value) for path, value in flatten(adapters.merge(config, params)).items()
    }
    declared = {
        k: v
        for k, v in flatten(specs(jax.eval_shape(model.init, jax.random.key(0)))).items()
        if k.split("/")[0] not in ("head", "adapters")
    }
    prefix = next(
        (p for p in source.family.prefixes if any(key.startswith(p) for key in source.tensors)), ""
    )
    moves = source.family.moves(declared, prefix, "")
    return {
        m.theirs: (
            m.to_theirs(
                [flat[s.path][s.index] if s.index else flat[s.path] for s in m.slots]
            ).astype(np.float64)
        )
        for m in moves
    }


def test_lengths_and_factors_of_a_fused_layer_are_those_of_its_parts(tmp_path):
    """A part without an adapter keeps its own lengths, or factors of one."""
    model, params, _, tensors = written("phi3", ROWWISE["phi3"], tmp_path)
    found = tensors[f"{peft_write.ROOT}model.layers.0.self_attn.qkv_proj.lora_magnitude_vector"]
    flat = {path: np.asarray(value) for path, value in flatten(params).items()}
    k = np.linalg.norm(flat["layers/0/attention/k/w"][0], axis=0)
    expected = [
        flat["adapters/layers/0/attention/q/magnitude"][0],
        k,
        flat["adapters/layers/0/attention/v/magnitude"][0],
    ]
    np.testing.assert_allclose(found, np.concatenate([x.reshape(-1) for x in expected]), rtol=1e-6)
    assert model.config.heads * model.config.head_dim + 2 * k.size == found.size
    _, params, about, tensors = written(
        "gpt2", options.IA3(target=("layers/.*/(k|v)",), target_inputs=()), tmp_path / "b"
    )
    flat = {path: np.asarray(value) for path, value in flatten(params).items()}
    found = tensors[f"{peft_write.ROOT}transformer.h.1.attn.c_attn.ia3_l"]
    expected = [
        np.ones(found.size // 3),
        *(flat[f"adapters/layers/0/attention/{x}/outputs"][1].reshape(-1) for x in "kv"),
    ]
    np.testing.assert_allclose(found[:, 0], np.concatenate(expected), rtol=1e-6)
    assert about["feedforward_modules"] == [] and about["fan_in_fan_out"]


@pytest.mark.slow
@each
def test_the_library_loads_what_is_written(name, tmp_path):
    torch, library = pytest.importorskip("torch"), pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    about, folder, _ = folder_of(name, tmp_path)
    model, params, how = model_of(about, CASES[name], tmp_path)
    params = with_read(params, peft_read.read(folder, CASES[name], flatten(params), **how))
    peft_write.write(
        tmp_path / "out",
        CASES[name],
        flatten(params),
        kind="lm",
        base=str(tmp_path / "base"),
        **how,
    )
    base = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "base", attn_implementation="eager", dtype=torch.float32
    )
    theirs = library.PeftModel.from_pretrained(base, tmp_path / "out").eval()
    ids = np.arange(2, 11)[None]
    with torch.no_grad():
        expected = theirs(input_ids=torch.from_numpy(ids)).logits[:, -9:].numpy()
    np.testing.assert_allclose(
        logits(model, params, ids.astype(np.int32)), expected, rtol=2e-4, atol=2e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["phi3", "gpt2", "gpt_neox", "llama_tied_biases", "phi3 dora", "gpt2 ia3"]
)
def test_the_library_loads_adapters_of_fused_layers(name, tmp_path):
    torch, library = pytest.importorskip("torch"), pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    base, _, kind = name.partition(" ")
    config = {"dora": ROWWISE["phi3"], "ia3": options.IA3(target=("layers/.*/(k|v)",))}.get(
        kind
    ) or FUSED[base]
    model, params, _, _ = written(base, config, tmp_path)
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "base", attn_implementation="eager", dtype=torch.float32
    )
    theirs = library.PeftModel.from_pretrained(plain, tmp_path / "out").eval()
    ids = np.arange(2, 11)[None]
    with torch.no_grad():
        expected = theirs(input_ids=torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(
        logits(model, params, ids.astype(np.int32)), expected, rtol=2e-4, atol=2e-5
    )
