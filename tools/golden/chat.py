"""Golden ids of a real chat template, by transformers: what `tests/data/chat/test_golden_chat.py`
compares ours with.

python tools/golden/chat.py FOLDER FILE     FOLDER with tokenizer.json and tokenizer_config.json;
  needs transformers, which jaxsft does not

Only our own messages, their ids and hashes of what made them are written: nothing of the tokenizer
or of its template.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import transformers

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town on a day; Wetter für „Städte“.",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string"}, "day": {"type": "integer"}},
            "required": ["town"],
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}},
}


def said(role: str, content: str, **more: object) -> dict:
    return {"role": role, "content": content, **more}


def call(name: str, **arguments: object) -> dict:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


ASKED = [
    said("user", "Will it rain in Bern?"),
    said("assistant", "", tool_calls=[call("weather", town="Bern", day=2)]),
]
TOLD = [
    said("tool", '{"rain": 0.3, "sun": "☀"}'),
    said("assistant", "Perhaps: three times in ten."),
]
CASES = {
    "one turn": {"messages": [said("user", "Hello!"), said("assistant", "Hello. What can I do?")]},
    "system and turns": {
        "messages": [
            said("system", "Answer in one word."),
            said("user", "The capital of France?"),
            said("assistant", "Paris"),
            said("user", "And of Japan, in Japanese?\n\n  (kanji)"),
            said("assistant", "東京"),
        ]
    },
    "white space": {
        "messages": [
            said("user", "  two  spaces \t\n"),
            said("assistant", " a\n\n b \n"),
            said("user", ""),
            said("assistant", "x\n"),
        ]
    },
    "many scripts": {
        "messages": [
            said("user", "你好，世界！ مرحبا 🙂 naïve"),
            said("assistant", "3.14159 = π, almost; 2024年1月1日"),
        ]
    },
    "code": {
        "messages": [
            said("user", "Add two numbers."),
            said("assistant", "```python\ndef add(a, b):\n    return a + b\n```\n"),
        ]
    },
    "tools unused": {
        "messages": [said("user", "Hi"), said("assistant", "Hi!")],
        "tools": [WEATHER, CLOCK],
    },
    "tools": {"messages": [*ASKED, *TOLD], "tools": [WEATHER]},
    "tools and system": {
        "messages": [said("system", "Use the tools."), *ASKED, *TOLD],
        "tools": [WEATHER, CLOCK],
    },
    "words before a call": {
        "messages": [
            said("user", "What time is it?"),
            said("assistant", "I will look.", tool_calls=[call("clock")]),
            said("tool", "12:05"),
            TOLD[-1],
        ],
        "tools": [CLOCK],
    },
    "two calls at once": {
        "messages": [
            said("user", "Rain in Bern and in Zürich?"),
            said(
                "assistant",
                "",
                tool_calls=[call("weather", town="Bern"), call("weather", town="Zürich", day=1)],
            ),
            said("tool", "dry"),
            said("tool", "wet"),
            said("assistant", "Only in Zürich."),
        ],
        "tools": [WEATHER],
    },
    "a thought": {
        "messages": [
            said("user", "2 + 2?"),
            said("assistant", "<think>\nTwo and two.\n</think>\n\n4"),
        ],
        "variables": {"open_thinking": True},
    },
    "thoughts": {
        "messages": [
            said("user", "2 + 2?"),
            said("assistant", "4", reasoning_content="Two and two."),
            said("user", "Doubled?"),
            said("assistant", "8", reasoning_content="Four and four,\n\nso eight."),
        ],
        "variables": {"open_thinking": True},
    },
    "some think, some do not": {
        "messages": [
            said("user", "Hi"),
            said("assistant", "Hi."),
            said("user", "3 * 3?"),
            said("assistant", "<think>Thrice.</think>9"),
        ],
        "variables": {"open_thinking": True},
    },
    "thoughts and tools": {
        "messages": [
            ASKED[0],
            said(
                "assistant",
                "",
                reasoning_content="I need the weather.",
                tool_calls=[call("weather", town="Bern")],
            ),
            TOLD[0],
            said("assistant", "Perhaps.", reasoning_content="30 % is perhaps."),
        ],
        "tools": [WEATHER],
        "variables": {"open_thinking": True},
    },
}


def main(folder: str, out: str) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    sha256 = lambda data: hashlib.sha256(data).hexdigest()

    def ids(case: dict, messages: list[dict], prompt: bool) -> list[int]:
        given = {"tools": case.get("tools"), **case.get("variables", {})}
        return tokenizer.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=prompt, return_dict=False, **given
        )

    cases = []
    for name, case in CASES.items():
        messages = case["messages"]
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        prompts = {str(i): ids(case, messages[:i], True) for i in answers}
        cases.append({"name": name, **case, "ids": ids(case, messages, False), "prompts": prompts})
    facts = {
        "made_by": f"transformers {transformers.__version__}",
        "template_sha256": sha256(tokenizer.chat_template.encode()),
        "tokenizer_sha256": sha256((Path(folder) / "tokenizer.json").read_bytes()),
    }
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    Path(out).write_text(
        json.dumps(facts, indent=1)[:-2] + f',\n "cases": [\n{lines}\n]}}\n', encoding="utf-8"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
