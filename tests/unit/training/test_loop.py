"""What the loop does around an update: checks, signals, metrics, checkpoints."""

from __future__ import annotations

import ast
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from torch import Tensor

import alignite.training
from alignite.errors import NumericsError, Preempted
from alignite.objectives.sft import SFTObjective
from alignite.training.checkpoint import newest_valid
from alignite.types import LossOutput, Term


def rows() -> toy.ToySet:
    return toy.ToySet([[row] for row in toy.eight_rows()])


def weights(loop: Any) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in loop.models["policy"].named_parameters()}


class Poisoned(SFTObjective):
    """Spoils the loss, or only its gradient, of the update ``at``."""

    def __init__(self, at: int, kind: str) -> None:
        self.calls, self.at, self.kind = 0, at, kind

    def loss(self, columns: Mapping[str, Tensor], batch: Any) -> LossOutput:
        output = super().loss(columns, batch)
        self.calls += 1
        if self.calls != self.at:
            return output
        term = output.terms["sft"]
        if self.kind == "loss":
            return LossOutput({"sft": Term(term.sum * float("nan"), term.count)}, output.metrics)
        zero = term.sum - term.sum.detach()
        # sqrt(0) is 0 and its slope infinite: the loss is fine and the gradient is not.
        return LossOutput({"sft": Term(term.sum + (zero * zero).sqrt(), term.count)}, output.metrics)


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_what_is_not_finite_is_never_applied(tmp_path: Path, kind: str) -> None:
    loop = toy.make_loop(tmp_path, toy.tiny_llama(), rows(), Poisoned(3, kind), per_device_train_batch_size=4)
    before: list[dict[str, Tensor]] = []
    step = loop.optimizer.step

    def noted(rate: float, norm: Tensor) -> None:
        step(rate, norm)
        before.append(weights(loop))

    loop.optimizer.step = noted  # type: ignore[method-assign]
    with pytest.raises(NumericsError) as caught:
        loop.run()
    assert caught.value.exit_code == 5
    assert f"{kind} of update 3 is not finite" in str(caught.value)
    assert len(before) == 2
    for name, value in weights(loop).items():
        assert torch.equal(value, before[-1][name]), name
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2


def test_the_error_names_the_term(tmp_path: Path) -> None:
    loop = toy.make_loop(tmp_path, toy.tiny_llama(), rows(), Poisoned(1, "loss"))
    with pytest.raises(NumericsError) as caught:
        loop.run()
    assert caught.value.where == "sft"


def test_sigterm_saves_then_stops_and_the_run_goes_on(tmp_path: Path) -> None:
    options: dict[str, Any] = {"per_device_train_batch_size": 4, "num_train_epochs": 2}
    straight = toy.make_loop(tmp_path / "straight", toy.tiny_llama(), rows(), **options)
    straight.run()

    class Terminated(SFTObjective):
        calls = 0

        def loss(self, columns: Mapping[str, Tensor], batch: Any) -> LossOutput:
            self.calls += 1
            if self.calls == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().loss(columns, batch)

    handler = signal.getsignal(signal.SIGTERM)
    run = tmp_path / "stopped"
    with pytest.raises(Preempted) as caught:
        toy.make_loop(run, toy.tiny_llama(), rows(), Terminated(), **options).run()
    assert caught.value.exit_code == 75
    assert signal.getsignal(signal.SIGTERM) is handler
    saved = newest_valid(run)
    assert saved is not None
    assert saved.step == 2

    again = toy.make_loop(run, toy.tiny_llama(seed=5), rows(), **options)
    assert again.run(saved).step == 4
    for name, value in weights(straight).items():
        assert torch.equal(value, weights(again)[name]), name


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    class Interrupted(SFTObjective):
        def loss(self, columns: Mapping[str, Tensor], batch: Any) -> LossOutput:
            os.kill(os.getpid(), signal.SIGINT)
            return super().loss(columns, batch)

    with pytest.raises(KeyboardInterrupt, match="stopped after update 1; the same command continues"):
        toy.make_loop(tmp_path, toy.tiny_llama(), rows(), Interrupted()).run()
    assert (tmp_path / "checkpoint-1" / "MANIFEST.json").is_file()


def test_metrics_have_the_promised_names_and_a_resumed_run_cuts_them_back(tmp_path: Path) -> None:
    options: dict[str, Any] = {"per_device_train_batch_size": 2, "num_train_epochs": 1, "save_steps": 2}
    toy.make_loop(tmp_path, toy.tiny_llama(), rows(), **options).run()
    path = tmp_path / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    names = {"step", "time", "loss", "grad_norm", "learning_rate", "num_tokens", "epoch", "mean_token_accuracy"}
    assert all(line.keys() == names | {"entropy", "tokens_per_second"} for line in lines)
    assert lines[-1]["num_tokens"] == sum(len(ids) for ids, _ in toy.eight_rows())
    assert lines[-1]["epoch"] == 1.0

    saved = [line for line in lines if line["step"] <= 2]
    from alignite.training.checkpoint import read_checkpoint

    resumed = toy.make_loop(tmp_path, toy.tiny_llama(), rows(), **options)
    resumed.run(read_checkpoint(tmp_path / "checkpoint-2"))
    again = [json.loads(line) for line in path.read_text().splitlines()]
    assert again[:2] == saved
    assert [line["step"] for line in again] == [1, 2, 3, 4]
    volatile = ("time", "tokens_per_second")
    for before, after in zip(lines, again, strict=True):
        assert {k: v for k, v in before.items() if k not in volatile} == {
            k: v for k, v in after.items() if k not in volatile
        }


def test_a_finished_run_says_so(tmp_path: Path) -> None:
    toy.make_loop(tmp_path, toy.tiny_llama(), rows(), num_train_epochs=1).run()
    saved = newest_valid(tmp_path)
    result = toy.make_loop(tmp_path, toy.tiny_llama(), rows(), num_train_epochs=1).run(saved)
    assert result.was_finished
    assert result.step == 1
    assert result.metrics["loss"] > 0


def test_the_gradient_is_clipped_to_its_global_norm(tmp_path: Path) -> None:
    loop = toy.make_loop(tmp_path, toy.tiny_llama(), rows(), max_steps=1, max_grad_norm=0.01)
    norms = []
    adamw = loop.optimizer._adamw
    step = adamw.step

    def noted(*args: Any, **kwargs: Any) -> Any:
        gradients = [p.grad for group in adamw.param_groups for p in group["params"]]
        norms.append(float(torch.cat([gradient.flatten() for gradient in gradients]).norm()))
        return step(*args, **kwargs)

    adamw.step = noted  # type: ignore[method-assign]
    metrics = loop.run().metrics
    assert metrics["grad_norm"] > 0.1
    assert norms == [pytest.approx(0.01, rel=1e-3)]


def test_terms_keep_their_own_counts_and_weights(tmp_path: Path) -> None:
    class TwoTerms(SFTObjective):
        def counts(self, batch: Any) -> dict[str, float]:
            return {"sft": 1.0, "other": 2.0}

        def loss(self, columns: Mapping[str, Tensor], batch: Any) -> LossOutput:
            one = columns["policy.logp"].sum() * 0.0 + 1.0
            return LossOutput({"sft": Term(one * 3.0, 1.0), "other": Term(one * 8.0, 2.0, weight=0.5)})

    options: dict[str, Any] = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "max_steps": 1}
    loop = toy.make_loop(tmp_path, toy.tiny_llama(), rows(), TwoTerms(), **options)
    assert loop.run().metrics["loss"] == pytest.approx(3.0 + 0.5 * 4.0)


def test_bfloat16_weights_have_float32_masters_that_resume_exactly(tmp_path: Path) -> None:
    options: dict[str, Any] = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "save_steps": 2}
    loop = toy.make_loop(tmp_path, toy.tiny_llama(dtype=torch.bfloat16), rows(), **options)
    first = loop.run()
    assert all(master.dtype == torch.float32 for master in loop.optimizer.masters.values())
    for name, parameter in loop.optimizer.parameters.items():
        assert parameter.dtype == torch.bfloat16
        assert torch.equal(parameter, loop.optimizer.masters[name].bfloat16())
    from alignite.training.checkpoint import read_checkpoint

    again = toy.make_loop(tmp_path, toy.tiny_llama(7, torch.bfloat16), rows(), **options)
    second = again.run(read_checkpoint(tmp_path / "checkpoint-2"))
    assert second.metrics["loss"] == first.metrics["loss"]
    for name, master in loop.optimizer.masters.items():
        assert torch.equal(master, again.optimizer.masters[name]), name


def test_training_knows_no_kind_of_objective() -> None:
    folder = Path(alignite.training.__file__).parent
    kinds = {"sft", "dpo", "ppo", "grpo", "raft", "rrhf", "slic", "reward", "preference", "prm"}
    checked = 0
    for file in sorted(folder.glob("*.py")):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom | ast.Import):
                modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [n.name for n in node.names]
                assert not any(module.startswith("alignite.objectives") for module in modules), file.name
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("isinstance", "type")
            ):
                assert "objective" not in ast.unparse(node), f"{file.name}:{node.lineno}"
            if isinstance(node, ast.If | ast.IfExp | ast.Match):
                test = node.subject if isinstance(node, ast.Match) else node.test
                checked += 1
                words = {part.value for part in ast.walk(test) if isinstance(part, ast.Constant)}
                names = {part.attr for part in ast.walk(test) if isinstance(part, ast.Attribute)}
                names |= {part.id for part in ast.walk(test) if isinstance(part, ast.Name)}
                assert not kinds & {word.lower() for word in words if isinstance(word, str)}, (
                    f"{file.name}:{node.lineno}"
                )
                assert not any("objective" in name.lower() for name in names), f"{file.name}:{node.lineno}"
    assert checked > 20
