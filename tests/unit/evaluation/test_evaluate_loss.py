from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_model import make_model

from alignite.config import SFTConfig
from alignite.data.prepare import prepare_sft
from alignite.data.prepared import PreparedSet
from alignite.data.tokenizer import ChatTokenizer
from alignite.evaluation.loss import evaluate_loss
from alignite.models.loading import load_model
from alignite.objectives import SFTObjective
from alignite.types import IGNORE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tiny")
    make_model(made / "model", attention_dropout=0.0)
    rows = [{"prompt": f"Say {n}.", "completion": "word " * (1 + 3 * (n % 3))} for n in range(7)]
    (made / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


def prepared(folder: Path, packing: str = "none") -> PreparedSet:
    config = SFTConfig(packing=packing, max_length=256)
    tokenizer = ChatTokenizer.from_folder(folder / "model")
    return prepare_sft([folder / "rows.jsonl"], tokenizer, config, folder / packing)


def test_it_is_the_mean_over_scored_tokens(folder: Path) -> None:
    model, data = load_model(folder / "model"), prepared(folder)
    total = right = count = entropy = 0.0
    for window in range(len(data)):
        batch = data.batch([window])
        with torch.no_grad():
            logits = model(input_ids=batch.input_ids[None]).logits[0, :-1]
        labels = batch.labels[1:]
        scored = labels != IGNORE
        logp = logits[scored].log_softmax(-1)
        total -= float(logp.gather(1, labels[scored, None]).sum())
        right += float((logits[scored].argmax(-1) == labels[scored]).sum())
        entropy -= float((logp.exp() * logp).sum())
        count += float(scored.sum())
    found = evaluate_loss({"policy": model}, data, SFTObjective(), batch_size=3)
    assert found == {
        "eval_loss": pytest.approx(total / count, abs=1e-5),
        "eval_mean_token_accuracy": pytest.approx(right / count, abs=1e-6),
        "eval_entropy": pytest.approx(entropy / count, abs=1e-4),
    }


def test_batches_chunks_and_packing_change_nothing(folder: Path) -> None:
    model = {"policy": load_model(folder / "model")}
    expected = evaluate_loss(model, prepared(folder), SFTObjective())
    for batch_size, chunk_size, packing in ((1, 512, "none"), (4, 3, "none"), (2, 512, "bfd")):
        data = prepared(folder, packing)
        found = evaluate_loss(model, data, SFTObjective(), batch_size=batch_size, chunk_size=chunk_size)
        assert found == {name: pytest.approx(value, abs=1e-5) for name, value in expected.items()}
    named = evaluate_loss(model, prepared(folder), SFTObjective(), prefix="test_")
    assert named.keys() == {"test_loss", "test_mean_token_accuracy", "test_entropy"}
