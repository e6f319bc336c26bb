"""Sums over the whole vocabulary, and their gradients, against full logits; no more logits than a chunk's."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from feedback_batches import Record, Reply, make_batch
from full_logits import VARIANTS, log_softmax
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from alignite.config import QuarkConfig, SLiCConfig
from alignite.errors import ConfigError, ModelError, UsageError
from alignite.models.columns import compute_columns
from alignite.models.head import Head
from alignite.models.loading import load_model
from alignite.models.whole_vocabulary import vocabulary_sums
from alignite.objectives.quark import QuarkObjective
from alignite.objectives.slic import SLiCObjective
from alignite.peft import LoraConfig, apply_adapter
from alignite.peft.seat import adapter_parameters
from alignite.trainers.methods import trainer_of
from alignite.trainers.reference import adapter_off
from alignite.types import Objective, ReplyRole

NAMES = ("kl", "forward_kl", "entropy", "mean_logp")


def made(variant: str, seed: int, dtype: torch.dtype, bias: bool) -> tuple[Head, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(50, 12, generator=generator, dtype=dtype) / 4
    b = torch.randn(50, generator=generator, dtype=dtype) / 4 if bias else None
    return Head(weight, b, **VARIANTS[variant]), torch.randn(23, 12, generator=generator, dtype=dtype)


def dense(logp: Tensor, logq: Tensor) -> tuple[Tensor, ...]:
    p, q = logp.exp(), logq.exp()
    return (p * (logp - logq)).sum(-1), (q * (logq - logp)).sum(-1), -(p * logp).sum(-1), logp.mean(-1)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_against_full_logits(variant: str, trained: bool, dtype: torch.dtype, chunk: int) -> None:
    head, hidden = made(variant, 0, dtype, bias=trained)
    reference, other = made("plain", 1, dtype, bias=not trained)
    weights = torch.randn(4, 23, generator=torch.Generator().manual_seed(2), dtype=dtype) / 10
    found = []
    for ours in (True, False):
        leaves = [hidden.clone().requires_grad_(), head.weight.clone().requires_grad_(trained)]
        leaves += [head.bias.clone().requires_grad_()] if head.bias is not None else []
        used = Head(leaves[1], leaves[2] if trained else None, head.scale, head.softcap)
        if ours:
            sums: tuple[Tensor, ...] = vocabulary_sums(used, leaves[0], chunk, (reference, other))
        else:
            sums = dense(log_softmax(used, leaves[0]), log_softmax(reference, other))
        (torch.stack(sums) * weights).sum().backward()
        found.append([*sums, *(leaf.grad for leaf in leaves if leaf.requires_grad)])
    assert len(found[0]) == (7 if trained else 5)
    assert all(value.dtype == dtype for value in found[0])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine.detach(), theirs.detach(), rtol=1e-6, atol=1e-6)
    assert (found[0][0] >= 0).all()


def test_gradcheck() -> None:
    head, hidden = made("scaled and capped", 0, torch.float64, bias=True)
    against = made("plain", 1, torch.float64, bias=False)

    def sums(h: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        return vocabulary_sums(Head(w, head.bias, head.scale, head.softcap), h, 5, against)

    assert torch.autograd.gradcheck(sums, (hidden[:6].requires_grad_(), head.weight.requires_grad_()))


def test_no_position_and_no_reference() -> None:
    head, hidden = made("plain", 0, torch.float32, bias=False)
    empty = vocabulary_sums(head, hidden[:0].requires_grad_(), 5)
    assert [value.shape for value in empty] == [(0,)] * 4
    sum(value.sum() for value in empty).backward()  # type: ignore[union-attr]
    plain = vocabulary_sums(head, hidden, 5)
    assert not plain.kl.any()
    assert not plain.forward_kl.any()
    wide = Head(torch.zeros(51, 12), None)
    with pytest.raises(ModelError, match="51 tokens and the policy's 50"):
        vocabulary_sums(head, hidden, 5, (wide, hidden))


def test_logits_far_apart_stay_finite() -> None:
    head, hidden = made("plain", 0, torch.float32, bias=False)
    against = made("plain", 1, torch.float32, bias=False)
    hidden = (hidden * 1e4).requires_grad_()
    sums = vocabulary_sums(head, hidden, 5, (against[0], against[1] * 1e4))
    torch.stack(sums).sum().backward()
    assert all(value.isfinite().all() for value in sums)
    assert hidden.grad is not None
    assert hidden.grad.isfinite().all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model")
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=41, bos_token_id=1, eos_token_id=2, **size)).save_pretrained(path)
    return path


def record(number: int, chosen: int, rejected: int) -> Record:
    """A pair whose tokens are the same in every split."""

    def ids(seed: int, length: int) -> tuple[int, ...]:
        return tuple(3 + (7 * number + 5 * seed + 3 * place) % 37 for place in range(length))

    sides = ((ReplyRole.CHOSEN, chosen), (ReplyRole.REJECTED, rejected))
    return Record(tuple(Reply(role=role, ids=ids(role, length)) for role, length in sides), ids(9, 4))


RECORDS = [record(n, *lengths) for n, lengths in enumerate([(3, 4), (2, 5), (6, 1), (2, 2)])]
OBJECTIVES: dict[str, Objective] = {
    "quark": QuarkObjective(kl_coef=0.5, entropy_coef=0.1),
    "slic": SLiCObjective(reg="kl", lam=2.0),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_update_is_that_of_full_logits_however_it_is_split(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    logits = Head.logits

    def counted(self: Head, hidden: Tensor) -> Tensor:
        rows.append(len(hidden))
        return logits(self, hidden)

    objective = OBJECTIVES[name]
    policy: Any = load_model(folder)
    apply_adapter(policy, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]), seed=1)
    parameters = adapter_parameters(policy)
    with torch.no_grad():
        for index, parameter in enumerate(parameters.values()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)) / 5)
    reference = adapter_off(policy)
    models = {"policy": policy, "reference": reference}

    def update(at: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
        batches = [make_batch(RECORDS[low:high]) for low, high in pairwise((0, *at, len(RECORDS)))]
        counts: dict[str, float] = {}
        for batch in batches:
            for key, count in objective.counts(batch).items():
                counts[key] = counts.get(key, 0.0) + count
        loss = torch.zeros(())
        for batch in batches:
            columns = compute_columns(models, batch, objective.columns, chunk_size=4)
            for key, term in objective.loss(columns, batch).terms.items():
                loss = loss + term.sum * (term.weight / counts[key])
        return loss.detach(), list(torch.autograd.grad(loss, list(parameters.values())))

    whole, gradients = update(())  # the first look at a model, which decides its route, takes more logits
    monkeypatch.setattr(Head, "logits", counted)
    assert update(())[0] == whole
    assert max(rows) <= 4
    for at in ((2,), (1, 2, 3)):
        loss, parts = update(at)
        assert loss.item() == pytest.approx(whole.item(), abs=1e-6)
        for mine, theirs in zip(parts, gradients, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)

    # The same from full logits of each reply behind its own prompt.
    def log_probs(prompt: Any, reply: Reply) -> Tensor:
        row = torch.tensor([[*prompt, *reply.ids]])
        found: Tensor = policy(input_ids=row, use_cache=False).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        return found

    quark, slic, tokens = torch.zeros(()), torch.zeros(()), 0
    for one in RECORDS:
        sums = []
        for reply in one.replies:
            logp = log_probs(one.prompt, reply)
            with torch.no_grad(), reference.context():
                logq = log_probs(one.prompt, reply)
            kl, forward, entropy, _ = dense(logp, logq)
            sums.append(logp.gather(1, torch.tensor(reply.ids)[:, None]).sum())
            quark = quark - sums[-1] + (0.5 * kl - 0.1 * entropy).sum()
            tokens += len(reply.ids)
            if reply.role == ReplyRole.CHOSEN:
                slic = slic + 2.0 * forward.sum()
        slic = slic + (1 - sums[0] + sums[1]).relu()
    expected = quark / tokens if name == "quark" else slic / len(RECORDS)
    assert expected.item() == pytest.approx(whole.item(), abs=1e-5)
    for mine, theirs in zip(gradients, torch.autograd.grad(expected, list(parameters.values())), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_numbers_that_were_computed_before_are_not_enough(
    folder: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    batch = make_batch(RECORDS).with_given({"reference.logp": torch.zeros(25)})
    with pytest.raises(UsageError, match="no reference model"):
        compute_columns({"policy": load_model(folder)}, batch, frozenset({"policy.kl"}))
    options: dict[str, Any] = {"model": str(tiny_model_folder), "precompute_ref_log_probs": True}
    for method, config in (
        ("quark", QuarkConfig(output_dir=str(tmp_path), **options)),
        ("slic", SLiCConfig(output_dir=str(tmp_path), reg="kl", **options)),
    ):
        with pytest.raises(ConfigError, match="compares whole distributions"):
            trainer_of(method, config)
