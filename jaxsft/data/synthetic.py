"""The demo's instruction data: eight small skills in English and Chinese, made from a seed.

Prompts never repeat.

Every prompt is put together from small word lists, and the list of all prompts of a skill is far
longer than its words: a row that was held out is a new combination of parts that were all seen. A
small byte-level Transformer therefore learns the rows from scratch within a minute, and its exact
match on held-out rows says that training, packing, masking and decoding all work.
"""

import itertools
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from jaxsft.errors import ConfigError
from jaxsft.rundir import atomic_lines, json_text

COLOURS = {
    "red": "红",
    "blue": "蓝",
    "green": "绿",
    "black": "黑",
    "white": "白",
    "yellow": "黄",
    "gray": "灰",
    "pink": "粉",
}
ANIMALS = {"cat": "猫", "dog": "狗", "bird": "鸟", "fish": "鱼", "horse": "马", "cow": "牛",
           "pig": "猪", "duck": "鸭", "bear": "熊", "tiger": "虎", "wolf": "狼",
           "lion": "狮"}  # fmt: skip
OPPOSITES_EN = (("big", "small"), ("old", "young"), ("fast", "slow"), ("good", "bad"),
                ("clean", "dirty"), ("strong", "weak"), ("happy", "sad"),
                ("wild", "tame"))  # fmt: skip
OPPOSITES_ZH = ("大小", "老幼", "快慢", "好坏", "净脏", "强弱", "胖瘦", "高矮")
NAMES_EN = (
    "Tom",
    "Ann",
    "Sam",
    "Eva",
    "Max",
    "Lily",
    "Jack",
    "Rose",
    "Ben",
    "Mia",
    "Leo",
    "Amy",
    "Dan",
    "Kate",
)
NAMES_ZH = (
    "小明",
    "小红",
    "小华",
    "小丽",
    "小军",
    "小芳",
    "阿强",
    "阿珍",
    "老王",
    "老李",
    "小雪",
    "小兰",
    "阿华",
    "阿玉",
)
DAYS_EN = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
DAYS_ZH = tuple("星期" + day for day in "一二三四五六日")
MONTHS_EN = ("January", "February", "March", "April", "May", "June",
             "July", "August", "September", "October", "November", "December")  # fmt: skip
# 十一 and 十二 hold the signs of others: too hard for one minute
MONTHS_ZH = tuple(month + "月" for month in "一二三四五六七八九十")
THINGS_EN = (
    "soup",
    "film",
    "book",
    "song",
    "game",
    "trip",
    "room",
    "food",
    "shop",
    "play",
    "tea",
    "show",
    "park",
    "cake",
)
THINGS_ZH = (
    "汤",
    "电影",
    "书",
    "歌",
    "游戏",
    "旅行",
    "房间",
    "菜",
    "商店",
    "戏",
    "茶",
    "节目",
    "公园",
    "蛋糕",
)
MOODS_EN = {"great": "good", "lovely": "good", "superb": "good", "fine": "good", "nice": "good",
            "perfect": "good", "fun": "good",
            "awful": "bad", "boring": "bad", "terrible": "bad", "poor": "bad", "ugly": "bad",
            "nasty": "bad", "dull": "bad"}  # fmt: skip
MOODS_ZH = {"很棒": "好评", "真好": "好评", "不错": "好评", "完美": "好评", "太赞了": "好评",
            "我喜欢": "好评",
            "糟糕": "差评", "很差": "差评", "太烂了": "差评", "失望": "差评", "难受": "差评",
            "我讨厌": "差评"}  # fmt: skip
COUNTED = {"cat": "猫", "dog": "狗", "cow": "牛", "pig": "猪", "cup": "杯", "hat": "帽",
           "pen": "笔", "egg": "蛋", "bus": "车", "bag": "包", "box": "盒",
           "key": "匙"}  # fmt: skip
MOST_COUNTED = 4

Pair = tuple[str, str]


def _asked(templates: tuple[str, ...], subject: str, answer: str) -> Iterator[Pair]:
    return ((template.format(subject), answer) for template in templates)


def _translate(language: str) -> Iterator[Pair]:
    for (colour, hue), (animal, beast) in itertools.product(COLOURS.items(), ANIMALS.items()):
        english, chinese = f"{colour} {animal}", hue + beast
        if language == "en":
            yield from _asked(
                ("Translate: {}", "{} in Chinese", "Chinese for {}?"), english, chinese
            )
        else:
            yield from _asked(("翻译:{}", "{}的英文", "英文怎么说{}?"), chinese, english)


def _opposite(language: str) -> Iterator[Pair]:
    animals = ANIMALS if language == "en" else ANIMALS.values()
    for (first, second), animal in itertools.product(
        OPPOSITES_EN if language == "en" else OPPOSITES_ZH, animals
    ):
        for word, other in ((first, second), (second, first)):
            if language == "en":
                yield from _asked(
                    ("Opposite: {}", "Not a {} but a"), f"{word} {animal}", f"{other} {animal}"
                )
            else:
                yield from _asked(("反义:{}", "不是{}而是"), word + animal, other + animal)


def _compare(language: str) -> Iterator[Pair]:
    for a, b in itertools.permutations(range(1, 9), 2):
        large, small = str(max(a, b)), str(min(a, b))
        if language == "en":
            yield from (
                (f"Which is larger, {a} or {b}?", large),
                (f"Which is smaller, {a} or {b}?", small),
            )
            yield from ((f"{a} or {b}: the larger?", large), (f"{a} or {b}: the smaller?", small))
            yield from ((f"Larger: {a}, {b}", large), (f"Smaller: {a}, {b}", small))
        else:
            yield from ((f"{a}和{b}哪个大?", large), (f"{a}和{b}哪个小?", small))
            yield from ((f"较大的数:{a}、{b}", large), (f"较小的数:{a}、{b}", small))
            yield from ((f"{a}、{b}中较大的?", large), (f"{a}、{b}中较小的?", small))


def _count(language: str) -> Iterator[Pair]:
    for (thing, name), number in itertools.product(COUNTED.items(), range(1, MOST_COUNTED + 1)):
        if language == "en":
            yield from _asked(
                ("Count: {}", "How many? {}", "{}: how many?", "{}, count"),
                " ".join([thing] * number),
                str(number),
            )
        else:
            yield from _asked(
                ("数一数:{}", "几个? {}", "{}有几个?", "{}数一数"), name * number, str(number)
            )


def _find(language: str) -> Iterator[Pair]:
    names = NAMES_EN if language == "en" else NAMES_ZH
    for name, (colour, hue), (animal, beast) in itertools.product(
        names, COLOURS.items(), ANIMALS.items()
    ):
        if language == "en":
            fact, questions = (
                f"{name} has a {colour} {animal}.",
                (
                    ("Who?", name),
                    ("Colour?", colour),
                    ("Animal?", animal),
                ),
            )
        else:
            fact, questions = (
                f"{name}有{hue}{beast}。",
                (
                    ("谁?", name),
                    ("颜色?", hue),
                    ("动物?", beast),
                ),
            )
        yield from (
            (f"{fact} {question}" if language == "en" else fact + question, answer)
            for question, answer in questions
        )


def _calendar(language: str) -> Iterator[Pair]:
    names, days, months = (
        (NAMES_EN, DAYS_EN, MONTHS_EN) if language == "en" else (NAMES_ZH, DAYS_ZH, MONTHS_ZH)
    )
    for name in names:
        for i, day in enumerate(days):
            yield (
                (
                    f"{name}: now {day}, tomorrow?"
                    if language == "en"
                    else f"{name}:今天{day},明天?"
                ),
                days[(i + 1) % 7],
            )
        for month, following in itertools.pairwise(months):
            yield (
                (
                    f"{name}: now {month}, next?"
                    if language == "en"
                    else f"{name}:本月{month},下月?"
                ),
                following,
            )


def _sentiment(language: str) -> Iterator[Pair]:
    if language == "en":
        for thing, (word, mood) in itertools.product(THINGS_EN, MOODS_EN.items()):
            yield from ((f"Mood: the {thing} is {word}", mood), (f"Mood: a {word} {thing}", mood))
    else:
        for thing, (word, mood) in itertools.product(THINGS_ZH, MOODS_ZH.items()):
            yield from ((f"评价:{thing}{word}", mood), (f"评价:{word},这{thing}", mood))


def _uppercase(language: str) -> Iterator[Pair]:
    templates = (
        ("Uppercase: {}", "{} in capitals", "Shout {}!")
        if language == "en"
        else ("大写:{}", "{}变大写", "用大写写{}")
    )
    for colour, animal in itertools.product(COLOURS, ANIMALS):
        yield from _asked(templates, f"{colour} {animal}", f"{colour} {animal}".upper())


_MAKERS = {"translate": _translate, "opposite": _opposite, "compare": _compare, "count": _count,
           "find": _find, "calendar": _calendar, "sentiment": _sentiment,
           "uppercase": _uppercase}  # fmt: skip
SKILLS = tuple(_MAKERS)
LANGUAGES = ("en", "zh")


def generate(seed: int, rows: int) -> list[dict]:
    """Returns `rows` rows `{"prompt", "completion", "skill", "language"}`; no prompt occurs twice.

    Their order is drawn from `seed`.

    Skills and languages take equal shares for as long as their prompts last. The first rows are not
    the easy ones: the order is random, so any cut of the list is a fair split into training and
    held-out rows.

    Raises:
        ConfigError: `rows` is negative, or more than there are different prompts.
    """
    draw = random.Random(seed)
    pools = []
    for skill, language in itertools.product(SKILLS, LANGUAGES):
        pairs = list(_MAKERS[skill](language))
        draw.shuffle(pairs)
        pools.append(
            [{"prompt": p, "completion": c, "skill": skill, "language": language} for p, c in pairs]
        )
    total = sum(map(len, pools))
    if not 0 <= rows <= total:
        raise ConfigError(
            f"the synthetic data set has {total} different prompts, so rows must lie between 0 and"
            f" {total} (found {rows})"
        )
    chosen = list(itertools.islice(_round_robin(pools), rows))
    draw.shuffle(chosen)
    return chosen


def write(path: str | Path, seed: int, rows: int) -> Path:
    """Writes `generate(seed, rows)` to `path`, one JSON object per line, and returns the path.

    Raises:
        ConfigError: see `generate`.
        JaxsftError: the file cannot be written.
    """
    made = generate(seed, rows)
    with atomic_lines(path) as file:
        file.writelines(json_text(row) + "\n" for row in made)
    return Path(path)


def _round_robin(pools: Iterable[list[dict]]) -> Iterator[dict]:
    for layer in itertools.zip_longest(*pools):
        yield from (row for row in layer if row is not None)
