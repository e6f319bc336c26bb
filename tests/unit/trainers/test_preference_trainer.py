"""Runs on preferences: which reference stands behind them, what they accept, how they go on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from alignite.cli.main import main
from alignite.config import DPOConfig, KTOConfig, PreferenceConfig, PRMConfig, RewardConfig
from alignite.config.preference import METHOD_CONFIGS
from alignite.errors import AligniteError, ConfigError, DataError, UsageError
from alignite.models.loading import load_model
from alignite.models.reward_files import load_reward_model
from alignite.objectives import KTOObjective
from alignite.peft import LoraConfig
from alignite.trainers.methods import DPOTrainer, KTOTrainer, trainer_of
from alignite.trainers.preference import PreferenceTrainer
from alignite.trainers.reference import weights_hash
from alignite.trainers.reward import PRMTrainer, RewardTrainer

PAIRS: list[dict[str, Any]] = [
    {"prompt": f"Count to {n}.", "chosen": "one two " * (1 + n % 3), "rejected": f"no {n} " * (1 + n % 4)}
    for n in range(10)
]
RANKED: list[dict[str, Any]] = [
    {"prompt": f"Say {n}.", "completions": [f"{n}", "no", f"it is {n}"], "scores": [1.0, 0.0, 0.5]} for n in range(8)
]
LABELLED: list[dict[str, Any]] = [
    {"prompt": f"Say {n}.", "completion": f"{n} " * (1 + n % 3), "label": n % 2 == 0} for n in range(8)
]
STEPS: list[dict[str, Any]] = [
    {"prompt": f"What is {n} + 1?", "completions": ["I add one.", f"It is {n + 1}."], "labels": [True, n % 2 == 0]}
    for n in range(8)
]
ROWS = {
    "kto": LABELLED, "quark": RANKED, "rrhf": RANKED, "contrast": RANKED, "hir": RANKED, "stable_alignment": RANKED,
}  # fmt: skip
SHARED: dict[str, Any] = {
    "max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "num_samples": 0, "shuffle": False,
    "seed": 1,
}  # fmt: skip
LORA = LoraConfig(r=4, lora_alpha=16)


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in lines(run) if "loss" in line]


@pytest.mark.parametrize("method", METHOD_CONFIGS)
def test_every_method_trains_and_leaves_what_it_should(method: str, tiny_model_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = METHOD_CONFIGS[method](model=str(tiny_model_folder), output_dir=str(run), use_peft=True, **SHARED)
    trainer = trainer_of(method, config)
    trainer._train_dataset = ROWS.get(method, PAIRS)
    assert trainer.train().step == 3
    found = lines(run)
    assert len(found) == 3
    assert all(torch.tensor([line["loss"], line["grad_norm"]]).isfinite().all() for line in found)
    assert found[0]["grad_norm"] > 0
    assert (run / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("method", METHOD_CONFIGS)
def test_the_config_says_what_is_minimised(method: str, tiny_model_folder: Path, tmp_path: Path) -> None:
    class Own(METHOD_CONFIGS[method]):  # type: ignore[misc]
        """A config that is derived from the method's is the method's."""

    for config in (METHOD_CONFIGS[method], Own):
        options = config(model=str(tiny_model_folder), output_dir=str(tmp_path / "run"))
        found = PreferenceTrainer(args=options)
        named = trainer_of(method, options)
        assert (found.method, found.objective) == (method, named.objective) == (named.method, found.objective)


def test_a_config_of_no_method_needs_an_objective(tiny_model_folder: Path, tmp_path: Path) -> None:
    for config in (PreferenceConfig(output_dir=str(tmp_path)), RewardConfig(output_dir=str(tmp_path)), None):
        with pytest.raises(UsageError, match="does not say what is minimised"):
            PreferenceTrainer(tiny_model_folder, args=config)
    own = PreferenceTrainer(
        tiny_model_folder, args=PreferenceConfig(output_dir=str(tmp_path)), objective=KTOObjective(), kinds=["unpaired"]
    )
    assert own.method == "KTOObjective"
    run = KTOConfig(output_dir=str(tmp_path / "run"), **SHARED)
    assert PreferenceTrainer(tiny_model_folder, None, run, LABELLED, peft_config=LORA).train().step == 3


def test_the_reference_may_be_the_base_a_model_or_numbers(tiny_model_folder: Path, tmp_path: Path) -> None:
    found = {}
    for name, options in {
        "base": {},
        "model": {"ref_model": str(tiny_model_folder)},
        "numbers": {"precompute_ref_log_probs": True, "precompute_ref_batch_size": 3},
    }.items():
        config = DPOConfig(output_dir=str(tmp_path / name), **SHARED, **options)
        DPOTrainer(tiny_model_folder, None, config, PAIRS, PAIRS[:4], peft_config=LORA).train()
        found[name] = losses(tmp_path / name)
        assert found[name][0] == pytest.approx(0.6931471805599453, abs=1e-6)
    assert found["model"] == pytest.approx(found["base"], abs=1e-6)
    assert found["numbers"] == pytest.approx(found["base"], abs=1e-6)
    files = list((tmp_path / "numbers").glob("prepared*-reference/reference-*.npy"))
    assert len(files) == 2  # of the training and of the evaluation data
    stamp = files[0].stat().st_mtime_ns
    for folder in (tmp_path / "numbers").glob("checkpoint-*"):
        shutil.rmtree(folder)
    config = DPOConfig(output_dir=str(tmp_path / "numbers"), **SHARED, precompute_ref_log_probs=True)
    DPOTrainer(tiny_model_folder, None, config, PAIRS, PAIRS[:4], peft_config=LORA).train()
    assert files[0].stat().st_mtime_ns == stamp


def test_losses_that_sort_an_update_do_not_see_how_it_is_split(tiny_model_folder: Path, tmp_path: Path) -> None:
    found = []
    for batch, accumulation in ((4, 1), (1, 4)):
        split = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        config = DPOConfig(
            output_dir=str(tmp_path / str(batch)),
            loss_type=["aot", "aot_unpaired"],
            **(SHARED | split | {"max_steps": 2, "learning_rate": 1e-2}),
        )
        DPOTrainer(tiny_model_folder, None, config, PAIRS, peft_config=LORA).train()
        found.append(losses(tmp_path / str(batch)))
    assert found[0][0] == pytest.approx(2 * 0.6931471805599453, abs=1e-6)
    assert found[1] == pytest.approx(found[0], abs=1e-5)
    assert found[0][1] != pytest.approx(found[0][0], abs=1e-3)


def test_full_fine_tuning_compares_with_a_copy(tiny_model_folder: Path, tmp_path: Path) -> None:
    model = load_model(tiny_model_folder)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = DPOConfig(output_dir=str(tmp_path / "run"), **SHARED)
    trainer = DPOTrainer(model, None, config, PAIRS, processing_class=tiny_model_folder)
    trainer.train()
    assert losses(tmp_path / "run")[0] == pytest.approx(0.6931471805599453, abs=1e-6)
    assert losses(tmp_path / "run")[-1] < 0.69
    reference: Any = trainer._reference
    assert all(torch.equal(value, before[name]) for name, value in reference.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_numbers_computed_once_need_no_copy(tiny_model_folder: Path, tmp_path: Path) -> None:
    trainers = {}
    for name, options in {"copy": {}, "numbers": {"precompute_ref_log_probs": True}}.items():
        config = DPOConfig(output_dir=str(tmp_path / name), **SHARED, **options)
        trainers[name] = DPOTrainer(tiny_model_folder, None, config, PAIRS, PAIRS[:4])
        trainers[name].train()
    copy, numbers = trainers["copy"], trainers["numbers"]
    assert losses(tmp_path / "numbers") == pytest.approx(losses(tmp_path / "copy"), abs=1e-6)
    assert copy._reference is not None
    assert numbers._reference is None
    # Also of the data that is evaluated later, when the policy is no longer its reference.
    assert numbers.evaluate()["eval_loss"] == pytest.approx(copy.evaluate()["eval_loss"], abs=1e-6)
    numbers._eval_dataset = PAIRS[5:]
    with pytest.raises(AligniteError, match="not computed before training"):
        numbers.evaluate()


def test_numbers_are_of_one_model_alone(tiny_model_folder: Path) -> None:
    model = load_model(tiny_model_folder)
    first = weights_hash(model, "data")
    model.config._name_or_path = "elsewhere"
    assert weights_hash(model, "data") == first
    assert weights_hash(model, "other data") != first
    options = model.config
    options.rms_norm_eps = options.rms_norm_eps * 2
    assert weights_hash(model, "data") != first


def test_a_reference_that_follows(tiny_model_folder: Path, tmp_path: Path) -> None:
    config = DPOConfig(
        output_dir=str(tmp_path / "run"),
        sync_ref_model=True,
        ref_model_sync_steps=3,
        ref_model_mixup_alpha=1.0,
        **SHARED,
    )
    trainer = DPOTrainer(tiny_model_folder, None, config, PAIRS)
    trainer.train()
    policy, reference = trainer.model, trainer._reference
    assert isinstance(policy, torch.nn.Module)
    assert isinstance(reference, torch.nn.Module)
    mine, theirs = dict(policy.named_parameters()), dict(reference.named_parameters())
    assert all(torch.equal(mine[name], value) for name, value in theirs.items())


def test_a_reference_that_follows_is_gone_on_with(tiny_model_folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = SHARED | {"lr_scheduler_type": "constant", "save_steps": 3}
    options |= {"sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 0.5}
    whole = DPOConfig(output_dir=str(tmp_path / "whole"), **(options | {"max_steps": 6}))
    DPOTrainer(tiny_model_folder, None, whole, PAIRS).train()
    for steps in (3, 6):
        parts = DPOConfig(output_dir=str(tmp_path / "parts"), **(options | {"max_steps": steps}))
        DPOTrainer(tiny_model_folder, None, parts, PAIRS).train()
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


@pytest.mark.parametrize("method", ["dpo", "kto", "rrhf"])
def test_accumulation_changes_nothing(method: str, tiny_model_folder: Path, tmp_path: Path) -> None:
    found = []
    for size, accumulation, tokens in ((4, 1, 0), (1, 4, 0), (4, 1, 60)):
        run = tmp_path / f"{size}-{tokens}"
        options = SHARED | {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        config = METHOD_CONFIGS[method](
            model=str(tiny_model_folder), output_dir=str(run), use_peft=True, micro_batch_tokens=tokens, **options
        )
        trainer = trainer_of(method, config)
        trainer._train_dataset = ROWS.get(method, PAIRS)
        trainer.train()
        found.append([(line["loss"], line["grad_norm"]) for line in lines(run)][:2])
    for other in found[1:]:
        assert torch.tensor(other).flatten().tolist() == pytest.approx(
            torch.tensor(found[0]).flatten().tolist(), rel=1e-4
        )


def test_a_run_goes_on_where_it_stopped(tiny_model_folder: Path, tmp_path: Path) -> None:
    options = SHARED | {"max_steps": 6, "save_steps": 3}
    whole = KTOConfig(output_dir=str(tmp_path / "whole"), **options)
    KTOTrainer(tiny_model_folder, None, whole, LABELLED, peft_config=LORA).train()
    config = KTOConfig(output_dir=str(tmp_path / "parts"), **(options | {"max_steps": 3}))
    KTOTrainer(tiny_model_folder, None, config, LABELLED, peft_config=LORA).train()
    config = KTOConfig(output_dir=str(tmp_path / "parts"), **options)
    KTOTrainer(tiny_model_folder, None, config, LABELLED, peft_config=LORA).train()
    # The rate falls towards the last update, which the shorter run had sooner.
    assert len(losses(tmp_path / "parts")) == 6
    assert losses(tmp_path / "parts")[0] == losses(tmp_path / "whole")[0]


def test_rewards_are_learned_saved_and_loaded(tiny_model_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = SHARED | {"max_steps": 30, "learning_rate": 3e-3}
    config = RewardConfig(output_dir=str(run), **options)
    trainer = RewardTrainer(tiny_model_folder, config, PAIRS, PAIRS)
    trainer.train()
    found = lines(run)
    assert found[-1]["eval_accuracy"] > 0.9
    assert {"accuracy", "margin", "min_reward", "mean_reward", "max_reward"} <= found[0].keys()
    again = load_reward_model(run)
    mine = {name: value for name, value in trainer.model.state_dict().items()} if trainer.model else {}
    assert torch.equal(again.state_dict()["score.weight"], mine["score.weight"])
    # The same command again finds the run finished, with all weights as they were.
    assert RewardTrainer(tiny_model_folder, config, PAIRS, PAIRS).train().was_finished


def test_a_reward_adapter(tiny_model_folder: Path, tmp_path: Path) -> None:
    config = RewardConfig(output_dir=str(tmp_path / "run"), **SHARED)
    RewardTrainer(tiny_model_folder, config, RANKED, peft_config=LORA).train()
    written = json.loads((tmp_path / "run" / "adapter_config.json").read_text())
    assert written["task_type"] == "SEQ_CLS"
    assert written["modules_to_save"] == ["score"]


def test_steps_are_learned(tiny_model_folder: Path, tmp_path: Path) -> None:
    config = PRMConfig(output_dir=str(tmp_path / "run"), **(SHARED | {"max_steps": 20, "learning_rate": 3e-3}))
    PRMTrainer(tiny_model_folder, config, STEPS).train()
    found = losses(tmp_path / "run")
    assert found[-1] < found[0]


def test_what_cannot_be_is_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    with pytest.raises(ConfigError, match="packing"):
        DPOTrainer(tiny_model_folder, None, DPOConfig(output_dir=run, packing="bfd"), PAIRS)
    with pytest.raises(ConfigError, match="sync_ref_model"):
        DPOConfig(output_dir=run, sync_ref_model=True, precompute_ref_log_probs=True).validate()
    simpo = type(trainer_of("simpo", METHOD_CONFIGS["simpo"](model=str(tiny_model_folder), output_dir=run)))
    with pytest.raises(ConfigError, match="has no reference"):
        simpo(tiny_model_folder, tiny_model_folder, METHOD_CONFIGS["simpo"](output_dir=run), PAIRS)
    with pytest.raises(AligniteError):  # labelled replies are no pairs
        DPOTrainer(tiny_model_folder, None, DPOConfig(output_dir=run, **SHARED), LABELLED).train()
    same = [{"prompt": "a", "chosen": "b", "rejected": "b"}]
    with pytest.raises(DataError, match="no row is left"):
        DPOTrainer(tiny_model_folder, None, DPOConfig(output_dir=run + "2", **SHARED), same).train()
    assert PreferenceConfig().per_device_train_batch_size == 8


def test_options_without_effect_are_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    moving = DPOConfig(output_dir=run, sync_ref_model=True)
    with pytest.raises(ConfigError, match="sync_ref_model"):
        DPOTrainer(tiny_model_folder, None, moving, PAIRS, peft_config=LORA)
    for name in ("sync_ref_model", "precompute_ref_log_probs"):
        config = DPOConfig(output_dir=run, reference_free=True, **{name: True})
        with pytest.raises(ConfigError, match=name):
            DPOTrainer(tiny_model_folder, None, config, PAIRS)
    with pytest.raises(AligniteError, match="args is a PreferenceConfig"):
        DPOTrainer(tiny_model_folder, None, PreferenceConfig(output_dir=run), PAIRS)


def test_dropout_is_the_adapters_alone_and_never_the_references(tiny_model_folder: Path, tmp_path: Path) -> None:
    config = DPOConfig(output_dir=str(tmp_path / "run"), disable_dropout=False, **(SHARED | {"learning_rate": 1e-12}))
    lora = LoraConfig(r=4, lora_alpha=16, lora_dropout=0.5)
    trainer = DPOTrainer(tiny_model_folder, None, config, PAIRS, peft_config=lora)
    trainer.train()
    # The adapter is still none, so that a policy without dropout is its reference.
    assert losses(tmp_path / "run") == pytest.approx([0.6931471805599453] * 3, abs=1e-6)
    assert trainer.model is not None
    quiet = DPOTrainer(
        tiny_model_folder, None, DPOConfig(output_dir=str(tmp_path / "q"), **SHARED), PAIRS, peft_config=lora
    )
    quiet.train()
    kept = [m.dropout for m in quiet.model.modules() if type(m).__name__ == "LoraAdapter"] if quiet.model else []
    assert set(kept) == {0.5}


def test_a_reference_speaks_the_policys_tokens(tiny_model_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_model_folder, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = DPOConfig(output_dir=str(tmp_path / "run"), **SHARED)
    with pytest.raises(AligniteError, match="another tokenizer"):
        DPOTrainer(tiny_model_folder, other, config, PAIRS).train()


def test_partners_do_not_depend_on_batches(tiny_model_folder: Path, tmp_path: Path) -> None:
    found = []
    for size in (1, 3):
        options = SHARED | {"per_device_eval_batch_size": size, "learning_rate": 1e-2, "per_device_train_batch_size": 1}
        config = KTOConfig(output_dir=str(tmp_path / str(size)), **options)
        KTOTrainer(tiny_model_folder, None, config, LABELLED, LABELLED[:5], peft_config=LORA).train()
        found.append(lines(tmp_path / str(size))[-1])
    assert found[0]["eval_loss"] == pytest.approx(found[1]["eval_loss"], abs=1e-6)
    assert found[0]["eval_kl"] == pytest.approx(found[1]["eval_kl"], abs=1e-6)


def test_a_reward_model_with_a_language_model_term_goes_on(tiny_model_folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = SHARED | {"lr_scheduler_type": "constant", "save_steps": 2, "lm_coefficient": 1.0}
    whole = RewardConfig(output_dir=str(tmp_path / "whole"), **(options | {"max_steps": 4}))
    RewardTrainer(tiny_model_folder, whole, PAIRS).train()
    for steps in (2, 4):
        config = RewardConfig(output_dir=str(tmp_path / "parts"), **(options | {"max_steps": steps}))
        RewardTrainer(tiny_model_folder, config, PAIRS).train()
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_a_column_that_is_not_read_is_named(
    tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "labelled.jsonl"
    data.write_text("".join(json.dumps(row | {"weight": 3}) + "\n" for row in LABELLED))
    words = ["preference", "--objective", "kto", "--model", str(tiny_model_folder), "--data", str(data)]
    assert main([*words, "--output_dir", str(tmp_path / "run"), "--use_peft", "--max_steps", "1"]) == 0
    assert "columns that are not read: weight" in capsys.readouterr().err


def test_what_was_counted_for_nothing_has_no_mean(tiny_model_folder: Path, tmp_path: Path) -> None:
    rows = [row | {"criterion": "helpful"} for row in PAIRS]
    config = RewardConfig(
        output_dir=str(tmp_path / "run"),
        criteria=["helpful", "harmless"],
        metric_for_best_model="eval_accuracy/helpful",
        **SHARED,
    )
    RewardTrainer(tiny_model_folder, config, rows, rows).train()
    found = lines(tmp_path / "run")
    assert "accuracy/helpful" in found[0]
    assert "eval_accuracy/helpful" in found[-1]
    assert not any("harmless" in name for line in found for name in line)


def test_a_run_of_another_method_is_not_gone_on_with(tiny_model_folder: Path, tmp_path: Path) -> None:
    RewardTrainer(tiny_model_folder, RewardConfig(output_dir=str(tmp_path / "run"), **SHARED), PAIRS).train()
    config = DPOConfig(output_dir=str(tmp_path / "run"), **SHARED)
    with pytest.raises(AligniteError, match="by reward, not by dpo"):
        DPOTrainer(tiny_model_folder, None, config, PAIRS).train()
    for folder in (tmp_path / "run").glob("checkpoint-*"):
        shutil.rmtree(folder)
    with pytest.raises(AligniteError, match="by reward, not by dpo"):
        DPOTrainer(tiny_model_folder, None, config, PAIRS).train()
    with pytest.raises(AligniteError, match="it is a reward model"):
        DPOTrainer(tmp_path / "run", None, DPOConfig(output_dir=str(tmp_path / "on"), **SHARED), PAIRS).train()
