"""A preview and a prepared set agree whatever the rows are."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignite.config import SFTConfig
from alignite.data import ChatTokenizer, prepare_sft, preview
from alignite.errors import DataError

CONTENT = st.text(max_size=30) | st.sampled_from(["<|im_end|>", "안녕 🙂", "x" * 70, " \n ", "\U00100001"])
MESSAGE = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant", "usr"]), "content": CONTENT})
LINE = st.one_of(
    st.lists(MESSAGE, max_size=5).map(lambda messages: json.dumps({"messages": messages})),
    CONTENT.map(lambda text: json.dumps({"messages": [{"role": "assistant", "content": text}]}, ensure_ascii=False)),
    st.sampled_from(["{broken", "[]", "{}", '{"messages": 1}']),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(LINE, min_size=1, max_size=12),
    max_length=st.integers(2, 90),
    packing=st.sampled_from(["none", "bfd"]),
)
def test_a_preview_says_what_preparing_does(
    lines: list[str], max_length: int, packing: str, tiny_model_folder: Path
) -> None:
    tokenizer = ChatTokenizer.from_folder(tiny_model_folder)
    config = SFTConfig(max_length=max_length, packing=packing, on_bad_row="skip")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(line + "\n" for line in ['{"messages": [1]}', *lines]), encoding="utf-8")
        seen = preview(path, tokenizer, config, num_rows=20)
        report: dict[str, Any] = seen.report
        if report["used"]:
            prepared = prepare_sft(path, tokenizer, config, Path(folder) / "p")
            assert report == {name: prepared.report[name] for name in report}
        else:
            with pytest.raises(DataError, match="no row is left to train on"):
                prepare_sft(path, tokenizer, config, Path(folder) / "p")
        assert report["used"] == len(seen.rows) == report["rows"] - sum(e["count"] for e in report["dropped"].values())
        for row in [*seen.rows, *seen.examples]:
            ids = [token for piece in row.pieces for token in piece.ids]
            assert len(ids) == row.tokens
            if row.pieces and row.kept_tokens in (0, row.tokens):
                assert "".join(piece.text for piece in row.pieces) == tokenizer.decode(ids)
        assert report["tokens"] == sum(row.kept_tokens for row in seen.rows)
        assert report["scored_tokens"] == sum(row.kept_scored_tokens for row in seen.rows)
