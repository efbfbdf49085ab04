"""A prefix of an encoder-decoder model in the format of PEFT, against that library."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxsft.config import adapters as options
from jaxsft.hf import peft_read, peft_write
from jaxsft.models import adapters
from jaxsft.models.attention import TokenInfo
from jaxsft.sharding.weights import flatten, specs
from tests.hf.families import test_pairs as bases

PREFIX = options.Prefix(tokens=3, target=("decoder/layers/.*/attention",))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t5", "bart"])
def test_logits_are_those_of_the_library(name, tmp_path):
    """From a folder that it saved, and from one that was written here."""
    torch, library = pytest.importorskip("torch"), pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    source, plain, params = bases.load(bases.write(name, tmp_path))
    model, c = dataclasses.replace(plain, adapter=PREFIX), plain.config
    own = nn.meta.unbox(
        adapters.init(
            PREFIX, specs(jax.eval_shape(plain.init, jax.random.key(0))), jax.random.key(1)
        )
    )
    params, declared = (
        {**params, "adapters": own},
        specs(jax.eval_shape(model.init, jax.random.key(0))),
    )
    how = {
        "specs": flatten(declared),
        "model": c,
        "family": source.family,
        "head": source.family.heads["lm"],
    }
    base = lambda: transformers.AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path, attn_implementation="eager", dtype=torch.float32
    )
    sizes = {
        "num_layers": c.decoder_layers,
        "num_attention_heads": c.kv_heads,
        "token_dim": c.kv_heads * c.head_dim,
    }
    theirs = library.get_peft_model(
        base(), library.PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3, **sizes)
    ).eval()
    torch.manual_seed(0)
    torch.nn.init.normal_(theirs.prompt_encoder["default"].embedding.weight)
    theirs.save_pretrained(tmp_path / "theirs")
    found = peft_read.read(tmp_path / "theirs", PREFIX, flatten(params), **how)
    read = jax.tree.unflatten(
        jax.tree.structure(params),
        [jnp.asarray(found.get(path, value)) for path, value in flatten(params).items()],
    )
    peft_write.write(tmp_path / "ours", PREFIX, flatten(read), kind="lm", base=str(tmp_path), **how)
    ids, answer = np.arange(3, 10, dtype=np.int32)[None], np.array([[2, 5, 6, 7, 8]], np.int32)
    where = lambda x: TokenInfo(jnp.ones(x.shape, jnp.int32), jnp.arange(x.shape[1])[None])
    logits = np.asarray(
        model.logits(read, model.hidden(read, answer, where(answer), source=(ids, where(ids))))
    )
    long = lambda x: torch.from_numpy(x.astype(np.int64))
    for one in (theirs, library.PeftModel.from_pretrained(base(), tmp_path / "ours").eval()):
        with torch.no_grad():
            expected = one(
                input_ids=long(ids),
                attention_mask=long(np.ones_like(ids)),
                decoder_input_ids=long(answer),
            ).logits.numpy()
        np.testing.assert_allclose(logits, expected, atol=2e-5)
