"""Our losses against TRL's own code on the same numbers; where TRL is wrong, that is asserted as its fault."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from feedback_batches import Record, Reply, make_batch, pair, random_columns, split, summed
from torch import Tensor

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
from trl import DPOTrainer, KTOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

from alignite.objectives.aot import AOT, AOTObjective, dpo_objective
from alignite.objectives.cpo import CPOObjective
from alignite.objectives.dpo import DPOObjective
from alignite.objectives.kto import KTOObjective
from alignite.objectives.orpo import ORPOObjective
from alignite.objectives.simpo import SimPOObjective
from alignite.types import FeedbackBatch, ReplyRole

SHARED = (
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
    "aot",
    "aot_unpaired",
)
RECORDS = [pair(3, 5), pair(4, 1), pair(2, 2), pair(6, 3)]


class Model:
    """What TRL asks of a model: padded columns, at the positions that predict the labels."""

    training = True

    def __init__(self, **columns: Tensor) -> None:
        self.outputs = SimpleNamespace(**columns)

    def __call__(self, **_: Any) -> SimpleNamespace:
        return self.outputs


def padded(batch: FeedbackBatch, values: Tensor, replies: Sequence[int], prompt: int) -> Tensor:
    """(replies, width - 1), the values of replies after a prompt, 0 elsewhere."""
    width = prompt + int(batch.segments[batch.replies, 1].max())
    rows = values.new_zeros(len(replies), width)
    for row, reply in enumerate(replies):
        mine = values[batch.reply_of == reply]
        rows[row, prompt : prompt + len(mine)] = mine
    return rows[:, 1:]


def trainer_inputs(
    batch: FeedbackBatch, columns: dict[str, Tensor], replies: Sequence[int], prompt: int
) -> tuple[Model, dict[str, Tensor]]:
    ones = torch.ones(len(batch.reply_of), dtype=torch.float64)
    mask = torch.nn.functional.pad(padded(batch, ones, replies, prompt), (1, 0)).long()
    if prompt == 0:
        mask[:, 0] = 1
    if "policy.log_sum_sq_probs" in columns:
        more = {"log_sum_sq_probs": padded(batch, columns["policy.log_sum_sq_probs"], replies, prompt)}
    else:
        more = {}
    found = more | {
        "log_probs": padded(batch, columns["policy.logp"], replies, prompt),
        "entropy": padded(batch, columns["policy.entropy"], replies, prompt),
        "mean_logits": padded(batch, columns["policy.mean_logit"], replies, prompt),
        "is_top1": padded(batch, columns["policy.is_top1"], replies, prompt).bool(),
    }
    ids = torch.zeros_like(mask)
    return Model(**found), {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": mask}


def trainer(model: Model, **options: Any) -> SimpleNamespace:
    accelerator = SimpleNamespace(device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x)
    return SimpleNamespace(
        model=model,
        accelerator=accelerator,
        aux_loss_enabled=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
        **options,
    )


def trl_dpo(
    batch: FeedbackBatch, columns: dict[str, Tensor], prompt: int = 4, **options: Any
) -> tuple[Tensor, dict[str, float]]:
    """The loss and metrics of TRL's DPOTrainer for a batch of pairs."""
    chosen, rejected = (np.flatnonzero(batch.roles == role).tolist() for role in (ReplyRole.CHOSEN, ReplyRole.REJECTED))
    model, inputs = trainer_inputs(batch, columns, [*chosen, *rejected], prompt)
    reference = padded(batch, columns["reference.logp"], [*chosen, *rejected], prompt).sum(1)
    inputs["ref_chosen_logps"], inputs["ref_rejected_logps"] = reference.chunk(2)
    settings = {
        "ld_alpha": None,
        "precompute_ref_logps": True,
        "args": SimpleNamespace(discopop_tau=0.05),
        "f_divergence_type": "reverse_kl",
        "f_alpha_divergence_coef": 0.5,
        "loss_weights": [1.0],
        "use_weighting": False,
        "beta": 0.1,
        "label_smoothing": 0.0,
    }
    self = trainer(model, **{**settings, **options})
    loss: Tensor = DPOTrainer._compute_loss(self, model, inputs, False)
    return loss, {name: values[-1] for name, values in self._metrics["train"].items()}


@pytest.mark.parametrize("name", SHARED)
def test_dpo_losses(name: str) -> None:
    for seed in range(3):
        batch = make_batch(RECORDS)
        columns = random_columns(batch, seed)
        smoothing = 0.1 if name in ("robust", "exo_pair", *AOT) else 0.0
        theirs, their_metrics = trl_dpo(batch, columns, loss_types=[name], label_smoothing=smoothing, beta=0.3)
        objective = dpo_objective(loss_type=(name,), label_smoothing=smoothing, beta=0.3)
        ours, metrics, _ = summed(objective, [batch], [columns])
        assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
        logp = columns["policy.logp"]
        torch.testing.assert_close(*(torch.autograd.grad(x, logp)[0] for x in (ours, theirs)), atol=1e-6, rtol=0)
        assert len(metrics) == 9
        for metric, value in metrics.items():
            assert value == pytest.approx(their_metrics[metric], abs=1e-5), metric


def test_trl_cannot_train_a_weighted_hinge() -> None:
    """It multiplies the output of relu in place, which relu's backward needs."""
    batch = make_batch(RECORDS)
    columns = random_columns(batch)
    columns["policy.log_sum_sq_probs"] = columns["reference.logp"]
    theirs, _ = trl_dpo(batch, columns, loss_types=["hinge"], use_weighting=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        theirs.backward()  # type: ignore[no-untyped-call]
    ours = summed(DPOObjective(loss_type=("hinge",), use_weighting=True), [batch], [columns])[0]
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-9)
    assert torch.autograd.grad(ours, columns["policy.logp"])[0].any()


@pytest.mark.parametrize("name", ["sigmoid", "ipo", "robust", "apo_down"])
def test_weights_of_pairs_by_how_likely_the_policy_is_to_write_them(name: str) -> None:
    for seed in range(3):
        batch = make_batch(RECORDS)
        columns = random_columns(batch, seed)
        columns["policy.log_sum_sq_probs"] = random_columns(batch, seed + 7)["reference.logp"]
        theirs, _ = trl_dpo(batch, columns, loss_types=[name], use_weighting=True, beta=0.3)
        objective = DPOObjective(loss_type=(name,), use_weighting=True, beta=0.3)
        batches, parts = split(RECORDS, columns, (1, 3), make_batch)
        ours = summed(objective, batches, parts)[0]
        assert ours.item() == pytest.approx(theirs.item(), abs=1e-9)
        logp = columns["policy.logp"]
        torch.testing.assert_close(*(torch.autograd.grad(x, logp)[0] for x in (ours, theirs)), atol=1e-9, rtol=0)
        assert ours.item() != pytest.approx(
            summed(DPOObjective(loss_type=(name,), beta=0.3), [batch], [columns])[0].item()
        )


@pytest.mark.parametrize("name", ["forward_kl", "js_divergence", "alpha_divergence"])
def test_f_divergences(name: str) -> None:
    losses = ("sigmoid", "hinge", "ipo", "robust", "exo_pair", "discopop", "sigmoid_norm")
    weights = (1.0, 0.5, 0.01, 0.3, 0.2, 0.1, 0.7)
    batch = make_batch(RECORDS)
    columns = random_columns(batch, 5, torch.float32)  # TRL's alpha divergence has no float64
    theirs, _ = trl_dpo(
        batch,
        columns,
        loss_types=losses,
        loss_weights=weights,
        f_divergence_type=name,
        f_alpha_divergence_coef=0.7,
        label_smoothing=0.1,
    )
    # Our sigmoid is smoothed too, which TRL's is not.
    plain = DPOObjective(loss_type=losses[:1], f_divergence_type=name, f_alpha_divergence_coef=0.7)
    others = DPOObjective(
        loss_type=losses[1:-1],
        loss_weights=weights[1:-1],
        f_divergence_type=name,
        f_alpha_divergence_coef=0.7,
        label_smoothing=0.1,
    )
    last = DPOObjective(
        loss_type=losses[-1:], loss_weights=weights[-1:], f_divergence_type=name, f_alpha_divergence_coef=0.7
    )
    ours = sum(summed(objective, [batch], [columns])[0].item() for objective in (plain, others, last))
    assert ours == pytest.approx(theirs.item(), rel=1e-6)


def test_trl_has_no_conservative_dpo() -> None:
    batch = make_batch(RECORDS)
    columns = random_columns(batch)
    smoothed, plain = (trl_dpo(batch, columns, loss_types=["sigmoid"], label_smoothing=e)[0] for e in (0.2, 0.0))
    assert smoothed.item() == plain.item()
    ours = summed(DPOObjective(label_smoothing=0.2), [batch], [columns])[0]
    assert ours.item() != pytest.approx(plain.item(), abs=1e-3)


@pytest.mark.parametrize("name", AOT)
def test_trl_sorts_each_micro_batch_alone(name: str) -> None:
    batch = make_batch(RECORDS)
    columns = random_columns(batch, 6)
    whole = trl_dpo(batch, columns, loss_types=[name])[0].item()
    batches, parts = split(RECORDS, columns, (2,), make_batch)
    halves = [trl_dpo(*part, loss_types=[name])[0].item() for part in zip(batches, parts, strict=True)]
    assert sum(halves) / 2 != pytest.approx(whole, abs=1e-6)
    assert summed(AOTObjective(loss_type=(name,)), batches, parts)[0].item() == pytest.approx(whole, abs=1e-9)


@pytest.mark.parametrize("name", ["ipo", "sigmoid_norm"])
def test_trl_divides_by_a_token_that_it_does_not_score(name: str) -> None:
    """huggingface/trl#6879: without a prompt the reply's first token is not scored, and is counted."""
    scored = random_columns(make_batch([pair(3, 4, prompt=1)]))
    batch = make_batch([pair(3, 4, prompt=1)])
    theirs, _ = trl_dpo(batch, scored, prompt=1, loss_types=[name])
    assert summed(DPOObjective(loss_type=(name,)), [batch], [scored])[0].item() == pytest.approx(theirs.item())
    # The same replies where their first token is the row's first: one scored token fewer than the mask says.
    longer = make_batch([pair(4, 5, prompt=1)])
    columns = {
        key: torch.cat([torch.zeros(1).double(), value[:3], torch.zeros(1).double(), value[3:]])
        for key, value in scored.items()
    }
    fault, _ = trl_dpo(longer, columns, prompt=0, loss_types=[name])
    ratios = (scored["policy.logp"] - scored["reference.logp"]).detach()
    delta = float(ratios[:3].sum() / 4 - ratios[3:].sum() / 5)  # of three and four scored tokens
    wrong = (delta - 5) ** 2 if name == "ipo" else math.log1p(math.exp(-0.1 * delta))
    assert fault.item() == pytest.approx(wrong)
    assert fault.item() != pytest.approx(theirs.item(), abs=1e-4)


def test_trl_averages_over_micro_batches_of_unequal_size() -> None:
    """Its loss of an update depends on the split: a token mean and a pair mean a micro-batch, then their mean."""
    batch = make_batch(RECORDS)
    columns = random_columns(batch)
    cut = len(make_batch(RECORDS[:1]).reply_of)
    parts = [
        (make_batch(RECORDS[:1]), {name: value[:cut] for name, value in columns.items()}),
        (make_batch(RECORDS[1:]), {name: value[cut:] for name, value in columns.items()}),
    ]
    for name in ("sigmoid", "sft"):
        whole = trl_dpo(batch, columns, loss_types=[name])[0].item()
        halves = [trl_dpo(*part, loss_types=[name])[0].item() for part in parts]
        assert sum(halves) / 2 != pytest.approx(whole, abs=1e-4)
        ours = summed(DPOObjective(loss_type=(name,)), [part[0] for part in parts], [part[1] for part in parts])[0]
        assert ours.item() == pytest.approx(whole, abs=1e-9)


def unpaired(scores: Sequence[float]) -> list[Record]:
    return [Record((Reply(n + 1, ReplyRole.REPLY, score),)) for n, score in enumerate(scores)]


def trl_kto(
    batch: FeedbackBatch, columns: dict[str, Tensor], kl: Tensor, loss_type: str
) -> tuple[Tensor, dict[str, float]]:
    """The loss of TRL's KTOTrainer; ``kl`` are the log-ratios of mismatched replies, one a prompt."""
    replies = list(range(batch.num_replies))
    model, inputs = trainer_inputs(batch, columns, replies, 4)
    inputs["label"] = torch.tensor(batch.scores > 0.5)
    inputs["ref_logps"] = padded(batch, columns["reference.logp"], replies, 4).sum(1)
    inputs["ref_KL_logps"] = torch.zeros_like(kl)
    self = trainer(
        model,
        _compute_kl_logps=lambda *_: kl,
        precompute_ref_logps=True,
        calculate_KL=loss_type == "kto",
        loss_type=loss_type,
        beta=0.4,
        desirable_weight=1.5,
        undesirable_weight=0.7,
    )
    loss: Tensor = KTOTrainer._compute_loss(self, model, inputs, False)
    return loss, {name: values[-1] for name, values in self._metrics["train"].items()}


@pytest.mark.parametrize("scores", [(1.0, 0.0, 0.0, 1.0), (1.0, 1.0), (0.0, 0.0, 0.0)])
def test_kto(scores: tuple[float, ...]) -> None:
    for seed in range(3):
        records = unpaired(scores)
        partner = make_batch(records[1:] + records[:1])
        batch = make_batch(records, partner=partner)
        columns, others = random_columns(batch, seed), random_columns(partner, seed + 9)
        ratios = (others["policy.logp"] - others["reference.logp"]).detach() + (2.0 if seed else -2.0)
        kl = torch.zeros(len(scores), dtype=torch.float64).index_add(0, partner.reply_of, ratios)
        theirs, their_metrics = trl_kto(batch, columns, kl, "kto")
        objective = KTOObjective(beta=0.4, desirable_weight=1.5, undesirable_weight=0.7)
        found = {"policy.logp": ratios, "reference.logp": torch.zeros_like(ratios)}
        (given,) = objective.prepass([found], [batch], lambda numbers: numbers)
        output = objective.loss({**columns, **given}, batch.with_given(given))
        ours = output.terms["kto"].sum / output.terms["kto"].count
        assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
        logp = columns["policy.logp"]
        torch.testing.assert_close(*(torch.autograd.grad(x, logp)[0] for x in (ours, theirs)), atol=1e-6, rtol=0)
        for name, value in their_metrics.items():
            if name not in ("num_tokens", "rewards/margins"):
                total, count = output.metrics[name]
                assert total / count == pytest.approx(value, abs=1e-5), name


def test_trl_has_a_z0_for_each_micro_batch() -> None:
    records = unpaired((1.0, 0.0))
    batch = make_batch(records)
    columns = random_columns(batch)
    kl = torch.tensor([-3.0, 2.0], dtype=torch.float64)
    whole = trl_kto(batch, columns, kl, "kto")[0].item()
    halves = [
        trl_kto(make_batch(records[:1]), {k: v[:1] for k, v in columns.items()}, kl[:1], "kto")[0].item(),
        trl_kto(make_batch(records[1:]), {k: v[1:] for k, v in columns.items()}, kl[1:], "kto")[0].item(),
    ]
    assert sum(halves) / 2 != pytest.approx(whole, abs=1e-4)


@pytest.mark.parametrize(
    ("loss_type", "smoothing"), [("sigmoid", 0.0), ("sigmoid", 0.2), ("hinge", 0.0), ("ipo", 0.0), ("simpo", 0.0)]
)
def test_cpo_and_simpo(loss_type: str, smoothing: float) -> None:
    batch = make_batch(RECORDS)
    columns = random_columns(batch)
    means = loss_type in ("ipo", "simpo")
    logps = torch.zeros(8, dtype=torch.float64).index_add(0, batch.reply_of, columns["policy.logp"])
    logps = logps / torch.bincount(batch.reply_of) if means else logps
    device = SimpleNamespace(device=torch.device("cpu"))
    self = SimpleNamespace(
        alpha=0.0, beta=1.3, loss_type=loss_type, simpo_gamma=0.4, label_smoothing=smoothing, accelerator=device
    )
    losses, chosen, rejected = CPOTrainer.cpo_loss(self, logps[0::2], logps[1::2])
    objective: Any = (
        SimPOObjective(beta=1.3, simpo_gamma=0.4)
        if loss_type == "simpo"
        else CPOObjective(beta=1.3, loss_type=loss_type, label_smoothing=smoothing, cpo_alpha=0.0)
    )
    ours, metrics, _ = summed(objective, [batch], [columns])
    assert ours.item() == pytest.approx(losses.mean().item(), abs=1e-6)
    assert metrics["rewards/chosen"] == pytest.approx(chosen.mean().item(), abs=1e-6)
    assert metrics["rewards/rejected"] == pytest.approx(rejected.mean().item(), abs=1e-6)


def test_orpo() -> None:
    batch = make_batch(RECORDS)
    columns = random_columns(batch)
    means = torch.zeros(8, dtype=torch.float64).index_add(0, batch.reply_of, columns["policy.logp"])
    means = means / torch.bincount(batch.reply_of)
    self = SimpleNamespace(beta=0.3, accelerator=SimpleNamespace(device=torch.device("cpu")))
    losses, _, _, ratio, odds = ORPOTrainer.odds_ratio_loss(self, means[0::2], means[1::2])
    _, metrics, (output,) = summed(ORPOObjective(beta=0.3), [batch], [columns])
    term = output.terms["odds_ratio"]
    assert (term.sum * term.weight / term.count).item() == pytest.approx(-losses.mean().item(), abs=1e-6)
    assert metrics["log_odds_ratio"] == pytest.approx(ratio.item(), abs=1e-6)
    assert metrics["log_odds_chosen"] == pytest.approx(odds.item(), abs=1e-6)


def test_trl_orpo_has_no_value_for_a_certain_reply() -> None:
    """log(1 - 1) is minus infinity, and its gradient is not a number; ours takes the largest number below 1."""
    certain = torch.zeros(1, requires_grad=True)
    self = SimpleNamespace(beta=0.3, accelerator=SimpleNamespace(device=torch.device("cpu")))
    losses, *_ = ORPOTrainer.odds_ratio_loss(self, torch.full((1,), -1.0), certain)
    losses.sum().backward()
    assert certain.grad is not None
    assert not certain.grad.isfinite().all()
    batch = make_batch([pair(1, 1)])
    columns = random_columns(batch, dtype=torch.float32)
    columns["policy.logp"] = torch.tensor([-1.0, 0.0], requires_grad=True)
    loss = summed(ORPOObjective(), [batch], [columns])[0]
    loss.backward()
    assert columns["policy.logp"].grad is not None
    assert columns["policy.logp"].grad.isfinite().all()
    assert loss.isfinite()
