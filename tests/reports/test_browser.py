"""report.html in a real browser: no sideways scrolling of the page on a phone or a desk, light and
dark, no error, a click opens a cell, and a click on a heading sorts a table.

Needs Chromium (the Debian package `chromium`); without it, these tests are skipped by name.
"""

import functools
import html
import json
import re
import shutil
import subprocess

import pytest

from jaxsft.reports import page
from tests.reports.evaluated_run import beside, evaluated
from tests.reports.fake_run import make

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
         "--v=0")  # fmt: skip
LONG = ["好评" * 30, "a_label_without_any_space_" * 6, "مرحبا بالعالم", "x" * 200, "$5", "ok"]
MANY = [f"card_payment_{i}" for i in range(77)]
# The page is measured in a frame: a window of Chromium is never narrower than 500 pixels.
MEASURE = """
const frame = document.querySelector("iframe"), inner = frame.contentDocument;
const click = inner.querySelector('a[href^="#cell-"]');
let opened = null;
if (click) {
  inner.querySelectorAll("details.cell").forEach((cell) => { cell.open = false; });
  click.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true }));
  const cells = [...inner.querySelectorAll("details.cell[open]")];
  opened = cells.map((cell) => "#" + cell.id).join() === click.getAttribute("href");
}
inner.querySelectorAll("details").forEach((part) => {
  part.removeAttribute("name");
  part.open = true;
});
const hidden = (e) => {
  for (let p = e; p; p = p.parentElement)
    if (frame.contentWindow.getComputedStyle(p).overflowX !== "visible") return true;
};
const edge = inner.documentElement.clientWidth + 1;
const wide = [...inner.querySelectorAll("main *, header *")].filter(
  (e) => e.getBoundingClientRect().right > edge && !hidden(e)
);
document.title = JSON.stringify({
  width: inner.documentElement.clientWidth, scroll: inner.documentElement.scrollWidth, opened,
  wide: wide.slice(0, 3).map((e) => e.outerHTML.slice(0, 80)),
  background: frame.contentWindow.getComputedStyle(inner.body).backgroundColor,
});
"""

SORT = """
const page = document.querySelector("iframe").contentDocument;
const table = page.querySelector("#slices table");
const column = (name) => [...table.tHead.rows[0].cells].findIndex((h) => h.textContent === name);
const names = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
const click = (name) => {
  table.tHead.rows[0].cells[column(name)].querySelector("button").click();
  return names();
};
document.title = JSON.stringify({
  before: names(), up: click("rows"), down: click("rows"), slice: click("slice"),
  said: table.tHead.rows[0].cells[0].getAttribute("aria-sort"),
});
"""


@functools.cache
def works() -> bool:
    if CHROMIUM is None:
        return False
    try:
        return (
            subprocess.run(
                [CHROMIUM, "--version"], capture_output=True, timeout=30, check=False
            ).returncode
            == 0
        )
    except (OSError, subprocess.SubprocessError):
        return False


@pytest.fixture(scope="module", params=["two", "scripts", "dense", "many", "chat", "words"])
def text(request, tmp_path_factory):
    if not works():
        pytest.skip("no Chromium: install the package chromium to see report.html in a browser")
    labels = {
        "two": ["ham", "spam"],
        "scripts": LONG,
        "many": MANY,
        "dense": [f"{n}_of_a_kind" for n in MANY[:20]],
        "chat": None,
        "words": None,
    }[request.param]
    run = make(tmp_path_factory.mktemp("run"), labels, broken=(7, 300))
    if request.param == "words":
        row = {
            "row": 0,
            "tokens": ["قطة", "x" * 300, "好" * 90] * 9,
            "tags": ["B-X", "O", "B-" + "Y" * 99] * 9,
            "prediction": ["O"] * 27,
            "correct": False,
        }
        (run / "predictions" / "test.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    elif labels is None:  # what an untrained model says has no place to break a line
        row = {
            "row": 0,
            "prompt": "قطة" * 60,
            "reference": "\x01" * 99,
            "prediction": "\ufffdx" * 200,
            "correct": False,
            "where": "x" * 99,
        }
        (run / "predictions" / "test.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    return page.write_page(run).read_text("utf-8")


def look(text, folder, width, dark, script=MEASURE):
    """What the page is in a frame of `width` pixels, and what the browser said on its console."""
    frame = (
        f'<iframe style="border:0;width:{width}px;height:900px"'
        f' srcdoc="{html.escape(text)}"></iframe>'
    )
    outer = (
        f'<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">{frame}<script>onload = () =>'
        f" {{ {script} }};</script>"
    )
    (folder / "look.html").write_text(outer, "utf-8")
    command = [CHROMIUM, *FLAGS, f"--blink-settings=preferredColorScheme={0 if dark else 1}",
    f"--user-data-dir={folder / 'profile'}",
               f"--window-size={max(width, 500)},900", "--dump-dom",
               (folder / "look.html").as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    title = re.search(r"<title>(\{.*?)</title>", done.stdout)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert title, f"the page was not measured: {console}"
    return json.loads(html.unescape(title[1])), console


@pytest.mark.parametrize(
    ("width", "dark"), [(400, False), (400, True), (1400, False), (1400, True)]
)
def test_the_page_fits_and_is_quiet(text, tmp_path, width, dark):
    found, console = look(text, tmp_path, width, dark)
    assert console == [] and width - 20 <= found["width"] <= width
    assert found["scroll"] <= found["width"] and found["wide"] == []
    red, green, blue = map(int, re.findall(r"\d+", found["background"])[:3])
    assert (max(red, green, blue) < 60) if dark else (min(red, green, blue) > 220)
    assert found["opened"] in ((True,) if 'href="#cell-' in text else (None,))


def test_a_script_that_is_not_ours_does_not_run(text, tmp_path):
    evil = text.replace(
        "</main>",
        "<script>document.body.style.width = '3000px'; console.log('ran')</script></main>",
    )
    found, console = look(evil, tmp_path, 1400, False)
    assert found["scroll"] <= found["width"] and not any(
        "ran" in line.split('"')[1:2] for line in console
    )
    assert any("Content Security Policy" in line for line in console)


@pytest.fixture(scope="module")
def evaluated_text(tmp_path_factory):
    if not works():
        pytest.skip("no Chromium: install the package chromium to see report.html in a browser")
    return page.write_page(beside(evaluated(tmp_path_factory.mktemp("run")))).read_text("utf-8")


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)])
def test_a_page_with_bounds_fits_and_is_quiet(evaluated_text, tmp_path, width, dark):
    found, console = look(evaluated_text, tmp_path, width, dark)
    assert console == [] and found["opened"]
    assert found["scroll"] <= found["width"] and found["wide"] == []


def test_a_click_on_a_heading_sorts_a_table(evaluated_text, tmp_path):
    found, console = look(evaluated_text, tmp_path, 1280, False, SORT)
    assert console == []
    assert found["before"] == ["source=web", "source=短信", "length 3 to 9"]
    assert found["up"] == ["source=短信", "length 3 to 9", "source=web"]
    assert found["down"] == found["up"][::-1] and found["said"] == "ascending"
    assert found["slice"][0] == "length 3 to 9"
