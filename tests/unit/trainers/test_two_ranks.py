"""A run under torchrun is the run of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import make_model

RUN = """
import sys, torch
from pathlib import Path
folder, out, batch, method = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
options = dict(output_dir=str(out), max_steps=5, per_device_train_batch_size=batch, use_peft=True, learning_rate=1e-2)
words = ["a tree", "the sea at night", "one", "a long walk home"]
if method == "sft":
    from alignite.config import SFTConfig
    from alignite.trainers.sft import SFTTrainer
    rows = [{"prompt": f"Say {n}", "completion": "word " * (1 + n % 4)} for n in range(14)]
    trainer = SFTTrainer(folder, SFTConfig(**options), rows, eval_dataset=rows[:2])
elif method == "kto":  # its z0 couples each row with the next of the whole update
    from alignite.config import KTOConfig
    from alignite.trainers.methods import KTOTrainer
    rows = [{"prompt": f"Say {n}", "completion": words[n % 4], "label": n % 3 > 0} for n in range(14)]
    trainer = KTOTrainer(folder, None, KTOConfig(**options), rows, eval_dataset=rows[:2])
elif method == "dpo":  # the first rank computes the reference's numbers, the second reads them; aot sorts all pairs
    from alignite.config import DPOConfig
    from alignite.trainers.methods import DPOTrainer
    rows = [{"prompt": f"Say {n}", "chosen": words[n % 4], "rejected": words[(n + 1 + n % 2) % 4]} for n in range(14)]
    config = DPOConfig(**options, precompute_ref_log_probs=True, loss_type=["sigmoid", "aot", "aot_unpaired"])
    trainer = DPOTrainer(folder, None, config, rows, eval_dataset=rows[:2])
else:  # rankings of unlike sizes: the counts of an update differ between the ranks
    from alignite.config import RewardConfig
    from alignite.trainers.reward import RewardTrainer
    rows = [{"prompt": f"Say {n}", "completions": words[: 2 + n % 3], "scores": [2.0, 1.0, 3.0, 0.0][: 2 + n % 3]}
            for n in range(14)]
    trainer = RewardTrainer(folder, RewardConfig(**options), rows, eval_dataset=rows[:2])
print(trainer.train().step)
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "kto", "dpo", "reward"])
def test_two_ranks_prepare_once_train_alike_and_equal_one(method: str, tmp_path: Path) -> None:
    make_model(tmp_path / "model", attention_dropout=0.0)
    tests = str(Path(__file__).parent.parent.parent)
    script = tmp_path / "train.py"
    script.write_text(RUN)
    plain = {**os.environ, "PYTHONPATH": tests, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    for name, launch, batch in (("one", [], "4"), ("two", torchrun, "2")):
        command = [*launch, str(script), str(tmp_path / "model"), str(tmp_path / name), batch, method]
        done = subprocess.run([sys.executable, *command], env=plain, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        assert set(done.stdout.split()) <= {"5", "55"}, done.stdout  # two ranks may write into one line
    runs = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert [line["step"] for line in runs[1]] == [line["step"] for line in runs[0]] == [1, 2, 3, 4, 5, 5]
    for left, right in zip(*runs, strict=True):
        for name in left.keys() - {"time", "tokens_per_second"}:
            assert right[name] == pytest.approx(left[name], rel=1e-4, abs=1e-5), name
