"""The package of docs/extending.md, with one part of each kind: installed, used by name, named in
the manifest; and what is refused, by one sentence each.
"""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest

from jaxsft import plugins, rundir
from jaxsft.config import compose, schema
from jaxsft.errors import ConfigError
from jaxsft.hf import families
from jaxsft.optim import schedules
from tests import outside, tiny
from tests.docs import pages
from tests.docs.test_add_a_task import ok

LINES = "".join(f"{i % 7 / 2}|{'ab' * (i % 7)} c{i}\n" for i in range(60))
LLAMA = {
    "model_type": "tinyllama_own",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 50,
    "max_position_embeddings": 64,
}


@pytest.fixture
def site(tmp_path):
    """A folder for packages, where Python and `importlib.metadata` look."""
    (tmp_path / "site").mkdir()
    with outside.importable(tmp_path / "site"):
        yield tmp_path / "site"


@pytest.fixture
def package(site):
    blocks = pages.blocks("extending.md")
    outside.write(site, {n: text for n, text in blocks.items() if n.startswith("extra_parts/")})
    outside.by_pyproject(site, blocks["pyproject.toml"])
    plugins.forget()
    return site


def bring(site, name, text, points, version="1.0"):
    """Another package, of one module, installed too."""
    outside.write(site, {f"{name}.py": text})
    outside.installed(site, name.replace("_", "-"), version, points)
    plugins.forget()


def test_one_of_each(package, tmp_path):
    out = ok("plugins")
    assert len(out.splitlines()) == 7 and all("extra-parts 0.2" in x for x in out.splitlines())
    assert out.count("ready") == 7
    data, sets, run = tmp_path / "new.pipes", tmp_path / "sets", tmp_path / "run"
    data.write_text(LINES, encoding="utf-8")
    stages = "stages=[{shout:{mark: '?'}},{split:{fractions:[0.6,0.2,0.2]}}]"
    ok("prepare", f"data.path={data}", stages, f"output.dir={sets}")
    row = rundir.read_jsonl(sets / "train.jsonl")[0]
    assert row["text"].endswith("?") and row["text"].isupper()
    named = rundir.read_json(sets / "manifest.json")["plugins"]
    assert {(one["kind"], one["name"]) for one in named} == {
        ("stages", "shout"),
        ("formats", "pipes"),
    }

    ok(
        "train",
        "task=regress",
        *tiny.FAST,
        "task.loss=log_cosh",
        "task.sharpness=2",
        "optim=signum",
        "schedule=square",
        "evaluation.metrics=[within_one]",
        "evaluation.metric=validation/within_one",
        "tokenizer=bytes",
        f"data.path={sets}",
        f"run_dir={run}",
    )
    result, manifest = (rundir.read_json(run / f"{n}.json") for n in ("result", "manifest"))
    lines = rundir.read_jsonl(run / "predictions" / "test.jsonl")
    near = [abs(line["label"] - line["prediction"]) < 1 for line in lines]
    assert result["test/within_one"] == pytest.approx(sum(near) / len(near))
    used = {(one["kind"], one["name"]) for one in manifest["plugins"]}
    assert used == {
        ("metrics", "within_one"),
        ("losses", "log_cosh"),
        ("optimizers", "signum"),
        ("schedules", "square"),
    }
    config = compose.read(run / "config.yaml")
    assert config.task.sharpness == 2
    assert config.optim.learning_rate == 1e-3 and config.schedule.warmup == "1steps"  # the presets

    plugins.forget()  # another process, where the package is not installed
    sys.path.remove(str(package))
    try:
        code, _, err = tiny.jaxsft("eval", f"run={run}", f"data.path={sets}/test.jsonl")
    finally:
        sys.path.insert(0, str(package))
    assert code == 1 and "extra-parts 0.2" in err and "not installed here" in err


def test_a_family_of_a_plugin(package):
    family = families.of(LLAMA, "config.json")
    assert family.model(LLAMA).embed == 16 and plugins.used()[0]["name"] == "tinyllama_own"
    with pytest.raises(ConfigError, match="nothing reads it; attention_bias"):
        family.model({**LLAMA, "atention_bias": True})


def test_a_metric_fits_its_tasks(package, tmp_path):
    data = tiny.write_lines(tmp_path / "a.jsonl", [{"text": f"t{i}"} for i in range(20)])
    for name, told in (
        ("within_one", "reads targets, predictions, which task=lm does not give"),
        ("none", "unknown"),
    ):
        option = f"evaluation.metrics=[{name}]"
        code, _, err = tiny.jaxsft("train", "task=lm", *tiny.FAST, f"data.train={data}", option)
        assert code == 1 and told in err


def test_a_file_beside_the_data(tmp_path):
    """`plugins=[FILE]`, in processes of a slow stage too."""
    file = tmp_path / "loud_stage.py"
    text = pages.blocks("extending.md")["extra_parts/data.py"]
    slow = "from typing import ClassVar\n\n\nclass Loud(Shout):\n    slow: ClassVar[bool] = True\n"
    file.write_text(f'{text}\n\n{slow}\n\nPLUGINS = {{"stages": {{"loud": Loud}}}}\n', "utf-8")
    data = tiny.write_lines(tmp_path / "a.jsonl", [{"text": f"t{i}"} for i in range(20)])
    arguments = ["prepare", f"data.path={data}", "stages=[loud]", f"output.dir={tmp_path / 'out'}"]
    code, _, err = tiny.jaxsft(*arguments)
    assert code == 1 and "'loud' is unknown" in err
    ok(*arguments, f"plugins=[{file}]", "workers=2")
    plugins.forget()
    assert rundir.read_jsonl(tmp_path / "out" / "all.jsonl")[3]["text"] == "T3!"


OLD = "JAXSFT_CONTRACT = 0\nheight = None\n"
PLAIN = "import jaxsft.optim.schedules as s\n\nJAXSFT_CONTRACT = 1\nheight = s.unit\n"


@pytest.mark.parametrize(
    ("text", "name", "told"),
    [
        (OLD, "steep", "is of contract 0, and this jaxsft takes plug-ins of contract 1"),
        ("height = None\n", "steep", "says no JAXSFT_CONTRACT"),
        ("import nothing_of_this_name\n", "steep", "cannot be imported (ModuleNotFoundError"),
        (PLAIN, "steep", "found a function, expected a Schedule"),
        (PLAIN, "cosine", "jaxsft has a schedule of this name"),
    ],
)
def test_what_cannot_be_used_says_why(site, text, name, told):
    bring(site, "steep_rates", text, {"jaxsft.schedules": {name: "steep_rates:height"}})
    code, out, _ = tiny.jaxsft("plugins")
    assert code == 1 and told in out
    code, _, err = tiny.jaxsft("check", "task=lm", f"schedule={name}", "data.train=x")
    assert code == 1 and told in err and len(err.strip().splitlines()) == 1
    # who does not ask for it is not troubled
    assert "linear" in ok("train", "task=lm", "schedule=linear", "data.train=x", "--cfg", "job")


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_a_part_of_another_contract_is_one_sentence(site, kind):
    bring(
        site,
        "later_parts",
        "JAXSFT_CONTRACT = 2\nPART = None\n",
        {f"jaxsft.{kind}": {"p": "later_parts:PART"}},
    )
    with pytest.raises(ConfigError) as refused:
        plugins.table(kind)["p"]
    assert f"{plugins.KINDS[kind][0]} p of later-parts 1.0" in str(refused.value)
    told = (
        "is of contract 2, and this jaxsft takes plug-ins of contract 1; install the plug-in in a"
    )
    assert told in str(refused.value) and "\n" not in str(refused.value)


# Of contract 1: what a plug-in must give | what it may give. A line on the left that grows, or any
# name that goes, breaks the plug-ins that there are: raise `plugins.CONTRACT` when one was released
# (docs/extending.md). What may be given can grow.
CONTRACT_1 = {
    "tasks": "name options records implementation | about output measures measures_of"
    " answer_measures numbers_of metric causal decoder generates can_generate conversations stops"
    " too_long head problems preset check pipeline does",
    "metrics": "names needs observe value | reduce each table rows_of confusion lower_is_better"
    " counts scheme signature unbounded",
    "losses": "values | targets options scalars needs",
    "optimizers": "options direction | after_decay preset",
    "schedules": "options height | preset",
    "families": "model_type architecture read table prefix heads | write skip copies renamed stored"
    " absent bare around encoder ties keys",
    "formats": "name suffixes read rows | options looks_like write tree order",
    "stages": "| on learns splits mixes folders slow replayed context check fit row rows sets rng",
}


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_the_contract_has_the_fields_that_it_had(kind):
    part = plugins.part_type(kind)
    must = {
        f.name
        for f in dataclasses.fields(part)
        if f.default is f.default_factory is dataclasses.MISSING and f.init
    }
    needed, may = (names.split() for names in CONTRACT_1[kind].split("|"))
    assert plugins.CONTRACT == 1 and must == set(needed)
    assert [
        name
        for name in may
        if name not in {f.name for f in dataclasses.fields(part)} and not hasattr(part, name)
    ] == []


def test_two_packages_of_one_name(package):
    text = "from extra_parts.learning import SQUARE\n\nJAXSFT_CONTRACT = 1\n"
    bring(package, "square_again", text, {"jaxsft.schedules": {"square": "square_again:SQUARE"}})
    with pytest.raises(ConfigError, match=r"square of extra-parts 0\.2 .* have one name"):
        schedules.unit("square", 1, 1, 10)


def test_names_of_a_run_directory_are_never_imported(site, tmp_path):
    """Neither `plugins` of its config.yaml nor its manifest have anything imported."""
    outside.write(site, {"trap.py": "raise SystemExit('imported')\n"})
    run = tmp_path / "run"
    plain = compose.to_yaml(schema.Config(task=schema.ChatTask()))
    outside.write(run, {"config.yaml": plain.replace("plugins: []", "plugins: [trap]")})
    with pytest.raises(ConfigError, match=r"used plugins=\[trap\], and .* never imported"):
        compose.read(run / "config.yaml")
    manifest = [{"kind": "tasks", "name": "t", "module": "trap", "package": None}]
    outside.write(run, {"config.yaml": plain})
    outside.write(run, {"manifest.json": json.dumps({"plugins": manifest})})
    with pytest.raises(ConfigError, match="give plugins="):
        compose.read(run / "config.yaml")
    for broken in ([1], "x", [{"kind": []}], {"a": 1}):
        outside.write(run, {"manifest.json": json.dumps({"plugins": broken})})
        assert compose.read(run / "config.yaml").task.name == "chat"
    assert "trap" not in sys.modules


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("JAXSFT_CONTRACT = 1\n", "expected PLUGINS in it"),
        ('JAXSFT_CONTRACT = 1\nPLUGINS = {"models": {}}\n', "PLUGINS['models'] is no kind"),
        ("JAXSFT_CONTRACT = 2\nPLUGINS = {}\n", "is of contract 2"),
        ("1 / 0\n", "cannot be imported (ZeroDivisionError"),
        ("import sys; sys.exit(3)\n", "cannot be imported (SystemExit"),
    ],
)
def test_a_module_that_is_no_plugin(tmp_path, text, told):
    file = tmp_path / "broken_part.py"
    file.write_text(text, encoding="utf-8")
    code, _, err = tiny.jaxsft("check", f"plugins=[{file}]", "task=lm", "data.train=x")
    assert code == 1 and told in err and len(err.strip().splitlines()) == 1
    code, _, err = tiny.jaxsft("check", "plugins=[no.such.module]", "task=lm", "data.train=x")
    assert code == 1 and "plugins=[no.such.module]: cannot be imported" in err
    plugins.forget()
