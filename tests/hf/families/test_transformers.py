"""What is exported computes the same in transformers: the oracle is the library itself
(jaxsft[torch]).
"""

from __future__ import annotations

import numpy as np
import pytest

import jaxsft
from jaxsft.data import synthetic
from jaxsft.data.formats import Row
from tests import tiny
from tests.training.test_pretrained import FAST, folder

pytestmark = pytest.mark.slow
transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

BERT_HEAD = ["task.pool=first", "task.head=dense", "task.activation=tanh"]
HEADS = {
    "bert": BERT_HEAD,
    "roberta": BERT_HEAD,
    "xlm_roberta": BERT_HEAD,
    "distilbert": [*BERT_HEAD[:2], "task.activation=relu"],
    **{
        name: ["task.pool=last", "task.bias=false"]
        for name in ("llama", "mistral", "qwen3", "phi3", "gemma2", "gpt2", "gpt_neox", "olmo2")
    },
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny.data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("name", HEADS)
def test_classes_of_texts_are_the_same_there(name, files, tmp_path):
    given = [
        f"model.pretrained={folder(tmp_path / 'in', name)}",
        f"data.train={files / 'labels.jsonl'}",
        *HEADS[name],
        f"run_dir={tmp_path / 'run'}",
    ]
    result = jaxsft.train(jaxsft.compose("task=classify", *FAST, *given))
    jaxsft.export(result, tmp_path / "out")
    texts = [row["prompt"] for row in synthetic.generate(7, 6)]
    found = jaxsft.load(result).predict(texts)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        chances = (
            model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.softmax(-1).numpy()
        )
    assert [model.config.id2label[int(i)] for i in chances.argmax(-1)] == [
        line["prediction"] for line in found
    ]
    np.testing.assert_allclose(chances.max(-1), [line["probability"] for line in found], rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["llama_7_to_1", "qwen2", "gpt2", "gemma3", "phi3", "gpt_neox_serial"]
)
def test_answers_are_the_same_there(name, files, tmp_path):  # guards C3, C10, E12
    given = [
        f"model.pretrained={folder(tmp_path / 'in', name)}",
        f"data.train={files / 'chat.jsonl'}",
        f"run_dir={tmp_path / 'run'}",
    ]
    result = jaxsft.train(jaxsft.compose("task=chat", *FAST, *given))
    jaxsft.export(result, tmp_path / "out")
    run = jaxsft.load(result)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    prompt = [{"role": "user", "content": "translate: red cat"}]
    ids = tokenizer.apply_chat_template(
        prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        new = model.generate(**ids, max_new_tokens=12, do_sample=False)[
            0, ids["input_ids"].shape[1] :
        ]
    assert tokenizer.decode(new, skip_special_tokens=True) == run.generate(
        prompt, max_new_tokens=12, temperature=0.0
    )


@pytest.mark.parametrize("name", ["bert", "distilbert", "qwen2"])
def test_tags_of_words_are_the_same_there(name, tmp_path):
    words = [["red", "cats", "sleep"], ["a", "dog", "saw", "red", "cats"]] * 4
    rows = [
        {
            "tokens": line,
            "tags": [
                "A" if word in ("red", "a") else "N" if word.endswith(("s", "g")) else "V"
                for word in line
            ],
        }
        for line in words
    ]
    data = tiny.write_lines(tmp_path / "tags.jsonl", rows)
    given = [
        f"model.pretrained={folder(tmp_path / 'in', name)}",
        f"data.train={data}",
        f"run_dir={tmp_path / 'run'}",
    ]
    result = jaxsft.train(jaxsft.compose("task=tag", *FAST, *given))
    jaxsft.export(result, tmp_path / "out")
    found = jaxsft.load(result).predict([{"tokens": line} for line in words[:2]])
    model = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "out").eval()
    run = jaxsft.load(result)
    columns = run.config.data.columns
    for line, told in zip(words[:2], found, strict=True):
        encoded = run.task.encode_all(
            [run.task.unlabelled(Row({"tokens": line}, "x", 1), columns)], ["x:1"]
        )[0]
        with torch.no_grad():
            tags = model(torch.from_numpy(encoded.ids.astype(np.int64))[None]).logits[0].argmax(-1)
        assert [model.config.id2label[int(tags[i])] for i in encoded.words.offsets[:-1]] == told[
            "prediction"
        ]
