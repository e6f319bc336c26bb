"""Where a comparison's prompt ends: TRL searches characters, we split at the last reply. TRL's faults are asserted."""

from __future__ import annotations

from typing import Any

import pytest
from trl.data_utils import extract_prompt, is_conversational, maybe_convert_to_chatml

from alignite.data.convert import convert_rows
from alignite.errors import DataError

PREFIX = "\n\nHuman: What is it?\n\nAssistant:"


def ours(chosen: str, rejected: str) -> dict[str, Any]:
    rows, _ = convert_rows([{"chosen": chosen, "rejected": rejected}], "preference")
    return rows[0]


def test_alike_where_replies_begin_differently() -> None:
    for good, bad in [(" Apples.", " Bananas."), (" Yes", " no"), (" 1", " 2\n\nreally")]:
        row = {"chosen": PREFIX + good, "rejected": PREFIX + bad}
        assert extract_prompt(row) == ours(**row) == {"prompt": PREFIX, "chosen": good, "rejected": bad}


@pytest.mark.parametrize(
    ("good", "bad"), [(" I am sure.", " I am not."), (" That depends", " Thatch"), (" No.", " No!")]
)
def test_trl_takes_the_beginning_of_replies_for_prompt(good: str, bad: str) -> None:
    row = {"chosen": PREFIX + good, "rejected": PREFIX + bad}
    theirs = extract_prompt(row)
    assert theirs["prompt"] != PREFIX
    assert theirs["prompt"].startswith(PREFIX)
    assert ours(**row) == {"prompt": PREFIX, "chosen": good, "rejected": bad}


def test_trl_loses_a_character_of_replies_that_are_alike() -> None:
    same = {"chosen": PREFIX + " Yes", "rejected": PREFIX + " Yes"}
    assert extract_prompt(same)["chosen"] == "s"  # one character of "Yes" is left, the rest is "prompt"
    with pytest.raises(DataError, match="are the same"):
        ours(**same)
    longer = {"chosen": PREFIX + " Yes", "rejected": PREFIX + " Yes, and more"}
    assert extract_prompt(longer)["chosen"] == "s"
    assert ours(**longer) == {"prompt": PREFIX, "chosen": " Yes", "rejected": " Yes, and more"}


def test_messages_are_split_alike() -> None:
    asked = [{"role": "user", "content": "q"}]
    row = {side: [*asked, {"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    rows, _ = convert_rows([row], "preference")
    assert rows[0] == extract_prompt(row)


def test_sharegpt_is_read_as_trl_reads_its_plain_roles() -> None:
    turns = [{"from": "user", "value": "q"}, {"from": "assistant", "value": "a"}]
    rows, _ = convert_rows([{"conversations": turns}], "messages")
    assert rows[0] == maybe_convert_to_chatml({"conversations": [dict(turn) for turn in turns]})
    # TRL keeps ShareGPT's own names, which chat templates do not know.
    named = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
    assert convert_rows([named], "messages")[0] == rows
    assert maybe_convert_to_chatml(named)["messages"][0]["role"] == "human"


def test_an_empty_conversation_breaks_trl() -> None:
    with pytest.raises(IndexError):
        is_conversational({"messages": []})
    with pytest.raises(DataError, match="empty list"):
        convert_rows([{"messages": []}], "messages")
