"""Objectives inside somebody else's loop: a plain transformers Trainer, whose steps are checked by plain forwards."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from ranked_replies import Record, Reply, batch_of, pair
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from alignite.models.columns import compute_columns, prepass
from alignite.objectives.contrast import InstructionContrastObjective
from alignite.objectives.figa import FIGAObjective
from alignite.objectives.pieces import sequence_loss
from alignite.objectives.quark import QuarkObjective, quantiles
from alignite.objectives.rrhf import RRHFObjective
from alignite.objectives.slic import SLiCObjective
from alignite.objectives.stable_alignment import StableAlignmentObjective
from alignite.types import FeedbackBatch, Objective

PROMPT = (3, 4, 5)
STEPS = 8


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )


def answer(rng: random.Random, score: float = 0.0) -> Reply:
    length = rng.randrange(2, 6)
    return Reply((0.0,) * length, score, ids=(*(rng.randrange(6, 32) for _ in range(length - 1)), 2))


def rankings() -> list[Record]:
    rng = random.Random(1)
    return [[answer(rng, float(score)) for score in range(3)] for _ in range(2)]


def pairs() -> list[Record]:
    rng = random.Random(2)
    return [pair(answer(rng), answer(rng)) for _ in range(2)]


class Foreign(Trainer):
    """Nothing of alignite's but the columns and the loss."""

    objective: Objective
    losses: list[float]

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        models = {"policy": model, "reference": self.reference}
        (batch,) = prepass(models, [inputs["feedback"]], self.objective, lambda numbers: numbers)
        loss = sequence_loss(self.objective, compute_columns(models, batch, self.objective.columns), batch)
        self.losses.append(float(loss.detach()))
        return loss

    reference: torch.nn.Module


def train(
    objective: Objective, batch: FeedbackBatch, folder: Path, steps: int = STEPS
) -> tuple[LlamaForCausalLM, list[float]]:
    model = tiny()
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=1,
        learning_rate=0.05,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0.0,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    trainer = Foreign(
        model=model,
        args=arguments,
        train_dataset=[batch] * steps,  # type: ignore[arg-type]
        data_collator=lambda rows: {"feedback": rows[0]},
    )
    trainer.objective, trainer.losses, trainer.reference = objective, [], tiny().eval()
    trainer.train()
    return model, trainer.losses


def log_probability(model: LlamaForCausalLM, reply: Reply, prompt: tuple[int, ...] = PROMPT) -> Tensor:
    """Of a reply's tokens, from a forward of the prompt and the reply alone."""
    ids = torch.tensor([[*prompt, *reply.tokens]])
    logits: Tensor = model(ids).logits[0]
    return logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :, None])[:, 0]


def by_hand(model: LlamaForCausalLM, records: list[Record]) -> Tensor:
    """RRHF of the records."""
    total = torch.zeros(())
    for record in records:
        logps = [log_probability(model, one) for one in record]
        for i, worse in enumerate(record):
            for j, better in enumerate(record):
                if worse.score < better.score:
                    total = total + (logps[i].mean() - logps[j].mean()).relu()
        total = total - logps[max(range(len(record)), key=lambda n: record[n].score)].sum()
    return total / len(records)


def test_a_plain_trainer_takes_the_steps_of_a_loop_written_by_hand(tmp_path: Path) -> None:
    records = rankings()
    trained, losses = train(RRHFObjective(), batch_of(records, [PROMPT] * 2), tmp_path)
    model = tiny()
    expected = []
    for _ in range(STEPS):
        loss = by_hand(model, records)
        expected.append(float(loss.detach()))
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= 0.05 * gradient
    assert losses == pytest.approx(expected, abs=1e-4)
    for ours, theirs in zip(trained.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize(
    "objective",
    [
        SLiCObjective(),
        SLiCObjective(kind="list", reg="kl", delta=20.0),
        StableAlignmentObjective(),
        FIGAObjective(threshold=5.0),
        InstructionContrastObjective(),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_other_objectives_go_down_there_too(objective: Objective, tmp_path: Path) -> None:
    records, prompts = pairs(), [PROMPT] * 2
    if isinstance(objective, InstructionContrastObjective):
        rng = random.Random(3)
        one, two = answer(rng, 1.0), answer(rng, 1.0)
        records = [[one, Reply(two.logps, 0.0, ids=two.ids)], [two, Reply(one.logps, 0.0, ids=one.ids)]]
        prompts = [PROMPT, (3, 6, 7)]
    _, losses = train(objective, batch_of(records, prompts), tmp_path)
    assert losses[-1] < losses[0]


def test_quark_markers_tell_good_from_bad_after_training(tmp_path: Path) -> None:
    rng = random.Random(4)
    pool, rewards = [answer(rng), answer(rng)], [0.1, 0.9]
    prompts = [(30 + quantile, *PROMPT) for quantile in quantiles(rewards, 2).tolist()]
    model, losses = train(QuarkObjective(), batch_of([[one] for one in pool], prompts), tmp_path, steps=20)
    assert losses[-1] < losses[0]
    best, worst = (30, *PROMPT), (31, *PROMPT)
    with torch.no_grad():
        preferred = [
            float(log_probability(model, pool[1], marker).sum() - log_probability(model, pool[0], marker).sum())
            for marker in (best, worst)
        ]
    assert preferred[0] > preferred[1] + 0.1
