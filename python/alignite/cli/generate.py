"""``alignite generate``"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from alignite.cli.options import check_model_folder, parse
from alignite.config import GenerateConfig
from alignite.errors import DataError, UsageError


def run(argv: Sequence[str]) -> int:
    """Answer prompts, one after the other, on stdout."""
    config, as_json = parse(
        GenerateConfig, "alignite generate", "Answer prompts with a model, with or without an adapter.", argv
    )
    config.validate()
    prompts = list(config.prompt)
    if config.prompt_file:
        prompts += _lines(config.prompt_file)
    if not config.model or not prompts:
        missing = "model" if not config.model else "prompt"
        raise UsageError(f"no {missing} is given", fix=f"add --{missing}")
    check_model_folder(config.model)
    if config.adapter:
        check_model_folder(config.adapter, "adapter")

    import torch

    from alignite.data.tokenizer import ChatTokenizer
    from alignite.models.generation import Prompt, generate_text
    from alignite.models.loading import load_model, resolve_device

    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    device = resolve_device(config.device)
    tokenizer = ChatTokenizer.from_folder(config.model)
    model = load_model(config.model, config.dtype, str(device))
    if config.adapter:
        from alignite.peft import load_adapter

        load_adapter(model, config.adapter)
        model.to(device)
    system = [{"role": "system", "content": config.system}] if config.system else []
    asked: list[Prompt] = [p if config.raw else [*system, {"role": "user", "content": p}] for p in prompts]
    answers = generate_text(
        model,
        tokenizer,
        asked,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        repetition_penalty=config.repetition_penalty,
        seed=config.seed,
        batch_size=config.batch_size,
    )
    if as_json:
        pairs = [{"prompt": prompt, "answer": answer} for prompt, answer in zip(prompts, answers, strict=True)]
        print(json.dumps({"answers": pairs}, ensure_ascii=False))
    else:
        print("\n\n".join(answers))
    return 0


def _lines(name: str) -> list[str]:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            "the prompt file cannot be read", where=name, why=str(error), fix="check the path; save it as UTF-8"
        ) from error
    return [line for line in text.split("\n") if line.strip()]
