"""Says how far a run that generates finds one sentence in a long text, by length and depth.

  jaxsft needle run=DIR filler=FILE.txt [lengths=[256,512,1024]] [depths=[0,0.25,0.5,0.75,1]]
    [trials=20] [needle="The secret number of {key} is {value}."] [keys=[Lisbon,Oslo]]
    [question="What is the secret number of {key}?"] [output=FOLDER] [--json] [options of the run]

A needle is drawn from seed= and its number, the same one in every cell. It is put into the text of
FILE, which begins at another place for each, at the end of a sentence; the question stands behind
the text, all in the run's own template. A length is that of the whole prompt in tokens, one that
does not fit into model.context with the answer is refused. Answers come from the run's own
generation (generate.*). needle.json, needle.md and needle.html are written to FOLDER (default:
RUN/needle).
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from jaxsft import rundir
from jaxsft.commands import from_run
from jaxsft.errors import ConfigError, DataError


def main(arguments: list[str]) -> int:
    from jaxsft.commands.robustness_of_runs import options_of
    from jaxsft.evaluation import needle

    asked = [field.name for field in dataclasses.fields(needle.NeedleOptions)]
    words = [a for a in arguments if a != "--json"]
    own = ("run", "filler", "output", *asked)
    mine, overrides = from_run.arguments(words, own, ("run", "filler"))
    texts = {name: mine[name] for name in ("needle", "question") if name in mine}
    given = {name: mine[name] for name in asked if name in mine and name not in texts}
    options = options_of(needle.NeedleOptions, "needle", given)
    options = dataclasses.replace(options, **texts)
    options.check()
    filler = _text(mine["filler"])

    from jaxsft import api
    from jaxsft.reports import heat_page

    model = api.load(mine["run"], *overrides)
    if not model.task.can_generate:
        raise ConfigError(f"run={mine['run']}: task={model.task.name} generates nothing")
    needle.check_room(options, model.config.model.context, model.answer_limit)
    least = len(model.tokenizer.encode("9" * needle.DIGITS))
    if model.answer_limit < least:
        raise ConfigError(
            f"an answer has {model.answer_limit} tokens at most, but a value has {least}; set"
            f" generate.max_new_tokens={2 * least}"
        )
    report = needle.measure(
        options,
        filler,
        lambda text: model.prompt_ids([text])[0],
        lambda prompts: model.answers_to(prompts, max_new_tokens=model.answer_limit),
        model.config.seed,
        model.config.evaluation.level,
        lambda what: print(what, file=sys.stderr),
    )
    report = {"run": mine["run"], "filler": mine["filler"], **dataclasses.asdict(options), **report}
    content = heat_page.of_needle(report)
    if (folder := from_run.home(model, mine, "needle")) is None:
        from_run.tell_unwritten(mine["run"])
    else:
        rundir.write_json(folder / "needle.json", report)
        rundir.write_text(folder / "needle.md", heat_page.markdown(content))
        heat_page.write_page(folder / "needle.html", content)
    as_json = "--json" in arguments
    print(rundir.json_text(report, indent=1) if as_json else heat_page.markdown(content))
    return 0


def _text(path: str) -> str:
    """Returns the text of a file. Raises DataError where it cannot be read as UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DataError(f"filler={path}: is no text in UTF-8") from None
    except OSError as error:
        raise DataError(f"filler={path}: cannot be read ({error.strerror})") from None
