"""The report of a sweep as a page: in a real browser, and what it says."""

import re

import pytest

from jaxsft.reports import sweep_page
from jaxsft.sweeps import analysis
from tests.reports.test_browser import look, works
from tests.sweeps.fake_sweep import Made, make

SORT = """
const page = document.querySelector("iframe").contentDocument;
const table = page.querySelector("#trials table");
const head = [...table.tHead.rows[0].cells].find((h) => h.textContent === "validation/accuracy");
const column = head.cellIndex;
const values = () => [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.sort ?? "");
head.querySelector("button").click();
const up = values();
head.querySelector("button").click();
document.title = JSON.stringify({ up, down: values() });
"""
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    words = {0.0: "a_very_long_value_" * 6, 0.5: EVIL}
    arms = [
        {"optim.learning_rate": rate, "model.dropout": d, "x": words[d]}
        for rate in (1e-5, 3e-4, 1e-2)
        for d in (0.0, 0.5)
    ]  # fmt: skip
    broken = {0: "failed", 3: "started", 5: "nan", 7: "no_run"}
    folder = make(tmp_path_factory.mktemp("sweep"), Made(arms=arms, seeds=(0, 1, 2), broken=broken))
    return analysis.write_report(folder).read_text("utf-8")


@pytest.mark.parametrize(
    ("width", "dark"), [(390, False), (390, True), (1280, False), (1280, True)]
)
def test_the_page_fits_and_is_quiet(text, tmp_path, width, dark):
    if not works():
        pytest.skip("no Chromium: install the package chromium to see report.html in a browser")
    found, console = look(text, tmp_path, width, dark)
    assert console == [] and found["scroll"] <= found["width"] and found["wide"] == []
    red, green, blue = map(int, re.findall(r"\d+", found["background"])[:3])
    assert (max(red, green, blue) < 60) if dark else (min(red, green, blue) > 220)


def test_a_click_on_a_heading_sorts_the_trials(text, tmp_path):
    if not works():
        pytest.skip("no Chromium: install the package chromium to see report.html in a browser")
    found, console = look(text, tmp_path, 1280, False, SORT)
    numbers = [float(value) for value in found["up"] if value]
    assert console == [] and numbers == sorted(numbers) and len(numbers) == 14
    assert [float(v) for v in found["down"] if v] == numbers[::-1]
    assert found["up"][14:] == found["down"][14:] == [""] * 4  # what has no number is last


def test_nothing_is_loaded_and_nothing_of_a_sweep_is_markup(text):
    assert EVIL not in text and "&lt;script&gt;alert(1)" in text
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", text) and "@import" not in text
    assert "default-src 'none'" in text


def test_all_sections_are_there(text):
    ids = re.findall(r'<section id="(\w+)">', text)
    assert ids == [
        "result", "arms", "comparisons", "options", "curves", "cost", "test", "trials", "method",
    ]  # fmt: skip
    assert "train.batch_<wbr>size=0: is too few" in text  # the reason of the trial that failed
    assert "Parallel coordinates" in text and 'class="line raw band s0"' in text


def test_parallel_coordinates_place_numbers_by_powers_and_words_in_order():
    rows = [[1e-5, "b"], [1e-3, "a"], [1e-1, "b"]]
    plot = sweep_page.parallel(
        ["rate", "word", "score"], rows, [0.1, 0.3, 0.2], ["x", "y", "z"], False
    )
    assert [axis.at for axis in plot.axes] == [0, 50, 100]
    assert [thread.tip for thread in plot.threads] == ["x", "z", "y"]  # the best on top
    assert [thread.shade for thread in plot.threads] == [0, 0.5, 1]
    middle = plot.threads[2].path.removeprefix("M").split("L")
    assert middle[0] == "0.0 500.0" and middle[1] == "500.0 250.0"
    less = sweep_page.parallel(
        ["rate", "word", "score"], rows, [0.1, 0.3, 0.2], ["x", "y", "z"], True
    )
    assert [thread.tip for thread in less.threads] == ["y", "z", "x"]


def test_of_many_trials_the_best_are_drawn():
    rows, values = [[float(i)] for i in range(1000)], [float(i) for i in range(1000)]
    plot = sweep_page.parallel(["x", "y"], rows, values, [str(i) for i in range(1000)], False)
    assert len(plot.threads) == sweep_page.MOST_LINES and plot.left_out == 600
    assert plot.threads[-1].tip == "999" and plot.threads[0].tip == "600"
