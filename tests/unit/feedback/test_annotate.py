"""AI feedback: both orders, principles, rationales, answers that are read or not, win rates, a served annotator."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest
from stub_server import stub_server

from alignite.client import ChatClient, Completion, HttpClient, Token
from alignite.data.convert import convert_rows
from alignite.errors import DataError, ResourceError, UsageError
from alignite.feedback.annotate import PromptedJudge, annotate, swapped_mean, win_rate
from alignite.feedback.choices import as_text, choice_probabilities, parse_choice

PAIRS = [{"prompt": f"q{n}", "first": "a" * (n + 1), "second": "b" * 3} for n in range(5)]


def by_length(prompt: Any, first: Any, second: Any) -> float:
    return 1 / (1 + math.exp(len(second) - len(first)))


def test_rows_in_the_houses_format() -> None:
    made, report = annotate(PAIRS, by_length)
    assert [len(row["chosen"]) for row in made] == [3, 3, 3, 4, 5]
    assert [round(row["p"], 4) for row in made] == [0.8808, 0.7311, 0.5, 0.7311, 0.8808]
    assert (report.pairs, report.ties, report.inconsistent, report.position_bias) == (5, 1, 0, 0.0)
    assert report.first_share == pytest.approx(0.5, abs=1e-12)
    read, _ = convert_rows(made, "preference")
    assert [row["p"] for row in read] == [row["p"] for row in made]


def test_threads_keep_the_order() -> None:
    seen: set[int] = set()
    barrier = threading.Barrier(2, timeout=20)

    def slow(prompt: Any, first: Any, second: Any) -> float:
        seen.add(threading.get_ident())
        if prompt in ("q0", "q1"):
            barrier.wait()  # passes only where two are judged at the same time
        return by_length(prompt, first, second)

    assert annotate(PAIRS, slow, workers=4)[0] == annotate(PAIRS, by_length)[0]
    assert len(seen) > 1


@pytest.mark.parametrize(("what", "expected"), [("keep", [0.6, 0.9]), ("drop", [0.9]), ("soften", [0.5, 0.9])])
def test_pairs_that_flip_with_the_order(what: Any, expected: list[float]) -> None:
    def biased(prompt: Any, first: Any, second: Any) -> float:
        if prompt == "hard":
            return 0.9 if first == "x" else 0.7  # the first one wins in either order
        return 0.9 if first == "x" else 0.1

    pairs = [{"prompt": prompt, "first": "x", "second": "y"} for prompt in ("hard", "easy")]
    made, report = annotate(pairs, biased, inconsistent=what)
    assert [row["p"] for row in made] == pytest.approx(expected, abs=1e-12)
    assert (report.inconsistent, report.position_bias) == (1, 0.5)
    assert report.first_share == pytest.approx((0.8 + 0.5) / 2)


def test_one_order_keeps_the_bias() -> None:
    made, report = annotate(PAIRS[:1], lambda *_: 1.0, swap=False)
    assert made[0]["chosen"] == "a"
    assert made[0]["p"] == 1.0
    assert math.isnan(report.position_bias)


def test_old_pairs_are_judged_anew() -> None:
    rows = [{"prompt": "q", "chosen": "no", "rejected": "yes!", "margin": 2}]
    made, _ = annotate(rows, by_length, names=("chosen", "rejected"))
    assert made[0]["chosen"] == "yes!"


def test_replies_stand_in_columns_of_several_names() -> None:
    rows = [
        {"prompt": "q", "chosen": "no", "rejected": "yes!", "p": 0.9},
        {"prompt": "q", "completions": ["no", "yes!"], "scores": [1, 0]},
    ]
    made, _ = annotate(rows, by_length)
    assert [row["chosen"] for row in made] == ["yes!", "yes!"]
    assert made[0]["p"] == made[1]["p"] == pytest.approx(by_length("q", "yes!", "no"))
    for row, said in [
        ({"prompt": "q", "a": "x"}, "neither first and second, nor chosen and rejected, nor completions"),
        ({"prompt": "q", "first": "x"}, "the row has no 'second'"),
        ({"prompt": "q", "chosen": "x", "rejected": None}, "the row has no 'rejected'"),
        ({"prompt": "q", "completions": ["a", "b", "c"]}, "no list of two replies"),
        ({"prompt": "q", "first": "x", "second": ""}, "a reply is empty"),
    ]:
        with pytest.raises(DataError, match=said) as caught:
            annotate([row], by_length)
        assert caught.value.where == "row 0"
    with pytest.raises(DataError, match="no 'a'"):
        annotate(rows, by_length, names=("a", "b"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_judge_that_fails_costs_its_row_alone(workers: int) -> None:
    def judge(prompt: str, first: str, second: str) -> Any:
        if prompt == "q1":
            raise RuntimeError("no answer")
        if prompt == "q2":
            raise ResourceError("the server is away", where="http://x")
        return "high" if prompt == "q3" else by_length(prompt, first, second)

    made, report = annotate(PAIRS, judge, workers=workers, on_bad_row="skip")
    assert [row["prompt"] for row in made] == ["q0", "q4"]
    assert made == [row for row in annotate(PAIRS, by_length)[0] if row["prompt"] in ("q0", "q4")]
    assert (report.pairs, report.unparsable) == (2, 0)
    assert {reason: found.examples for reason, found in report.bad.items()} == {
        "the judge raises RuntimeError": ["row 1"],
        "the server is away": ["row 2"],
        "the judge gives no chance between 0 and 1": ["row 3"],
    }
    for number, kind, where in (
        (1, DataError, "row 1"),
        (2, ResourceError, "row 2, http://x"),
        (3, DataError, "row 3"),
    ):
        rows = [row if n in (0, number) else PAIRS[0] for n, row in enumerate(PAIRS)]
        with pytest.raises(kind) as caught:
            annotate(rows, judge, workers=workers)
        assert caught.value.where == where
    with pytest.raises(DataError, match="raises RuntimeError") as failed:
        win_rate(["q0", "q1"], lambda asked: ["x", "y"], ["v", "w"], judge)
    assert (failed.value.where, failed.value.why) == ("prompt 1", "no answer")


def test_answers_that_cannot_be_read_are_counted() -> None:
    made, report = annotate(PAIRS, PromptedJudge(lambda prompt: "I like both." if "q1" in prompt else "1"))
    assert (len(made), report.unparsable) == (4, 1)
    # Readable in one order only is not enough.
    made, report = annotate(PAIRS[:1], PromptedJudge(lambda prompt: "1" if "Response 1: a" in prompt else "?"))
    assert (made, report.unparsable, report.ties) == ([], 1, 0)


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("1", "1"),
        (" 2.", "2"),
        ("(1)", "1"),
        ("Preferred Response=2", "2"),
        ("Response 1 is clearer.", "1"),
        ("Response 1 beats response 2. Answer: 1", "1"),
        ("The answer is **2**", "2"),
        ("1 or 2", None),
        ("12", None),
        ("1.5 points", None),
        ("neither", None),
        ("", None),
    ],
)
def test_reading_numbers(text: str, choice: str | None) -> None:
    assert parse_choice(text, ("1", "2")) == choice


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("A", "A"),
        ("b)", "B"),
        ("[[A]]", "A"),
        ("A reply that is fine", None),
        ("I choose (B).", "B"),
        ("(A) or (B)", None),
        ("choice: A", "A"),
    ],
)
def test_reading_letters_is_not_misled_by_articles(text: str, choice: str | None) -> None:
    assert parse_choice(text, ("A", "B")) == choice


def test_log_probabilities_of_all_spellings_count() -> None:
    top = {"1": math.log(0.3), " 1": math.log(0.1), "2": math.log(0.4), "The": math.log(0.2)}
    answer = Completion("2", (Token("2", math.log(0.4), top),))
    assert choice_probabilities(answer, ("1", "2")) == pytest.approx([0.5, 0.5], abs=1e-12)
    later = Completion(" 1", (Token("\n", -0.1, {"\n": -0.1}), Token("1", -0.2, {"1": -0.2})))
    assert choice_probabilities(later, ("1", "2")) == pytest.approx([1.0, 0.0])
    assert choice_probabilities(Completion("none", (Token("none", -0.1, {}),)), ("1", "2")) is None
    assert choice_probabilities("2", ("1", "2")) == pytest.approx([0.0, 1.0])


def test_principles_are_the_same_in_both_orders_and_differ_between_pairs() -> None:
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return "1"

    principles = [f"Principle number {n}." for n in range(8)]
    judge = PromptedJudge(answer, principles=principles, principles_per_pair=3, exemplars="EX", seed=1)
    annotate(PAIRS, judge)
    drawn = [[p for p in principles if p in prompt] for prompt in asked]
    assert all(len(found) == 1 for found in drawn)
    assert len(asked) == len(PAIRS) * 2 * 3
    for pair in range(len(PAIRS)):
        six = [found[0] for found in drawn[6 * pair : 6 * pair + 6]]
        assert six[:3] == six[3:]
        assert len(set(six[:3])) == 3
    assert len({drawn[6 * pair][0] for pair in range(len(PAIRS))}) > 1
    assert all(prompt.index("EX") < prompt.index("Prompt: q") for prompt in asked)
    before = list(asked)
    asked.clear()
    annotate(PAIRS, PromptedJudge(answer, principles=principles, principles_per_pair=3, exemplars="EX", seed=1))
    assert asked == before


def test_a_rationale_comes_first_and_is_clamped() -> None:
    def think(prompt: str) -> str:
        assert prompt.endswith("Rationale: ")
        return " The first is kinder. "

    def answer(prompt: str) -> str:
        assert "Rationale: The first is kinder.\n\nPreferred Response=" in prompt
        return "1"

    assert PromptedJudge(answer, think=think)("q", "a", "b") == 1.0
    assert PromptedJudge(answer, think=think, clamp=(0.4, 0.6))("q", "a", "b") == 0.6


def test_options_are_checked() -> None:
    for options in ({"clamp": (0.6, 0.4)}, {"principles": ["a"], "principles_per_pair": 2}, {"choices": ("1", "1")}):
        with pytest.raises(UsageError):
            PromptedJudge(str, **options)  # type: ignore[arg-type]
    for options in ({"inconsistent": "flip"}, {"workers": 0}):
        with pytest.raises(UsageError, match="inconsistent is"):
            annotate(PAIRS, by_length, **options)  # type: ignore[arg-type]


def test_a_served_annotator_gives_the_softmax_of_its_log_probabilities() -> None:
    def reply(prompt: str) -> dict[str, float]:
        first = prompt.split("Response 1: ")[1].split("\n")[0]
        p = 0.8 if first == "good" else 0.4  # a true .7 for "good", and .1 for what stands first
        return {"1": math.log(p * 0.9), "2": math.log((1 - p) * 0.9), "Hm": math.log(0.1)}

    with stub_server(reply) as server:
        chat = ChatClient(HttpClient(f"{server.url}/v1"), "m", temperature=0)
        judge = PromptedJudge(chat.generator(top_logprobs=5, max_tokens=1))
        made, report = annotate([{"prompt": "q", "first": "bad", "second": "good"}], judge, workers=2)
    assert made[0]["chosen"] == "good"
    assert made[0]["p"] == pytest.approx(0.7, abs=1e-9)
    assert report.first_share == pytest.approx(0.6, abs=1e-9)
    assert server.requests[0]["max_tokens"] == 1
    assert server.requests[0]["top_logprobs"] == 5


def test_win_rates_count_both_orders_and_ties() -> None:
    prompts = ["a", "b", "c", "d"]
    replies = {"a": "longer", "b": "xx", "c": "same", "d": "q"}
    found = win_rate(prompts, lambda asked: [replies[p] for p in asked], ["no", "long", "same", "qqqqq"], by_length)
    assert (found.wins, found.ties, found.losses, found.rate) == (1, 1, 2, 0.375)
    assert found.se == pytest.approx(math.sqrt(((1 - 0.375) ** 2 + (0.5 - 0.375) ** 2 + 2 * 0.375**2) / 3 / 4))
    assert found.share.low < 0.375 < found.share.high
    always_first = win_rate(prompts[:2], lambda asked: ["x", "y"], lambda asked: ["v", "w"], lambda *_: 1.0)
    assert (always_first.rate, always_first.ties, always_first.position_bias) == (0.5, 2, 1.0)
    with pytest.raises(DataError, match="2 prompts, 1 replies"):
        win_rate(prompts[:2], lambda asked: ["x"], ["v", "w"], by_length)
    with pytest.raises(DataError, match="no pair could be judged"):
        win_rate(prompts[:1], lambda asked: ["x"], ["v"], lambda *_: None)


def test_messages_as_prompts() -> None:
    prompt = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    assert as_text(prompt) == "user: hi\n\nassistant: hello"
    made, _ = annotate([{"prompt": prompt, "first": "x", "second": "yy"}], by_length)
    assert made[0]["prompt"] == prompt
    assert swapped_mean(0.9, 0.3) == pytest.approx(0.8)
