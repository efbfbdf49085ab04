import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.stage import Context
from jaxsft.prepare.stages.pii import KINDS, chinese_id, find, iban, luhn
from tests.growth import is_linear
from tests.prepare.harness import make, one, texts

# Test numbers that issuers and standards publish for the purpose.
FOUND = [
    ("email", "Jo.Doe+x@mail.example.org"),
    ("iban", "DE89 3704 0044 0532 0130 00"),
    ("iban", "GB82WEST12345698765432"),
    ("cn_id", "11010519491231002X"),
    ("card", "4111 1111 1111 1111"),
    ("card", "378282246310005"),
    ("ssn", "078-05-1120"),
    ("ip", "192.168.0.255"),
    ("ip", "2001:db8::ff00:42:8329"),
    ("cn_mobile", "13812345678"),
    ("cn_mobile", "+86 138 1234 5678"),
    ("phone", "+49 30 901820"),
    ("phone", "(212) 555-2368"),
    ("phone", "0171 1234567"),
    ("phone", "010-12345678"),
]


@pytest.mark.parametrize(("kind", "value"), FOUND)
@pytest.mark.parametrize(
    ("before", "after"), [("", ""), ("Call ", ", please. EUR 20"), ("x (", ")"), ("号码", "。")]
)
def test_a_value_is_found_wherever_it_stands(kind, value, before, after):
    found = find(before + value + after, list(KINDS))
    assert [(start, end, name) for start, end, name, _ in found] == [
        (len(before), len(before) + len(value), kind)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",  # Luhn
        "DE88 3704 0044 0532 0130 00",  # check digits
        "110105194912310021",  # check character
        "11010519491331002X",  # month 13
        "000-12-3456 666-12-3456 912-12-3456 123-00-4567 123-45-0000",
        "256.1.1.1 12:30:45 std::vector a::b",
        "in 2019-12-24 at 10:15, 1,000,000 of 3.1415926",
        "me@home user@localhost @handle a@b",
        "12812345678 123456789012345678901234567890",
        "",
        "pages 100-120 and 2000-2010",
    ],
)
def test_what_only_looks_like_it_stays(text):
    assert find(text, list(KINDS)) == []


@given(st.integers(0, 10**15 - 1))
def test_exactly_one_check_digit_fits(number):
    digits = f"{number:015d}"
    assert sum(luhn(digits + str(d)) for d in range(10)) == 1
    assert (
        sum(iban(f"DE{check:02d}{digits[:9]}{number % 10**9:09d}") for check in range(2, 99)) == 1
    )
    person = f"110105199001{1 + number % 28:02d}{number % 1000:03d}"
    assert sum(chinese_id(person + c) for c in "0123456789X") == 1


def test_masks_by_token_count_by_kind():
    rows, report = one(make("pii"), "a@b.org or c@d.org", "none", "call +49 30 901820")
    assert texts(rows) == ["[EMAIL] or [EMAIL]", "none", "call [PHONE]"]
    assert report.changed == {"email": 1, "email, places": 2, "phone": 1, "phone, places": 1}
    assert texts(one(make("pii", kinds=["phone"]), "a@b.org")[0]) == ["a@b.org"]


def test_pseudonyms_are_equal_where_values_are_and_only_there(monkeypatch):
    text = "A@b.org a@B.org c@b.org 4111111111111111 4111-1111-1111-1111"
    first, second, third, card, again = texts(one(make("pii", mode="pseudonym"), text)[0])[
        0
    ].split()
    assert first == second != third and card == again
    other = texts(one(make("pii", Context(seed=1), mode="pseudonym"), text)[0])[0].split()
    assert not {first, third, card} & set(other)
    monkeypatch.setenv("PII_KEY", "secret")
    secret = texts(one(make("pii", mode="pseudonym", key_env="PII_KEY"), text)[0])[0].split()
    assert not {first, third, card} & set(secret) and secret[0] == secret[1]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from([value for _, value in FOUND] + ["and", "12", "+", "-"]), max_size=6),
    st.sampled_from(["token", "pseudonym"]),
)
def test_masked_twice_is_masked_once(parts, mode):
    rows, _ = one(make("pii", mode=mode), " ".join(parts))
    again, report = one(make("pii", mode=mode), rows[0].fields["text"])
    assert texts(again) == texts(rows) and not report.changed


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [word for _, value in FOUND for word in value.split()] + ["and", "mailto:a@b.org,", "x"]
        ),
        min_size=1,
        max_size=12,
    )
)
def test_words_keep_their_number_and_say_what_the_text_says(words):
    rows, report = one(
        make("pii", fields=["tokens"]), {"tokens": words, "tags": ["O"] * len(words)}
    )
    masked = rows[0].fields["tokens"]
    assert len(masked) == len(words)
    found = find(" ".join(words), list(KINDS))
    assert sum(report.changed[f"{kind}, places"] for kind in KINDS) == len(found)
    assert find(" ".join(masked), list(KINDS)) == [] or found


def test_a_value_over_several_words_masks_each():
    rows, _ = one(
        make("pii", fields=["tokens"]), {"tokens": ["call", "+49", "30", "901820", "<a@b.org>"]}
    )
    assert rows[0].fields["tokens"] == ["call", "[PHONE]", "[PHONE]", "[PHONE]", "<[EMAIL]>"]


def test_spans_and_chats():
    with pytest.raises(DataError, match=r"points into 'text'.*stages.pii.fields"):
        one(make("pii"), {"text": "a@b.org", "spans": [[0, 7, "X"]]})
    rows, _ = one(
        make("pii", fields=["messages"]),
        {"messages": [{"role": "user", "content": "I am a@b.org"}]},
    )
    assert rows[0].fields["messages"][0]["content"] == "I am [EMAIL]"


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "x"},
        {"kinds": ["name"]},
        {"key_env": "HOME"},
        {"mode": "pseudonym", "key_env": "NO_SUCH_VARIABLE"},
    ],
)
def test_impossible_options(options):
    with pytest.raises(ConfigError, match=r"stages.pii"):
        make("pii", **options)


@pytest.mark.parametrize(
    "piece", ["1", "1 ", "+1", "a@", "a.", "AB12", "AB12 ", "1.", "a:", "0-", "(0", "4111-"]
)
def test_time_is_linear_in_the_length(piece):
    stage = make("pii")
    assert is_linear(lambda n: one(stage, piece * (n // len(piece))))
