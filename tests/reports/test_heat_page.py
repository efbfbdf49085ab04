"""Heat maps of `jaxsft transfer` and `jaxsft needle`: cells, marks, what comes from the data."""

from jaxsft.reports import heat_page

EVIL = "<script>x</script>"


def entry(value, **more):
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 20, **more}


def transfer():
    return {
        "number": "accuracy",
        "lower_is_better": False,
        "level": 0.95,
        "replicates": 1000,
        "seed": 0,
        "paired": True,
        "rows": {"de": 20, EVIL: 1021},
        "cells": {
            "de": {"de": entry(0.9, own=True), EVIL: entry(0.5, own=False)},
            EVIL: {"de": entry(0.58, own=False), EVIL: {"value": 0.7, "low": None, "own": True}},
        },
        "gain": {"sets": {"de": entry(0.3)}, "mean": entry(0.25)},
        "gaps": {
            "de": {
                "best": "de",
                "worst": EVIL,
                "best_minus_worst": entry(0.4),
                "best_minus_mean": entry(0.2),
            }
        },
        "consistency": {
            "de": {
                "measure": "same",
                "sentences": 20,
                "pairs": [{"a": "de", "b": EVIL, "by_chance": 0.25, **entry(0.8)}],
            }
        },
    }


def test_the_page_of_a_matrix():
    content = heat_page.of_transfer(transfer())
    first, second = content["maps"]
    strengths = [[c["strength"] for c in row["cells"]] for row in first["rows"]]
    assert strengths == [[70, 0], [14, 35]]
    assert [[c["own"] for c in row["cells"]] for row in first["rows"]] == [
        [True, False], [False, True],
    ]  # fmt: skip
    assert [c["text"] for c in second["rows"][0]["cells"]] == ["–", "0.800"]
    page = heat_page.render(content)
    assert "20 of 1,021 rows" in page and "20 of 20" not in page
    assert EVIL not in page and page.count('class="own"') == 2 and "+0.250" in page
    told = heat_page.markdown(content)
    assert "**0.900 [0.800, 1.000]**" in told and "**0.700**" in told and "0.250 to 0.250" in told


def test_the_page_of_needles():
    cells = [
        {"length": n, "depth": d, "exact": entry(0.5), "contained": entry(1.0)}
        for n in (256, 512)
        for d in (0.0, 0.5)
    ]
    content = heat_page.of_needle({"cells": cells, "trials": 4, "level": 0.95})
    exact, contained = content["maps"]
    assert exact["columns"] == ["256", "512"] and [r["name"] for r in exact["rows"]] == ["0", "0.5"]
    assert {c["strength"] for r in exact["rows"] for c in r["cells"]} == {35}
    assert {c["strength"] for r in contained["rows"] for c in r["cells"]} == {70}
    assert "4 needles in each cell" in heat_page.markdown(content)
