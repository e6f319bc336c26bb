"""A reward model trained with LoRA scores the same as an adapter, merged, and in transformers and PEFT."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from alignite.cli.main import main
from alignite.config import PRMConfig, RewardConfig
from alignite.data import ChatTokenizer
from alignite.errors import AdapterError, ModelError
from alignite.models.reward_files import load_reward_model, save_reward_model
from alignite.models.score_head import ScoreHead, score_scale, seat_head, set_score_scale
from alignite.peft import LoraConfig, apply_adapter, save_adapter
from alignite.scoring.process_reward import ProcessRewardModel
from alignite.scoring.reward import RewardModel
from alignite.trainers.reward import PRMTrainer, RewardTrainer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import peft

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

PAIRS = [{"prompt": f"Say {n}.", "chosen": f"{n} it is", "rejected": "no " * (1 + n % 3)} for n in range(8)]
STEPS = [
    {"prompt": f"{n} + 1?", "completions": ["I add one.", f"It is {n + 1}."], "labels": [True, n % 2 == 0]}
    for n in range(8)
]
PROMPTS, REPLIES = ["Say 3.", "Say 3.", "Who?"], ["3 it is", "no no", "me"]
SOLUTIONS = ["I add one.\nIt is 4.", "It is 5.", "So:\nI add\nsix"]
OPTIONS: dict[str, Any] = {"max_steps": 3, "learning_rate": 0.02, "num_samples": 0, "per_device_train_batch_size": 4}
LORA = LoraConfig(r=4, lora_alpha=16)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
HEAD = "base_model.model.score.weight"


@pytest.fixture(scope="module")
def base(tiny_model_folder: Path) -> str:
    return str(tiny_model_folder)


@pytest.fixture(scope="module")
def reward_run(base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "reward"
    RewardTrainer(base, RewardConfig(output_dir=str(run), **OPTIONS), PAIRS, peft_config=LORA).train()
    return run


@pytest.fixture(scope="module")
def prm_run(base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "prm"
    config = PRMConfig(output_dir=str(run), num_classes=3, neutral="ignore", **OPTIONS)
    PRMTrainer(base, config, STEPS, peft_config=LORA).train()
    return run


def merged(base: str | Path, run: Path, folder: Path) -> Path:
    assert main(["merge", "--model", str(base), "--adapter", str(run), "--output_dir", str(folder)]) == 0
    return folder


def ids_of(base: str, prompt: str, reply: str) -> torch.Tensor:
    tokenizer = ChatTokenizer.from_folder(base)
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]
    ids = tokenizer.encode(tokenizer.render(turns))
    return torch.tensor(ids[: len(ids) - ids[::-1].index(2)])[None]  # up to the token that ends the turn


def test_a_reward_adapter_and_what_it_is_merged_into(
    base: str, reward_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = RewardModel.from_folder(reward_run)
    wanted = ours.score(PROMPTS, REPLIES)
    assert wanted.std() > 1e-3
    assert RewardModel.from_folder(reward_run, base=base).score(PROMPTS, REPLIES).tolist() == wanted.tolist()
    folder = merged(base, reward_run, tmp_path / "merged")
    # All linears of both layers, and the head.
    assert "merged 15 modules" in capsys.readouterr().out
    assert RewardModel.from_folder(folder).score(PROMPTS, REPLIES) == pytest.approx(wanted, abs=1e-5)
    alone, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    assert torch.equal(alone.score.weight.detach(), load_file(reward_run / "adapter_model.safetensors")[HEAD])
    seated = peft.PeftModel.from_pretrained(
        AutoModelForSequenceClassification.from_pretrained(base, num_labels=1), str(reward_run)
    )
    for theirs in (alone.eval().requires_grad_(False), seated.eval().requires_grad_(False)):
        found = [theirs(input_ids=ids_of(base, p, r)).logits.item() for p, r in zip(PROMPTS, REPLIES, strict=True)]
        assert found == pytest.approx(wanted.tolist(), abs=1e-4)


def test_a_process_reward_adapter(base: str, prm_run: Path, tmp_path: Path) -> None:
    ours = ProcessRewardModel.from_folder(prm_run)
    wanted = ours.step_scores(PROMPTS, SOLUTIONS)
    assert [len(values) for values in wanted] == [2, 1, 3]
    again = ProcessRewardModel.from_folder(merged(base, prm_run, tmp_path / "merged"))
    for one, other in zip(again.step_scores(PROMPTS, SOLUTIONS), wanted, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    seated = peft.PeftModel.from_pretrained(
        AutoModelForSequenceClassification.from_pretrained(base, num_labels=3), str(prm_run)
    ).eval()
    # The last step's last character stands before the token that ends the turn.
    classes = seated(input_ids=ids_of(base, PROMPTS[1], SOLUTIONS[1])[:, :-1]).logits[0].softmax(0).detach().numpy()
    assert wanted[1][0] == pytest.approx(classes[1:].sum(), abs=1e-5)
    strict = ProcessRewardModel.from_folder(prm_run, neutral_is_good=False).step_scores(PROMPTS, SOLUTIONS)
    assert strict[1][0] == pytest.approx(classes[2], abs=1e-5)


def test_an_adapter_on_a_reward_model_keeps_gain_offset_and_bias(base: str, tmp_path: Path) -> None:
    model = load_reward_model(base)
    set_score_scale(model, [2.0], [-0.5])
    save_reward_model(model, tmp_path / "reward", base)
    config = RewardConfig(output_dir=str(tmp_path / "run"), **OPTIONS)
    RewardTrainer(tmp_path / "reward", config, PAIRS, peft_config=LORA).train()
    ours = RewardModel.from_folder(tmp_path / "run")
    assert score_scale(ours.model) == ([2.0], [-0.5])
    folder = merged(tmp_path / "reward", tmp_path / "run", tmp_path / "merged")
    fields = json.loads((folder / "config.json").read_text())
    assert (fields["score_gain"], fields["score_offset"]) == ([2.0], [-0.5])
    assert RewardModel.from_folder(folder).score(PROMPTS, REPLIES) == pytest.approx(
        ours.score(PROMPTS, REPLIES), abs=1e-5
    )


def test_a_head_with_a_bias_as_token_classifiers_have_it(base: str, tmp_path: Path) -> None:
    biased = load_reward_model(base)
    seat_head(biased, ScoreHead(32, 2, bias=True))
    save_reward_model(biased, tmp_path / "biased", base)
    biased = load_reward_model(tmp_path / "biased")
    apply_adapter(biased, LoraConfig(r=2, init_lora_weights=False).for_scores())
    with torch.no_grad():
        for name, parameter in biased.named_parameters():
            if "score.adapters" in name:
                parameter.add_(0.3)
    save_adapter(biased, tmp_path / "on-biased", base_model_name_or_path=str(tmp_path / "biased"))
    adapted = RewardModel(biased, ChatTokenizer.from_folder(base)).score(PROMPTS, REPLIES)
    assert RewardModel.from_folder(tmp_path / "on-biased").score(PROMPTS, REPLIES) == pytest.approx(adapted, abs=1e-6)
    folder = merged(tmp_path / "biased", tmp_path / "on-biased", tmp_path / "merged-biased")
    assert RewardModel.from_folder(folder).score(PROMPTS, REPLIES) == pytest.approx(adapted, abs=1e-5)


def test_bases_that_are_not_there_and_adapters_without_a_head(base: str, reward_run: Path, tmp_path: Path) -> None:
    shutil.copytree(reward_run, tmp_path / "moved", ignore=shutil.ignore_patterns("prepared*", "checkpoint*"))
    file = tmp_path / "moved" / "adapter_config.json"
    fields = json.loads(file.read_text())
    file.write_text(json.dumps(fields | {"base_model_name_or_path": "nowhere/at/all"}))
    with pytest.raises(AdapterError, match=r"nowhere/at/all(.|\n)*--base_model"):
        RewardModel.from_folder(tmp_path / "moved")
    with pytest.raises(ModelError, match="no model folder"):
        RewardModel.from_folder(tmp_path / "moved", base=tmp_path / "not-there")
    found = RewardModel.from_folder(tmp_path / "moved", base=base).score(PROMPTS, REPLIES)
    assert found.tolist() == RewardModel.from_folder(reward_run).score(PROMPTS, REPLIES).tolist()
    file.write_text(json.dumps(fields | {"base_model_name_or_path": None}))
    with pytest.raises(AdapterError, match="names no base model"):
        RewardModel.from_folder(tmp_path / "moved")
    with pytest.raises(AdapterError, match=r"no adapter_config\.json"):
        RewardModel.from_folder(base, base=base)

    model = load_reward_model(base)
    apply_adapter(model, LoraConfig(r=2))
    save_adapter(model, tmp_path / "headless", base_model_name_or_path=base)
    with pytest.raises(AdapterError, match="its base has none"):
        RewardModel.from_folder(tmp_path / "headless")
    save_reward_model(load_reward_model(base), tmp_path / "reward", base)
    assert np.isfinite(RewardModel.from_folder(tmp_path / "headless", base=tmp_path / "reward").score(["q"], ["a"]))

    tensors = load_file(tmp_path / "moved" / "adapter_model.safetensors")
    tensors[HEAD] = tensors[HEAD].repeat(2, 1)
    save_file(tensors, tmp_path / "moved" / "adapter_model.safetensors")
    file.write_text(json.dumps(fields))
    with pytest.raises(AdapterError, match="does not fit"):
        RewardModel.from_folder(tmp_path / "moved", base=tmp_path / "reward")  # one head there, two here
    assert RewardModel.from_folder(tmp_path / "moved").score(["q"], ["a"]).shape == (1, 2)


def test_a_tokenizer_beside_the_adapter_is_the_adapters(base: str, reward_run: Path, tmp_path: Path) -> None:
    shutil.copytree(reward_run, tmp_path / "moved", ignore=shutil.ignore_patterns("prepared*", "checkpoint*"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(base) / name, tmp_path / "moved" / name)
    settings = json.loads((tmp_path / "moved" / "tokenizer_config.json").read_text())
    settings["chat_template"] = settings["chat_template"].replace("assistant", "model")
    (tmp_path / "moved" / "tokenizer_config.json").write_text(json.dumps(settings))
    assert RewardModel.from_folder(tmp_path / "moved").tokenizer.folder == tmp_path / "moved"


def test_the_base_is_the_one_that_the_adapter_names(
    base: str, reward_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["merge", "--adapter", str(reward_run), "--output_dir", str(tmp_path / "merged")]) == 0
    wanted = RewardModel.from_folder(reward_run).score(PROMPTS, REPLIES)
    assert RewardModel.from_folder(tmp_path / "merged").score(PROMPTS, REPLIES) == pytest.approx(wanted, abs=1e-5)
    model = load_reward_model(base)
    apply_adapter(model, LoraConfig(r=2).for_scores())
    save_adapter(model, tmp_path / "nameless")
    assert main(["merge", "--adapter", str(tmp_path / "nameless"), "--output_dir", str(tmp_path / "other")]) == 2
    assert "add --model" in capsys.readouterr().err


def test_their_cards_say_how_they_are_used(
    base: str, reward_run: Path, prm_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs: Any = (
        (reward_run, "reward_model", RewardModel, "replies"),
        (prm_run, "process_reward_model", None, "the steps of solutions"),
    )
    for run, name, model, what in runs:
        text = (run / "README.md").read_text()
        assert f"alignite score --{name}={run} --base_model={base} --data rows.jsonl" in text
        assert f"trained with alignite to score {what} on" in text
        assert "pipeline_tag: text-classification" in text
        assert not re.search("alignite generate|CausalLM|supervised|sft", text)
        (block,) = BLOCK.findall(text)
        capsys.readouterr()
        exec(block, {"__name__": "card"})
        if model is not None:
            wanted = model.from_folder(run).score(["What is 2+2?"], ["4"])
            assert capsys.readouterr().out.strip() == str(wanted)
    text = (merged(base, reward_run, tmp_path / "merged") / "README.md").read_text()
    assert "alignite score --reward_model=path/to/this/folder --data" in text
    assert "in the weights of its base" in text
