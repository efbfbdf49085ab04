"""Changes the files of small tokenizers, and tells where reading text differs from the `tokenizers`
library, or where a folder is refused otherwise than by one sentence.

    python -m tools.fuzz_tokenizers [cases=1000] [seed=0]

A byte-level BPE, a BPE with byte fallback, a WordPiece and a Unigram model are changed in one to
three places of tokenizer.json: steps and options of other kinds, flags and contents of added
tokens, values of other types, damage to the text. Opening a folder ends in a tokenizer or in one
sentence of ConfigError that names the file. With a tokenizer, the ids of texts that hold no special
token, framed and bare, are those of the library. A case follows from seed and number.
"""

from __future__ import annotations

import collections
import copy
import json
import random
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import trainers as learn

from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError, JaxsftError
from tools.fuzz import cut, flip, insert, repeat

SECONDS, LONGEST = 10, 2000
SPECIAL = ("<pad>", "<unk>", "[CLS]", "[SEP]")
CORPUS = [
    "the cat sat on a mat",
    "Über die 12 Katzen, e\u0301t 東京",
    "def f(x):\n    return x",
] * 9
TEXTS = (
    "the cat",
    "  a  mat\n\n",
    "ÜBER e\u0301 é",
    "東京 x12",
    "think>the",
    "a\u2581b\t.",
    "",
    "😀 \0 cats",
)
STRANGE: tuple[Any, ...] = (None, True, False, 0, -1, 3, 0.5, 2**40, "", "x", [], {}, [[]], ["a"])
STRANGE += ({"type": "Sequence"}, {"type": "Lowercase"}, "a" * 3000, "\u2581", "##", "@@")
STEPS: dict[str, tuple[Any, ...]] = {
    "normalizer": (
        None,
        {"type": "NFC"},
        {"type": "NFKC"},
        {"type": "Lowercase"},
        {"type": "StripAccents"},
        {"type": "Strip", "strip_left": True, "strip_right": True},
        {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": False,
        },
        {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}]},
    ),
    "pre_tokenizer": (
        None,
        {"type": "Whitespace"},
        {"type": "WhitespaceSplit"},
        {"type": "BertPreTokenizer"},
        {"type": "Digits", "individual_digits": True},
        {"type": "Punctuation", "behavior": "Isolated"},
        *(
            {"type": "ByteLevel", "add_prefix_space": x, "trim_offsets": True, "use_regex": x != y}
            for x in (True, False)
            for y in (True, False)
        ),
        *(
            {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": x, "split": True}
            for x in ("always", "first", "never")
        ),
    ),
    "post_processor": (
        None,
        {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        {
            "type": "RobertaProcessing",
            "sep": ["[SEP]", 3],
            "cls": ["[CLS]", 2],
            "trim_offsets": True,
            "add_prefix_space": False,
        },
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
    ),
}
MODEL: dict[str, tuple[Any, ...]] = {
    "unk_token": (None, "<unk>", "a", "none"),
    "unk_id": (None, 0, 1, 5),
    "dropout": (None, 0.0, 0.3),
    "fuse_unk": (True, False),
    "byte_fallback": (True, False),
    "ignore_merges": (True, False),
    "continuing_subword_prefix": (None, "", "##"),
    "end_of_word_suffix": (None, "", "</w>"),
    "max_input_chars_per_word": (1, 3, 100),
}
CONTENTS = (
    "<think>",
    "think>",
    "the cat",
    "cat",
    "a",
    "  ",
    "\n\n",
    "é",
    "É",
    "\u2581a",
    "##s",
    "東",
)


class Hang(BaseException):
    """A reader that does not end."""


def _ring(*_: Any) -> None:
    raise Hang


def bases() -> list[dict[str, Any]]:
    """Returns the content of tokenizer.json of each kind of model."""
    found = []
    for model, trainer, normalizer, before, after in (
        (
            models.BPE(),
            learn.BpeTrainer(
                vocab_size=300,
                special_tokens=list(SPECIAL),
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            ),
            None,
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            decoders.ByteLevel(),
        ),
        (
            models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True),
            learn.BpeTrainer(
                vocab_size=90,
                special_tokens=[*SPECIAL, *(f"<0x{i:02X}>" for i in range(256))],
                show_progress=False,
            ),
            normalizers.Sequence(
                [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
            ),
            None,
            decoders.Sequence(
                [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
            ),
        ),
        (
            models.WordPiece(unk_token="<unk>"),
            learn.WordPieceTrainer(
                vocab_size=90, special_tokens=list(SPECIAL), show_progress=False
            ),
            normalizers.BertNormalizer(),
            pre_tokenizers.BertPreTokenizer(),
            decoders.WordPiece(),
        ),
        (
            models.Unigram(),
            learn.UnigramTrainer(
                vocab_size=90, special_tokens=list(SPECIAL), unk_token="<unk>", show_progress=False
            ),
            normalizers.NFKC(),
            pre_tokenizers.Metaspace(),
            decoders.Metaspace(),
        ),
    ):
        one = tokenizers.Tokenizer(model)
        one.pre_tokenizer = before or pre_tokenizers.WhitespaceSplit()
        one.train_from_iterator(CORPUS, trainer)
        document = json.loads(one.to_str())
        made = tokenizers.Tokenizer.from_str(json.dumps(document))
        if normalizer is not None:
            made.normalizer = normalizer
        made.decoder = after
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B [SEP]",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
        made.add_tokens([AddedToken("<think>", special=False, normalized=False)])
        document = json.loads(made.to_str())
        found.append(document | ({"pre_tokenizer": None} if before is None else {}))
    # bytes are pieces of the vocabulary as a rule, and special tokens in one of the models
    ordinary = [x for x in found[1]["added_tokens"] if not x["content"].startswith("<0x")]
    return [*found, found[1] | {"added_tokens": ordinary}]


def changed(rng: random.Random, document: dict[str, Any]) -> dict[str, Any]:
    """Returns the document with one thing otherwise."""
    out = copy.deepcopy(document)
    how = rng.choice(("step", "step", "model", "flag", "flag", "token", "value", "drop"))
    if how == "step":
        step = rng.choice(list(STEPS))
        out[step] = rng.choice(STEPS[step])
    elif how == "model":
        key = rng.choice(list(MODEL))
        out["model"][key] = rng.choice(MODEL[key])
    elif how == "flag" and out["added_tokens"]:
        token = rng.choice(out["added_tokens"])
        flag = rng.choice(("special", "lstrip", "rstrip", "single_word", "normalized"))
        token[flag] = rng.random() < 0.5
    elif how == "token":
        size = 1 + max(
            [token["id"] for token in out["added_tokens"]] + [len(out["model"]["vocab"]) - 1]
        )
        flags = {
            flag: rng.random() < 0.4
            for flag in ("special", "lstrip", "rstrip", "single_word", "normalized")
        }
        out["added_tokens"].append({"id": size, "content": rng.choice(CONTENTS), **flags})
    else:
        inner, key = out, rng.choice(list(out))
        for _ in range(3):
            part = inner[key]
            if rng.random() < 0.3 or not part or not isinstance(part, (dict, list)):
                break
            inner, key = (
                part,
                rng.choice(list(part) if isinstance(part, dict) else range(len(part))),
            )
        if how == "drop":
            del inner[key]
        else:
            inner[key] = rng.choice(STRANGE)
    return out


def compared(folder: Path) -> tuple[str, str]:
    """(outcome, what is wrong or "")."""
    file = folder / "tokenizer.json"
    try:
        ours = Tokenizer.load(folder)
    except ConfigError as error:
        message = str(error)
        if "\n" in message or len(message) > LONGEST or str(folder) not in message:
            return "no sentence", f"{len(message)} characters: {message[:300]!r}"
        return "refused", ""
    try:
        theirs = tokenizers.Tokenizer.from_file(str(file))
    except Exception:  # of truncation and padding, which nothing here reads
        return "the library fails", ""
    theirs.no_truncation()
    theirs.no_padding()
    plain = theirs.normalizer.normalize_str if theirs.normalizer else str
    forms = lambda text: {text.casefold(), plain(text).casefold()}
    special = {one.strip() for text in ours.special_strings for one in forms(text)}
    outcome = "equal"
    for text in TEXTS:
        # special tokens are spelled out here
        if any(one in form or not one for one in special for form in forms(text)):
            continue
        try:
            mine = ours.encode(text)
        except JaxsftError as error:
            outcome = "refused at a text"
            if "\n" in str(error) or len(str(error)) > LONGEST:
                return "no sentence", str(error)[:300]
            continue
        if (wanted := theirs.encode(text, add_special_tokens=False).ids) != mine:
            return "differs", f"{text!r}: {mine}, expected {wanted}"
        framed = theirs.encode(text)
        if (found := ours.wrap(mine)).ids != framed.ids:
            return "differs framed", f"{text!r}: {found.ids}, expected {framed.ids}"
        # which are special, roles of the config decide too
        back, wanted = ours.decode(mine, False), theirs.decode(mine, skip_special_tokens=False)
        if back != wanted:
            return "differs decoded", f"{mine}: {back!r}, expected {wanted!r}"
    return outcome, ""


def check(folder: Path) -> tuple[str, str]:
    """As `compared`, with hangs and exceptions."""
    signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        return compared(folder)
    except Hang:
        return "no end", f"after {SECONDS} s"
    except Exception:
        return "traceback", traceback.format_exc(limit=-3)
    except BaseException as error:  # a panic of the library is no Exception
        if type(error).__name__ != "PanicException":
            raise
        return "panic", str(error)[:300]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def main(arguments: Sequence[str]) -> int:
    given = dict(argument.split("=", 1) for argument in arguments)
    cases, seed, failed = int(given.get("cases", 1000)), int(given.get("seed", 0)), 0
    counts: collections.Counter[str] = collections.Counter()
    documents, folder = bases(), Path(tempfile.mkdtemp(prefix="fuzz_tokenizers_"))
    roles = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(roles), encoding="utf-8")
    for number in range(cases):
        rng = random.Random(f"{seed}/{number}")
        kind = rng.randrange(len(documents))
        document = documents[kind]
        try:
            for _ in range(rng.choice((1, 1, 2, 3))):
                document = changed(rng, document)
        except (TypeError, KeyError, AttributeError):
            pass  # what was there has been taken away
        content = json.dumps(document).encode("utf-8", "surrogatepass")
        if rng.random() < 0.1:
            content = rng.choice((flip, cut, insert, repeat))(rng, content)
        (folder / "tokenizer.json").write_bytes(content)
        outcome, wrong = check(folder)
        counts[outcome] += 1
        if wrong:
            failed += 1
            print(
                f"seed={seed} case {number} (model {kind}): {outcome}: {wrong.strip()}", flush=True
            )
    print(f"{cases} cases, {failed} failures: {dict(counts)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
