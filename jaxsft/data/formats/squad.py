"""SQuAD as it is published: a document of articles, paragraphs and questions.

Rajpurkar et al. 2016, arXiv:1606.05250; 2018, arXiv:1806.03822.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jaxsft.data.formats import jsonl
from jaxsft.data.formats.row import Bad, Format, NoOptions, Numbered
from jaxsft.data.formats.source import Source
from jaxsft.data.formats.spans import Problem


def read(source: Source, encoding: str, options: NoOptions) -> Numbered:
    """Reads a row per question: `{"id", "title", "context", "question", "answers"}`.

    `is_impossible` stands there where the file has it; the line is that of its article.

    `answers` is a list of `{"text", "answer_start"}`, empty where the context has no answer
    (`plausible_answers` are left out); a question without the field has no such column. An article,
    a paragraph or a question of another form is `Bad`.
    """
    for found in jsonl.read_document(source, encoding, jsonl.DocumentOptions()):
        if isinstance(found, Bad):
            yield found
            continue
        line, article = found
        for paragraph in _parts(article, "paragraphs"):
            if isinstance(paragraph, Problem):
                yield Bad(line, str(paragraph))
                continue
            for question in _parts(paragraph, "qas"):
                row = _row(article, paragraph, question) if isinstance(question, dict) else question
                yield Bad(line, str(row)) if isinstance(row, Problem) else (line, row)


def _parts(parent: dict[str, Any], key: str) -> Iterator[dict[str, Any] | Problem]:
    found = parent.get(key)
    if not isinstance(found, list):
        yield Problem(f"found {str(found)[:60]!r} at {key!r}, expected a list")
        return
    for part in found:
        yield (
            part
            if isinstance(part, dict)
            else Problem(f"found {str(part)[:60]!r} in {key!r}, expected an object")
        )


def _row(
    article: dict[str, Any], paragraph: dict[str, Any], question: dict[str, Any]
) -> dict[str, Any] | Problem:
    context, asked, name = (
        paragraph.get("context"),
        question.get("question"),
        f"the question {str(question.get('id'))[:40]!r}",
    )
    if not isinstance(context, str) or not isinstance(asked, str):
        return Problem(f"{name} has no text, or its paragraph has none")
    row = {
        "id": question.get("id"),
        "title": article.get("title"),
        "context": context,
        "question": asked,
    }
    row |= {key: question[key] for key in ("answers", "is_impossible") if key in question}
    answers, impossible = row.get("answers"), row.get("is_impossible")
    if "answers" in row and not (
        isinstance(answers, list) and all(isinstance(answer, dict) for answer in answers)
    ):
        return Problem(f"{name} has the answers {str(answers)[:60]}, expected a list of objects")
    if answers is not None and impossible is not None and bool(answers) == bool(impossible):
        return Problem(f"{name} has {len(answers)} answers, and is_impossible is {impossible}")
    return row


def _looks_like(head: bytes) -> bool:
    begin = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return begin.startswith((b"{", b"[")) and all(
        name in head for name in (b'"paragraphs"', b'"context"', b'"qas"')
    )


FORMAT = Format(
    "squad",
    (),
    read,
    "a `question` with its `context` and `answers`, of an article with its `title`",
    looks_like=_looks_like,
    order=140,
)
