"""``alignite merge``"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from alignite.cli.options import check_model_folder, parse
from alignite.config import MergeConfig
from alignite.errors import ResourceError, UsageError


def run(argv: Sequence[str]) -> int:
    """Write a transformers folder whose weights hold the adapter's update."""
    config, as_json = parse(MergeConfig, "alignite merge", "Add an adapter into its base model's weights.", argv)
    config.validate()
    for name in ("adapter", "output_dir"):
        if not getattr(config, name):
            raise UsageError(f"no {name} is given", fix=f"add --{name} DIR")
    target = Path(config.output_dir)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ResourceError("output_dir is not empty", where=str(target), fix="choose a new folder")
    adapter_folder = check_model_folder(config.adapter, "adapter")
    base = config.model or _base_of(adapter_folder)
    model_folder = check_model_folder(base)

    from alignite.evaluation.report.card import write_card
    from alignite.models.loading import load_model, save_model
    from alignite.models.reward_files import head_name, save_reward_model
    from alignite.peft import load_adapter, merge_adapter
    from alignite.peft.score_files import load_score_adapter, score_heads

    if score_heads(adapter_folder) is not None or head_name(model_folder) is not None:
        model, _ = load_score_adapter(adapter_folder, model_folder, dtype=config.dtype)
        report = merge_adapter(model)
        save_reward_model(model, target, model_folder)
    else:
        model = load_model(model_folder, config.dtype)
        load_adapter(model, adapter_folder)
        report = merge_adapter(model)
        save_model(model, target, model_folder)
    # The run that made the adapter: its own folder, or the one that the checkpoint is in. A stranger's has none.
    is_checkpoint = adapter_folder.name.startswith("checkpoint-") and (adapter_folder / "MANIFEST.json").is_file()
    run = adapter_folder.absolute().parent if is_checkpoint else adapter_folder
    write_card(target, run, kind="model", base_model=base, merged=True)
    if as_json:
        print(json.dumps({"output_dir": str(target), "modules": report.modules, "lost": report.lost}))
    else:
        print(f"merged {report.modules} modules into {target}")
    return 0


def _base_of(adapter: Path) -> str:
    from alignite.peft.score_files import base_of

    found = base_of(adapter)
    if found is None:
        raise UsageError("no model is given, and the adapter names none", where=str(adapter), fix="add --model DIR")
    return found
