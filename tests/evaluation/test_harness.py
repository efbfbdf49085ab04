"""Tasks of lm-evaluation-harness on runs: what its library asks, against sums by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

import jaxsft
from jaxsft.errors import ConfigError, DataError
from jaxsft.evaluation import harness
from jaxsft.rundir import read_json
from tests import tiny

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")
TEXT = "the red cat saw a dog and ran over the hill to the river"
CHOICE = """
task: pick_color
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{gold}}}}"
metric_list: [{{metric: acc}}]
"""
ROLLING = """
task: read_text
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}}"
metric_list: [{{metric: byte_perplexity}}]
"""
WRITTEN = """
task: write_answer
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "red"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 4, do_sample: false, top_p: 0.9}}
metric_list: [{{metric: exact_match}}]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tiny.data(tmp_path_factory.mktemp("harness"))
    lines = [
        {"question": f"say {c}:", "choices": ["red", "blue"], "gold": i % 2}
        for i, c in enumerate("abcdef")
    ]
    rows = tiny.write_lines(folder / "rows.jsonl", lines)
    (folder / "tasks").mkdir()
    for name, text in {"choice": CHOICE, "rolling": ROLLING, "written": WRITTEN}.items():
        (folder / "tasks" / f"{name}.yaml").write_text(text.format(file=rows))
    for task, file in {"lm": "book.txt", "chat": "chat.jsonl", "classify": "labels.jsonl"}.items():
        code, _, err = tiny.jaxsft(
            "train",
            f"task={task}",
            *tiny.FAST,
            "model.context=64" if task == "lm" else "model.context=128",
            f"data.train={folder / file}",
            f"run_dir={folder / task}",
        )
        assert code == 0, err
    return folder


@pytest.fixture(scope="module")
def lm(place):
    return harness.as_library_model(jaxsft.load(place / "lm"))


def asked(*arguments):
    return SimpleNamespace(args=arguments)


def by_hand(lm, ids):
    """log p of each id behind those before it, and the most probable one, [n - 1] each."""
    model = lm.model
    from jaxsft.models.attention import TokenInfo

    tokens = np.array([ids[:-1]], np.int32)
    where = TokenInfo(np.ones_like(tokens), np.arange(tokens.shape[1])[None])
    hidden = model.parts.model.hidden(model.params, tokens, where, None)
    logits = np.asarray(hidden @ model.parts.model.output_matrix(model.params), np.float64)[0]
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return log_p[np.arange(len(ids) - 1), ids[1:]], logits.argmax(-1)


def test_log_likelihoods_are_those_of_the_model(lm):
    pairs = [("the red", " cat"), ("a ", "dog runs"), ("", "river"), (TEXT[:40], "x" * 9)]
    found = lm.loglikelihood([asked(*pair) for pair in pairs])
    for (context, continuation), (value, greedy) in zip(pairs, found, strict=True):
        bare = context.rstrip()
        before = [lm.tokenizer.bos_id, *lm.tokenizer.encode(bare)]
        ids = before + lm.tokenizer.encode(context + continuation)[len(before) - 1 :]
        log_p, best = by_hand(lm, ids)
        count = len(ids) - len(before)
        assert value == pytest.approx(log_p[-count:].sum(), rel=1e-5)
        assert greedy == (best[-count:] == ids[-count:]).all()
    again = lm.loglikelihood([asked(*pair) for pair in reversed(pairs)])
    assert [x for x, _ in again[::-1]] == pytest.approx([x for x, _ in found], rel=1e-6)
    assert lm.loglikelihood([asked("the red", "")]) == [(0.0, True)] and lm.cut == 0


def test_what_is_likeliest_is_greedy(lm):
    ids = [lm.tokenizer.bos_id, *lm.tokenizer.encode("the red")]
    for _ in range(3):
        ids.append(int(by_hand(lm, [*ids, 0])[1][-1]))
    written = lm.tokenizer.decode(ids[-3:], skip_special=False)
    if lm.tokenizer.encode("the red" + written) == ids[1:]:
        assert lm.loglikelihood([asked("the red", written)])[0][1]
    assert not lm.loglikelihood([asked("the red", "zq")])[0][1]


def test_rolling_windows_score_each_token_once(lm):
    short, long = TEXT[:30], " ".join([TEXT] * 3)
    assert len(lm.tokenizer.encode(long)) > 2 * lm.longest > 2 * len(lm.tokenizer.encode(short))
    found = lm.loglikelihood_rolling([asked(short), asked(long)])
    model, ids = lm.model, [lm.tokenizer.bos_id, *lm.tokenizer.encode(short)]
    assert found[0] == pytest.approx(by_hand(lm, ids)[0].sum(), rel=1e-5)
    line = model.predict([{"text": short}])[0]  # the end of the text is scored there too
    assert -line["nll"] == pytest.approx(
        by_hand(lm, [*ids, lm.tokenizer.eos_id])[0].sum(), rel=1e-5
    )
    ids, expected = [lm.tokenizer.bos_id, *lm.tokenizer.encode(long)], 0.0
    n, done = lm.longest, 1
    while done < len(ids):
        stop = min(done + n, len(ids))
        window = ids[max(stop - n - 1, 0) : stop]
        expected += by_hand(lm, window)[0][-(stop - done) :].sum()
        done = stop
    assert found[1] == pytest.approx(expected, rel=1e-5) and lm.cut == 0


def test_what_does_not_fit_is_counted_or_refused(lm):
    cut = lm.cut
    long = " ".join([TEXT] * 3)
    ids = [lm.tokenizer.bos_id, *lm.tokenizer.encode(long + " end")]
    ((value, _),) = lm.loglikelihood([asked(long, " end")])
    assert lm.cut == cut + 1
    count = len(ids) - 1 - len(lm.tokenizer.encode(long))
    assert value == pytest.approx(by_hand(lm, ids[-lm.longest - 1 :])[0][-count:].sum(), rel=1e-5)
    with pytest.raises(DataError, match=r"more than model\.context"):
        lm.loglikelihood([asked("a", long)])
    with pytest.raises(ConfigError, match="asks for 64 tokens"):
        lm.generate_until([asked("a", {"until": [], "max_gen_toks": 64})])


def test_answers_end_at_their_stop_strings(lm):
    (whole,) = lm.generate_until([asked("the red", {"until": [], "max_gen_toks": 8})])
    assert whole
    short, again = lm.generate_until(
        [
            asked("the red", {"until": [whole[1:3]], "max_gen_toks": 8}),
            asked("the red", {"until": [], "max_gen_toks": 8, "do_sample": False, "top_k": 3}),
        ]
    )
    assert short == whole[: whole.index(whole[1:3])] and again == whole


def test_a_chat_is_asked_through_its_template(place):
    lm = harness.as_library_model(jaxsft.load(place / "chat"))
    text = lm.apply_chat_template([{"role": "user", "content": "say <|end|> a"}])
    ids = lm.ids_of(text)
    row = {"messages": [{"role": "user", "content": "say <|end|> a"}]}
    assert ids == lm.model.task.prompt(
        lm.model.task.unlabelled(
            jaxsft.data.formats.Row(row, "x", 1), jaxsft.config.schema.Columns()
        ),
        "x:1",
    )
    ((value, _),) = lm.loglikelihood([asked(text, "red")])
    answer = lm.tokenizer.encode("red")
    log_p, _ = by_hand(lm, [*ids, *answer])
    assert value == pytest.approx(log_p[-len(answer) :].sum(), rel=1e-5)
    (written,) = lm.generate_until([asked(text, {"until": [], "max_gen_toks": 4})])
    assert written == lm.model.generate("say <|end|> a", max_new_tokens=4)
    with pytest.raises(ConfigError, match="gen_prefix"):
        lm.apply_chat_template([{"role": "user", "content": "a"}], add_generation_prompt=False)
    assert json.loads(lm.chat_template()) and lm.tokenizer_name


def test_the_command_runs_tasks_of_a_folder(place, capfd, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(place / "cache"))
    names = "[pick_color,read_text,write_answer]"
    code, _, err = tiny.jaxsft(
        "eval",
        f"run={place / 'lm'}",
        f"eval.harness={names}",
        f"eval.harness_path={place / 'tasks'}",
    )
    assert code == 0, err
    folder = place / "lm" / "evaluations" / "harness"
    numbers = read_json(folder / "result.json")
    assert {"pick_color/acc", "read_text/byte_perplexity", "write_answer/exact_match"} <= set(
        numbers
    )
    lm = harness.as_library_model(jaxsft.load(place / "lm"))
    hits, nll, size = [], 0.0, 0
    for line in map(json.loads, (place / "rows.jsonl").read_text().splitlines()):
        found = lm.loglikelihood([asked(line["question"], f" {c}") for c in line["choices"]])
        hits.append(int(np.argmax([x for x, _ in found])) == line["gold"])
        nll -= lm.loglikelihood_rolling([asked(line["question"])])[0]
        size += len(line["question"].encode())
    assert numbers["pick_color/acc"] == pytest.approx(np.mean(hits))
    assert numbers["read_text/byte_perplexity"] == pytest.approx(np.exp(nll / size), rel=1e-6)
    entry = read_json(folder / "intervals.json")["pick_color/acc"]
    assert entry["n"] == 6 and entry["method"] == "normal" and entry["low"] <= entry["value"]
    assert read_json(folder / "harness.json")["cut_prompts"] == 0


@pytest.mark.parametrize(
    ("run", "given", "told"),
    [
        ("lm", ["eval.harness=[no_such_task]"], "the library has no such task"),
        ("lm", ["eval.harness=[a]", "eval.limit=few"], "eval.limit=few: expected a whole number"),
        (
            "classify",
            ["eval.harness=[pick_color]"],
            "task=classify of this model continues",
        ),
        ("lm", [], "give one of data.path=FILE"),
    ],
)
def test_what_cannot_be_is_refused(run, given, told, place):
    more = [f"eval.harness_path={place / 'tasks'}"] if run == "classify" else []
    code, _, err = tiny.jaxsft("eval", f"run={place / run}", *given, *more)
    assert code == 1 and told in err, err
