"""The pages say what is so: generated pages are current, examples run, and every file, option and
command that is named exists.
"""

from __future__ import annotations

import doctest
import itertools
import re
import shlex
import sys
import zlib

import numpy as np
import pytest
import sklearn.metrics

from jaxsft import cli, plugins
from jaxsft.config import compose, schema
from jaxsft.metrics.base import Outputs, measure
from tests.docs import pages
from tools.docs import generate, support
from tools.docs.composed import composed

IDS = [page.name for page in pages.PAGES]
WRITTEN = [page for page in pages.PAGES if page.name not in generate.pages()]


SAMPLE = 8  # of so many rows of the support matrix one is resolved; `make docs` resolves all


@pytest.mark.slow
def test_the_support_matrix_is_current():
    """Which rows are resolved depends on the sources of the options, so that another change meets
    others."""
    sources = sorted((pages.ROOT / "jaxsft" / "config").glob("*.py"))
    seed = zlib.crc32(b"".join(path.read_bytes() for path in sources))
    written = support.read_cells(pages.text("support.md"))
    kept = {
        place: cells
        for place, cells in written.items()
        if zlib.crc32(repr(place).encode(), seed) % SAMPLE
    }
    assert 0 < len(written) - len(kept) < len(written) // 4
    assert pages.text("support.md") == support.page(kept), (
        "docs/support.md: not what the code says; `make docs` writes it again"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in generate.pages() if name != "support.md"])
def test_a_generated_page_is_current(name):
    assert pages.text(name) == generate.pages()[name](), (
        f"docs/{name}: not what the code says; `make docs` writes it again"
    )


@pytest.mark.parametrize(
    "page", [p for p in pages.PAGES if ">>>" in p.read_text(encoding="utf-8")], ids=lambda p: p.name
)
def test_examples_give_what_the_page_shows(page):
    source = page.read_text(encoding="utf-8")
    example = doctest.DocTestParser().get_doctest(source, {}, page.name, str(page), 0)
    out: list[str] = []
    failed = doctest.DocTestRunner(verbose=False).run(example, out=out.append).failed
    assert example.examples and not failed, "".join(out)


# --- what is named exists
# --------------------------------------------------------------------------------------------------
FILE = re.compile(r"`((?:jaxsft|tests|tools|conf|docs)/[\w./]*)`")
LINK = re.compile(r"\]\(([^)#]+?)(?:#[^)]*)?\)")
OPTION = re.compile(
    r"(?<![\w./-])((?:"
    + "|".join(f.name for f in schema.Config.__dataclass_fields__.values())
    + r")(?:\.\w+)+)(?=[=`\s,;:)])"
)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda p: p.name)
def test_files_that_are_named_exist(page):
    made = set(pages.blocks(page.name)) if page.parent.name == "docs" else set()
    names = set(FILE.findall(page.read_text(encoding="utf-8"))) - made
    missing = [name for name in names if not (pages.ROOT / name).exists()]
    assert not missing, f"{page.name}: {missing}"


@pytest.mark.parametrize("page", pages.PAGES, ids=IDS)
def test_links_between_pages_lead_somewhere(page):
    targets = [t for t in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in t]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing, f"{page.name}: {missing}"


def test_tests_that_are_named_in_the_guarantees_exist():
    table = [line for line in pages.text("guarantees.md").splitlines() if line.startswith("| ")][1:]
    for line in table:
        names = re.findall(r"`([^`]*(?:\.py|/))`", line.split("|")[-2])
        assert names, f"no test: {line}"
        for name in names:
            path = pages.ROOT / (name if name.startswith("tests/") else f"tests/invariants/{name}")
            assert path.exists(), f"{name}: not there ({line})"


def _known() -> set[str]:
    """Every option of any choice of a group, and every part of the config."""
    flat = set(compose.flat(compose.to_dict(schema.Config(task=schema.ChatTask()))))
    for group, classes in compose.GROUPS.items():
        flat |= {f"{group}.{name}" for cls in classes.values() for name in cls.__dataclass_fields__}
    return flat | {key.rsplit(".", 1)[0] for key in flat}


@pytest.mark.parametrize("page", WRITTEN, ids=lambda p: p.name)
def test_options_that_are_named_exist(page):
    source = re.sub(
        r"^```(python|pycon|text).*?^```",
        "",
        page.read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
    code = " ".join(re.findall(r"`[^`\n]+`|^    .*$", source, re.MULTILINE))
    names = {
        n
        for n in OPTION.findall(code)
        if not n.endswith(
            (
                ".py",
                ".md",
                ".yaml",
                ".jsonl",
                ".json",
                ".csv",
                ".txt",
                ".html",
                ".tsv",
                ".conll",
                ".conllu",
            )
        )
    }
    unknown = {
        n
        for n in names
        if n not in _known() and not n.startswith(("task.variables.", "data.options", "data.keep"))
    }
    own = re.findall(r"^    (\w+): .*= option\(", page.read_text(encoding="utf-8"), re.MULTILINE)
    unknown -= {name for name in unknown if name.rpartition(".")[2] in own}  # of a plug-in there
    assert not unknown, f"{page.name}: {unknown}"


# --- commands
# --------------------------------------------------------------------------------------------------
def commands() -> list[tuple[str, str]]:
    """Every `jaxsft train ...` of the pages that is whole."""
    found = []
    for page in WRITTEN:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^(?:    |\$ |srun .*)?(jaxsft train .*)$", text, re.MULTILINE):
            command = line.partition("  #")[0].partition("          ")[0].strip()
            # those with plug-ins run in tests of their own
            if not re.search(r"\.\.\.|--|task=rate|optim=signum|plugins=", command):
                found.append((page.name, command))
    return sorted(set(found))


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_compose(page, command):
    words = shlex.split(command)[2:]
    if "-m" in words:  # the first run of the sweep
        words = [w.partition(",")[0] for w in words if w != "-m"]
    task = next((w.partition("=")[2] for w in words if w.startswith("task=")), "chat")
    composed(task, *(w for w in words if not w.startswith("task=")))


def pasted() -> list[tuple[str, str]]:
    """Every line of a page that begins with `jaxsft` in a block of code, as it is copied."""
    found = []
    for page in WRITTEN:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        indented = re.findall(r"^    (?:\S*/)?(jaxsft .*)$", text, re.MULTILINE)
        fenced = [
            line
            for block in re.findall(
                r"^```(?:bash|sh|console|text)\b.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL
            )
            for line in block.splitlines()
        ]
        found += [
            (page.name, line.strip())
            for line in [*indented, *(line for line in fenced if re.match(r"(\$ )?jaxsft ", line))]
        ]
    return sorted(set(found))


@pytest.mark.parametrize(("page", "line"), pasted())
def test_a_line_of_a_page_can_be_pasted(page, line):
    """Nothing stands in it that a shell would take for a word of the command: no prompt, and no
    prose without a sign of a comment.
    """
    assert not line.startswith("$ "), "a prompt is copied with the command"
    words = shlex.split(line, comments=True)
    if "..." in line:  # a part of a command
        return
    command, rest = words[1], words[2:]
    assert command in cli.COMMANDS or command.startswith("-") or command == "<command>"
    rest = rest[: next((i for i, word in enumerate(rest) if word in ("|", ">", "&&")), len(rest))]
    if command not in ("report", "completion", "annotate", "compare", "sweep", "probe"):
        after_flag = [
            after for flag, after in itertools.pairwise(rest) if flag in ("--cfg", "--config-dir")
        ]
        assert [
            word
            for word in rest
            if "=" not in word and not word.startswith("-") and word not in after_flag
        ] == []


def test_extras_are_installed_from_the_clone():
    """There is no package of this name on an index."""
    assert [
        page.name
        for page in pages.PAGES
        if re.search(r"pip install ['\"]?jaxsft", page.read_text(encoding="utf-8"))
    ] == []


def test_words_that_people_search_for_are_there():
    text = " ".join(page.read_text(encoding="utf-8") for page in pages.PAGES).lower()
    words = """cuda, gradient checkpointing, gradient accumulation, early stopping, multi-gpu,
    qlora, flash attention, streaming, dpo, callback,
        optuna, vllm, gguf, docker, out of memory, troubleshooting, lm-evaluation-harness, ollama"""
    assert [word for word in re.split(r",\s+", words) if word not in text] == []


def test_the_checks_find_something():
    """A pattern that matches nothing would pass everything."""
    assert len(commands()) >= 6
    text = "".join(page.read_text(encoding="utf-8") for page in WRITTEN)
    assert len(set(FILE.findall(text))) > 30 and len(set(OPTION.findall(text))) > 50
    assert OPTION.findall("`model.layer=2`") == ["model.layer"] and "model.layer" not in _known()


# --- the metric of the page
# --------------------------------------------------------------------------------------------------
def test_the_metric_of_the_page_works(tmp_path, monkeypatch):
    """It is scikit-learn's, of two labels and of many, and of a side that is constant."""
    blocks = pages.blocks("add_a_metric.md")["jaxsft/metrics/matthews.py"]
    metric = pages.load("page_metric", blocks, tmp_path, monkeypatch).METRICS["matthews"]
    rng = np.random.default_rng(0)
    for labels in (2, 5):
        gold, predicted = rng.integers(0, labels, (2, 60))
        for guess in (predicted, gold, np.zeros_like(gold)):
            outputs = Outputs(np.arange(60), {"label": gold, "predicted": guess}, range(labels))
            expected = sklearn.metrics.matthews_corrcoef(gold, guess)
            assert measure(metric, outputs)["matthews"] == pytest.approx(expected, abs=1e-12)


def test_the_metric_of_the_page_is_a_plugin(tmp_path):
    """With the lines at its end, by the option and by what the entry point names."""
    blocks = pages.blocks("add_a_metric.md")
    file = tmp_path / "matthews.py"
    text = blocks["jaxsft/metrics/matthews.py"] + blocks["matthews.py, at its end"]
    file.write_text(text, encoding="utf-8")
    try:
        plugins.use([str(file)])
        metric = plugins.table("metrics")["matthews"]
        place = re.search(r'my_package\.matthews:(\w+)"', blocks["pyproject.toml"])[1]
        assert getattr(sys.modules["jaxsft_plugin_matthews"], place) is metric
    finally:
        plugins.forget()
