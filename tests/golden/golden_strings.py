"""Strings that tokenizers disagree on, made from a seed: the golden ids hold for exactly these."""

from __future__ import annotations

# ruff: noqa: E501, SIM905 - lists of words read best as one string
import hashlib
import random

WORDS = (
    "the of a model learns to answer questions about rivers, mountains and 17 small towns; isn't it? We'll see, they're "
    "here. I'd say YOU'RE right: it's JOHN'S. don't DON'T can't we've naive résumé coöperate straße ﬁne Ångström "
    "tokenization pre-training fine-tuned e.g. i.e. U.S.A. www.example.org/a?b=c&d=1 user@example.com C++ C# x_1 __init__"
).split()
KOREAN = "안녕하세요 저는 작은 언어 모델입니다. 오늘 날씨가 좋네요! 무엇을 도와드릴까요? 서울에서 부산까지 세 시간이 걸려요 ㅋㅋㅋ ㅠㅠ".split()
OTHERS = (
    "日本語のテキスト 中文没有空格 Привет, мир! Γειά σου العربية שלום हिन्दी ไทยไม่มีช่องว่าง Ελλάδα ÑANDÚ İstanbul ǆ "
    "e\u0301 n\u0303 \u1100\u1161\u11a8 \ufb03 \u2167 \u00bd \u00b2 \u0664\u0665 \uff11\uff12 \U0001d7d8\U0001d7d9 \u2155"
).split()
CODE = (
    "def f(x):\n    return x ** 2\n",
    "for (int i = 0; i < n; ++i) {\n\tsum += a[i];\n}\n",
    "SELECT * FROM t WHERE id = 42 AND name LIKE '%a%';",
    '{"key": [1, 2.5, -3e10], "text": "a\\nb"}',
    '<div class="x">&nbsp;</div>',
    "if a!=b and c<=d: pass  # why?",
    "$ pip install --no-deps x==1.2.3\r\n",
)
EMOJI = ("🙂", "👩‍👩‍👧‍👦", "🇰🇷", "👍🏽", "❤️", "🤖🚀✨", "☃", "\u200b", "\u200d", "\ufeff", "\u00ad", "\u2028")
SPACES = (
    " ",
    "  ",
    "   ",
    "\t",
    "\n",
    "\n\n",
    "\r\n",
    " \n",
    "\n ",
    "\u00a0",
    "\u2003",
    "\u3000",
    "\v",
    "\f",
    "\u0085",
    " \t ",
)
SPECIAL = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|im_start",
    "|im_end|>",
    "<repo_name>",
    "<file_sep>",
    "<|unk|>",
)
# What the vocabulary of SmolLM2 lacks: text with one of these has no exact ids.
ABSENT = bytes([0x04, 0x06, 0x13, 0x14, 0x16, 0x1D])


def _number(source: random.Random) -> str:
    digits = "".join(source.choice("0123456789") for _ in range(source.randint(1, 12)))
    form = source.choice(
        ("{}", "-{}", "{}.5", "${},000", "{}%", "x{}y", "{}e3", "0x{}", "{}/7", "{}:30", "#{}", "({})")
    )
    return form.format(digits)


def _control(source: random.Random) -> str:
    return "".join(
        chr(source.choice([*range(0x01, 0x20), 0x7F, *range(0x80, 0xA0)])) for _ in range(source.randint(1, 3))
    )


def _any(source: random.Random) -> str:
    while True:
        code = source.choice(
            (source.randint(0x20, 0x2FF), source.randint(0x300, 0xFFFF), source.randint(0x10000, 0x1FFFF))
        )
        if not 0xD800 <= code <= 0xDFFF:
            return chr(code)


def strings(count: int, seed: int = 0) -> list[str]:
    """``count`` strings; the first ones of a longer list are the same."""
    source = random.Random(seed)
    kinds = (
        (30, lambda: source.choice(WORDS)),
        (12, lambda: _number(source)),
        (10, lambda: source.choice(KOREAN)),
        (10, lambda: source.choice(OTHERS)),
        (6, lambda: source.choice(EMOJI)),
        (5, lambda: source.choice(CODE)),
        (8, lambda: source.choice(SPACES)),
        (5, lambda: source.choice(SPECIAL)),
        (2, lambda: _control(source)),
        (4, lambda: "".join(_any(source) for _ in range(source.randint(1, 4)))),
        (6, lambda: "".join(source.choice(".,;:!?'\"-_()[]{}<>/\\|@#$%^&*+=~`") for _ in range(source.randint(1, 5)))),
    )
    weights = [weight for weight, _ in kinds]
    found = []
    for _ in range(count):
        parts = source.choices([make for _, make in kinds], weights, k=source.choice((1, 2, 3, 4, 6, 9)))
        joint = source.choice((" ", " ", " ", "", "\n", "  "))
        found.append(joint.join(part() for part in parts))
    return found


def digest(texts: list[str]) -> str:
    """Changes when any string does."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
