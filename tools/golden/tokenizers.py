"""The golden ids of tests/data/tokenizers/golden, by transformers and sentencepiece: `python -m
tools.golden.tokenizers DATA OUT`.

DATA is the folder of real data that the tests read; OUT takes tokenizers.json and the small
SentencePiece models that are trained here.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import tempfile
from pathlib import Path

import sentencepiece
import transformers

TEXTS = [
    "The cat sat on the mat.",
    "  Two  spaces,\ttabs\nand lines \n\n at both ends  ",
    "Zürich, naïve café — ﬁne ½ Ⅷ",
    "今天天气很好,我们去公园散步吧。",
    "東京タワーは333メートルです",
    "don't you've I'll 12345 3.14159",
    "😀👩‍👩‍👧 emoji",
    "a",
    "",
    " ",
    "UPPER lower MiXeD",
    "<s> text that looks special </s> <unk> [CLS] [MASK]",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaa          b",
    "مرحبا بالعالم שלום",
    "e\u0301 combining, \u00a0 no-break, \u200b zero width",
    "def f(x):\n    return x ** 2  # comment",
]
PAIR = ("How old are you?", "Six years old.")
CORPUS = [
    f"{a} {b} {c}."
    for a in ("the old cat", "a young dog", "every bird")
    for b in ("sees", "hears", "finds")
    for c in ("one tree", "two rivers", "no end")
]


def small_models(out: Path) -> None:
    """SentencePiece models of some dozen pieces, with what the real ones lack: user-defined pieces,
    normalisation, the ids of T5 and of XLM-R.
    """
    # capitals to small letters, and a ligature; the usual table alone has 240 kB
    rules = out / "rules.tsv"
    rules.write_text(
        "".join(f"{ord(c):X}\t{ord(c.lower()):X}\n" for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
        + "FB01\t66 69\nA0\t20\nA\t20\n9\t20\n"
    )
    common = {
        "sentence_iterator": None,
        "minloglevel": 2,
        "num_threads": 1,
        "hard_vocab_limit": False,
        "normalization_rule_name": "identity",
    }
    variants = {
        "unigram": {
            "model_type": "unigram",
            "vocab_size": 60,
            "user_defined_symbols": ["@@", "<tool>"],
            "normalization_rule_tsv": str(rules),
        },
        "bpe_bytes": {
            "model_type": "bpe",
            "vocab_size": 340,
            "byte_fallback": True,
            "user_defined_symbols": ["@@"],
            "remove_extra_whitespaces": False,
        },
        "bpe_plain": {
            "model_type": "bpe",
            "vocab_size": 60,
            "add_dummy_prefix": False,
            "pad_id": 3,
            "control_symbols": ["<sep>"],
        },
        "t5": {
            "model_type": "unigram",
            "vocab_size": 60,
            "pad_id": 0,
            "eos_id": 1,
            "unk_id": 2,
            "bos_id": -1,
            "normalization_rule_tsv": str(rules),
        },
        "xlmr": {"model_type": "unigram", "vocab_size": 60, "normalization_rule_tsv": str(rules)},
    }
    for name, options in variants.items():
        common["sentence_iterator"] = iter(CORPUS)
        sentencepiece.SentencePieceTrainer.train(
            model_prefix=str(out / name), **{**common, **options}
        )
        (out / f"{name}.vocab").unlink()
    rules.unlink()


def by_transformers(files: dict[str, Path], kind: str, **options) -> dict:
    """Ids of the texts without and of the pair with special tokens; text that looks special is left
    out: it is no plain text there.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, file in files.items():
            shutil.copy(file, Path(folder) / name)
        (Path(folder) / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": kind, **options})
        )
        tokenizer = getattr(transformers, kind).from_pretrained(folder)
        found = {
            text: tokenizer.encode(text, add_special_tokens=False)
            for text in TEXTS
            if not text.startswith("<s>")
        }
        pair = tokenizer(*PAIR, return_token_type_ids=True)
        return {
            "ids": found,
            "single": tokenizer.encode(PAIR[0]),
            "pair": pair["input_ids"],
            "types": pair["token_type_ids"],
            "rows": len(tokenizer),
        }


def by_sentencepiece(file: Path) -> dict:
    model = sentencepiece.SentencePieceProcessor(model_file=str(file))
    texts = [*TEXTS, "a @@ b@@c @@", "<tool> @@@"]
    ids = {text: model.encode(text) for text in texts}
    return {
        "ids": ids,
        "decoded": {text: model.decode(found) for text, found in ids.items()},
        "rows": len(model),
    }


def main(data: Path, out: Path) -> None:
    logging.disable(logging.WARNING)
    small_models(out)
    bert, gpt2, mistral = data / "tok_bert", data / "tok_gpt2", data / "tok_mistral"
    byte_files = {"vocab.json": gpt2 / "vocab.json", "merges.txt": gpt2 / "merges.txt"}
    golden = {
        "transformers": {
            "bert_uncased": by_transformers(
                {"vocab.txt": bert / "bert-base-uncased.vocab.txt"},
                "BertTokenizer",
                do_lower_case=True,
            ),
            "bert_cased": by_transformers(
                {"vocab.txt": bert / "bert-base-cased.vocab.txt"},
                "BertTokenizer",
                do_lower_case=False,
            ),
            "bert_chinese": by_transformers(
                {"vocab.txt": bert / "bert-base-chinese.vocab.txt"},
                "BertTokenizer",
                do_lower_case=True,
            ),
            "gpt2": by_transformers(byte_files, "GPT2Tokenizer"),
            "gpt2_space": by_transformers(byte_files, "GPT2Tokenizer", add_prefix_space=True),
            "mistral": by_transformers(
                {"tokenizer.model": mistral / "tokenizer.model.v1"}, "LlamaTokenizer"
            ),
            "t5": by_transformers({"spiece.model": out / "t5.model"}, "T5Tokenizer"),
            "xlmr": by_transformers(
                {"sentencepiece.bpe.model": out / "xlmr.model"}, "XLMRobertaTokenizer"
            ),
            "minimind": by_transformers(
                {f: data / "tok_minimind" / f for f in ("tokenizer.json",)},
                "PreTrainedTokenizerFast",
            ),
        },
        "sentencepiece": {
            "mistral_v1": by_sentencepiece(mistral / "tokenizer.model.v1"),
            "mistral_v3": by_sentencepiece(mistral / "mistral_instruct_tokenizer_240323.model.v3"),
            "clue": by_sentencepiece(bert / "cluecorpussmall_spm.model"),
            **{
                name: by_sentencepiece(out / f"{name}.model")
                for name in ("unigram", "bpe_bytes", "bpe_plain")
            },
        },
    }
    text = json.dumps(golden, ensure_ascii=True, indent=None, separators=(",", ":"))
    (out / "tokenizers.json").write_text(text.replace('"ids":', '\n"ids":') + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
