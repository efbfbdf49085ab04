"""The stage `pii`: masks personal data that has a form.

It is masked by kind, so that equal values can stay equal.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import ipaddress
import os
import re
from collections import Counter
from collections.abc import Callable
from typing import ClassVar, Optional

from jaxsft.config.option import option
from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError
from jaxsft.prepare.stage import Report, Stage, State, choice, value_of, with_fields
from jaxsft.prepare.text_columns import change_text

# A number stands free of letters and digits of ASCII; Han characters may touch it.
_FREE, _END = r"(?<![0-9A-Za-z])", r"(?![0-9A-Za-z])"
_digit = re.compile(r"\d", re.ASCII)
# takes the place of what was found, for the kinds that are looked for later: of private use, and no
# letter
FILLER = "\ue000"


# --- what a value must fulfil beside its form
# --------------------------------------------------------------------------------------------------
def luhn(digits: str) -> bool:
    """Checks the check digit of payment cards (ISO/IEC 7812-1, annex B)."""
    total = sum(
        int(d) if i % 2 == 0 else sum(divmod(2 * int(d), 10))
        for i, d in enumerate(reversed(digits))
    )
    return total % 10 == 0


def iban(text: str) -> bool:
    """Checks the check digits of a bank account (ISO 13616).

    The number read from its fifth character, letters as 10 to 35, is 1 modulo 97.
    """
    return (
        15 <= len(text) <= 34
        and int("".join(str(int(c, 36)) for c in text[4:] + text[:4])) % 97 == 1
    )


def chinese_id(text: str) -> bool:
    """Checks the birthday and the check character of a Chinese resident identity number.

    GB 11643-1999; ISO 7064, MOD 11-2.
    """
    try:
        datetime.date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    rest = sum(int(digit) * pow(2, 17 - i, 11) for i, digit in enumerate(text[:17])) % 11
    return "10X98765432"[rest] == text[17].upper()


def _address(text: str) -> bool:
    """Returns whether it is an address of IPv4 or IPv6; `std::x` and times are none."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return False
    return found.version == 4 or (any(map(str.isdigit, text)) and sum(map(str.isalnum, text)) > 4)


def _digits(text: str) -> str:
    return re.sub(r"[^0-9A-Za-z]", "", text).upper()


@dataclasses.dataclass(frozen=True)
class PiiKind:
    """A kind of personal data: its form, and what its value must fulfil.

    `plain` is the value that is compared: as if written without blanks and in one case.
    """

    form: re.Pattern[str]
    holds: Callable[[str], bool] = lambda _: True
    plain: Callable[[str], str] = _digits


# In the order in which they are looked for: what is found first is masked first.
KINDS: dict[str, PiiKind] = {
    "email": PiiKind(
        re.compile(
            r"(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,7}\.[A-Za-z]{2,24}(?![\w-])",
            re.ASCII,
        ),
        plain=str.lower,
    ),
    "iban": PiiKind(
        re.compile(rf"{_FREE}[A-Z]{{2}}\d\d(?: ?[A-Z0-9]{{4}}){{2,7}}(?: ?[A-Z0-9]{{1,3}})?{_END}"),
        lambda text: iban(_digits(text)),
    ),
    "cn_id": PiiKind(re.compile(rf"{_FREE}[1-9]\d{{16}}[0-9Xx]{_END}"), chinese_id),
    # Written in one, in fours (13 to 19 digits), or 4-6-5 as American Express does.
    "card": PiiKind(
        re.compile(
            rf"{_FREE}(?:[2-6]\d{{12,18}}|[2-6]\d{{3}}(["
            r" -])\d{4}\1\d{4}\1\d{1,4}(?:\1\d{1,3})?|3\d{3}(["
            rf" -])\d{{6}}\2\d{{5}}){_END}"
        ),
        lambda text: 13 <= len(_digits(text)) <= 19 and luhn(_digits(text)),
    ),
    # Area 000, 666 and 900-999, group 00 and serial 0000 are not given out (Social Security
    # Administration).
    "ssn": PiiKind(
        re.compile(
            r"(?<![\w-])(?!000|666|9)\d{3}([- ])(?!00)\d\d\1(?!0000)\d{4}(?![\w-])", re.ASCII
        )
    ),
    "ip": PiiKind(
        re.compile(
            r"(?<![\w.:-])(?:(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:]))",
            re.ASCII,
        ),
        _address,
        str.lower,
    ),
    "cn_mobile": PiiKind(
        re.compile(rf"{_FREE}(?:\+?86[ -]?)?1[3-9]\d[ -]?\d{{4}}[ -]?\d{{4}}{_END}"),
        plain=lambda text: _digits(text)[-11:],
    ),
    # International (E.164: up to 15 digits), North American with separators, national with a
    # leading 0 and separators.
    "phone": PiiKind(
        re.compile(
            r"(?<![\w+])\+[1-9](?:[ .()/-]{0,2}\d){6,14}(?![\w])"
            r"|(?<!\d )(?<![\w.+-])(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])[2-9]\d\d["
            r" .-]\d{4}(?![\w-])"
            r"|(?<!\d )(?<![\w.,+-])(?:\(0\d{1,4}\)|0\d{1,4})[ /-]\d{3,4}[ -]?\d{3,5}(?![\w-])",
            re.ASCII,
        )
    ),
}


def find(text: str, kinds: list[str]) -> list[tuple[int, int, str, str]]:
    """Returns (start, end, kind, plain value) of everything found, in order, without overlaps."""
    digits = _digit.search(text) is not None  # most texts need no further look
    found: list[tuple[int, int, str, str]] = []
    for name in (
        name for name in KINDS if name in kinds and (digits if name != "email" else "@" in text)
    ):
        kind, at = KINDS[name], 0
        while match := kind.form.search(text, at):
            start, at = match.start(), match.start() + 1
            if (value := _valid(kind, match[0])) is not None:
                at = start + len(value)
                found.append((start, at, name, kind.plain(value)))
                text = text[:start] + FILLER * len(value) + text[at:]
    return sorted(found)


def _valid(kind: PiiKind, text: str) -> str | None:
    """Returns the longest valid part from the start, cut at blanks.

    Words behind an account number may look like more of it.
    """
    while True:
        if kind.holds(text):
            return text
        text, blank, _ = text.rpartition(" ")
        if not blank or not kind.form.fullmatch(text):
            return None


@dataclasses.dataclass(frozen=True)
class Pii(Stage):
    """Masks personal data that can be told by its form: use it before a data set or a model trained
    on it leaves the house.

    Found are e-mail addresses, IBANs (check digits of ISO 13616), payment cards (Luhn), Chinese
    resident identity numbers (check character of GB 11643-1999) and mobile numbers, US social
    security numbers (ranges that are given out), IPv4 and IPv6 addresses, telephone numbers. Names,
    postal addresses and anything without a form are not: a masked data set is not an anonymous one.
    A version such as 1.2.3.4 reads like an address and is masked too.

    A mask is `[EMAIL]` or, with mode=pseudonym, `[EMAIL_kbdmfoap]`: equal values have equal masks,
    in all splits and in `predict`, however they are spaced. The letters are a keyed hash (BLAKE2b).
    Whoever knows the key can try all telephone numbers: give a secret one by `key_env`.

    It works on a text, on the turns of a chat, and on a list of words: there every word that a
    value touches becomes the mask, so that the list keeps its length and tags stay aligned. A text
    with `spans` is an error where something in it would change. Counted are the rows that have a
    kind ("email") and its places ("email, places").
    """

    replayed: ClassVar[bool] = True
    slow: ClassVar[bool] = True

    fields: list[str] = option(
        [],
        "the columns that are masked; empty: the text column",
    )
    kinds: list[str] = option(
        list(KINDS),
        "email | iban | cn_id | card | ssn | ip | cn_mobile | phone",
    )
    mode: str = option("token", "token | pseudonym (equal values keep equal masks)")
    key_env: Optional[str] = option(
        None,
        "the environment variable that holds the key of mode=pseudonym; null: the seed, which is no"
        " secret",
    )

    def check(self) -> None:
        choice("pii", "mode", self.mode, ("token", "pseudonym"))
        for kind in self.kinds:
            choice("pii", "kinds", kind, tuple(KINDS))
        if self.key_env is not None and self.mode == "token":
            raise ConfigError("stages.pii.key_env: mode=token has no key; set mode=pseudonym")
        if self.key_env is not None and not os.environ.get(self.key_env):
            raise ConfigError(
                f"stages.pii.key_env={self.key_env}: there is no such environment variable, or it"
                " is empty"
            )

    def row(self, row: Row, state: State, report: Report) -> Row:
        places: Counter[str] = Counter()
        new = row
        for name in self.fields or [self.context.text]:
            value = value_of(row, name, "stages.pii.fields")
            if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
                new = with_fields(new, **{name: self._words(value, places)})
            else:
                new = change_text(
                    new, name, lambda text: self._text(text, places), "stages.pii.fields"
                )
        for kind, count in places.items():
            report.changed[kind] += 1
            report.changed[f"{kind}, places"] += count
        return new

    def mask(self, kind: str, value: str) -> str:
        if self.mode == "token":
            return f"[{kind.upper()}]"
        secret = os.environ[self.key_env] if self.key_env else str(self.context.seed)
        return f"[{kind.upper()}_{_letters(secret, kind, value)}]"

    def _text(self, text: str, places: Counter[str]) -> str:
        out, at = [], 0
        for start, end, kind, value in find(text, self.kinds):
            places[kind] += 1
            out += [text[at:start], self.mask(kind, value)]
            at = end
        return "".join([*out, text[at:]])

    def _words(self, words: list[str], places: Counter[str]) -> list[str]:
        """Looks for values in the words joined by blanks, so that one over several words is
        found."""
        found = find(" ".join(words), self.kinds)
        out, start = [], 0
        for word in words:
            end, new, at = start + len(word), "", start
            for first, last, kind, value in found:
                if first < end and start < last:
                    new += word[at - start : max(first, at) - start] + self.mask(kind, value)
                    at = min(last, end)
            out.append(new + word[at - start :] if new else word)
            start = end + 1
        places.update(kind for _, _, kind, _ in found)
        return out


@functools.lru_cache(maxsize=2**16)
def _letters(secret: str, kind: str, value: str) -> str:
    """Returns eight letters, never a digit: a mask must not read like another number."""
    key = hashlib.blake2b(secret.encode("utf-8", "backslashreplace"), digest_size=32).digest()
    digest = hashlib.blake2b(
        f"{kind}\0{value}".encode("utf-8", "backslashreplace"), key=key, digest_size=4
    ).hexdigest()
    return digest.translate(str.maketrans("0123456789abcdef", "abcdefghijklmnop"))
