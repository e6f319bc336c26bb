"""The same pairs, head and order give TRL's scores and losses; where TRL reads the wrong token, it is shown to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trl_peer import result_of

from alignite.config import PrepareConfig
from alignite.data import ChatTokenizer, PreparedSet, prepare
from alignite.models.columns import compute_columns
from alignite.models.reward_files import load_reward_model, save_reward_model
from alignite.objectives.reward import RewardObjective
from alignite.types import ReplyRole

pytestmark = pytest.mark.slow

BATCH, RATE, PAD, END = 3, 0.01, 0, 2


@pytest.fixture(scope="module")
def folder(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("trl") / "reward"
    save_reward_model(load_reward_model(tiny_model_folder, seed=5), made, tiny_model_folder)
    return made


@pytest.fixture(scope="module")
def prepared(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    # Replies and prompts of very different lengths, so that TRL pads.
    rows = [
        {
            "prompt": f"count to {n}" * (1 + n % 3),
            "chosen": "one two " * (1 + n % 4),
            "rejected": "no" * (1 + n % 5),
            "margin": n % 3 / 2,
        }
        for n in range(15)
    ]
    tokenizer = ChatTokenizer.from_folder(folder)
    return prepare(rows, tokenizer, PrepareConfig(), tmp_path_factory.mktemp("trl") / "pairs")


def trl_rows(prepared: PreparedSet) -> list[dict[str, Any]]:
    rows = []
    for window in range(len(prepared)):
        ids, _, _, segments = prepared.arrays([window])
        prompt, chosen, rejected = (ids[start : start + length].tolist() for start, length, _ in segments.tolist())
        margin = float(prepared.origins([window]).scores[1])
        rows.append({"chosen_ids": prompt + chosen, "rejected_ids": prompt + rejected, "margin": margin})
    return rows


@pytest.fixture(scope="module")
def theirs(folder: Path, prepared: PreparedSet) -> dict[str, dict[str, list[float]]]:
    """Four runs of TRL's in one process, which takes seconds to start."""
    rows = trl_rows(prepared)
    few = rows[:BATCH]
    assert all(row[side][-1] == END for row in few for side in ("chosen_ids", "rejected_ids"))
    cut = [{**row, "chosen_ids": row["chosen_ids"][:-1], "rejected_ids": row["rejected_ids"][:-1]} for row in few]
    shared = {"batch_size": BATCH, "learning_rate": RATE}
    runs = {
        "plain": {"rows": rows, "center": None, "pad": PAD},
        "centred": {"rows": rows, "center": 0.1, "pad": PAD},
        "padded with the end": {"rows": few, "center": None, "pad": END},
        "cut": {"rows": cut, "center": None, "pad": PAD},
    }
    options = json.dumps({name: run | shared for name, run in runs.items()})
    found: dict[str, dict[str, list[float]]] = result_of("trl_reward.py", folder, options)
    return found


def ours(folder: Path, prepared: PreparedSet, objective: RewardObjective) -> dict[str, list[float]]:
    model = load_reward_model(folder)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    scores: list[float] = []
    losses = []
    for start in range(0, len(prepared), BATCH):
        batch = prepared.feedback_batch(np.arange(start, min(start + BATCH, len(prepared))))
        assert batch.roles.tolist() == [int(ReplyRole.CHOSEN), int(ReplyRole.REJECTED)] * BATCH
        columns = compute_columns({"policy": model}, batch, objective.columns)
        scores += columns["policy.score"][:, 0].tolist()
        terms = objective.loss(columns, batch).terms.values()
        loss = torch.stack([term.weight * term.sum / term.count for term in terms]).sum()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"scores": scores, "losses": losses}


@pytest.mark.parametrize(("name", "center"), [("plain", 0.0), ("centred", 0.1)])
def test_scores_and_losses_are_trls(
    folder: Path, prepared: PreparedSet, theirs: dict[str, dict[str, list[float]]], name: str, center: float
) -> None:
    found = ours(folder, prepared, RewardObjective(center_rewards_coefficient=center))
    assert found["scores"] == pytest.approx(theirs[name]["scores"], abs=1e-4)
    assert found["losses"] == pytest.approx(theirs[name]["losses"], abs=1e-5)
    assert np.ptp(found["losses"]) > 1e-3


def test_trl_reads_one_token_early_where_padding_ends_replies(
    folder: Path, prepared: PreparedSet, theirs: dict[str, dict[str, list[float]]]
) -> None:
    """TRL pads with the end token where there is no padding token; its model then takes a reply's own for padding."""
    right = ours(folder, prepared, RewardObjective())["scores"][: 2 * BATCH]
    wrong = theirs["padded with the end"]["scores"]
    assert wrong == pytest.approx(theirs["cut"]["scores"], abs=1e-5)
    assert np.abs(np.array(wrong) - np.array(right)).max() > 1e-2
