"""Reward models from folders of whole models and of adapters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from alignite.data.tokenizer import ChatTokenizer
from alignite.models.reward_files import load_reward_model
from alignite.peft.score_files import load_score_adapter

if TYPE_CHECKING:
    from torch import nn


class TextScorer:
    """A model with a score head and the tokenizer that fits it.

    Raises:
        TokenizerError: the tokenizer does not fit the model.
    """

    def __init__(self, model: nn.Module, tokenizer: ChatTokenizer) -> None:
        vocabulary = cast("Any", model).get_input_embeddings().weight.shape[0]
        tokenizer.check_fits(vocabulary, cast("Any", model).config.to_dict())
        self.model, self.tokenizer = model, tokenizer

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        base: str | Path | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        **options: Any,
    ) -> Self:
        """The model and the tokenizer of a folder or of a hub id, with the options of the class.

        Args:
            folder: a reward model's, or that of an adapter, which is put on its base.
            base: the base of an adapter; default: the one that it names.

        Raises:
            ModelError, AdapterError, TokenizerError: as :func:`alignite.scoring.files.open_reward_model`.
        """
        model, home = open_reward_model(folder, base, dtype=dtype, device=device)
        return cls(model, ChatTokenizer.from_folder(home), **options)


def open_reward_model(
    folder: str | Path, base: str | Path | None = None, *, dtype: str = "float32", device: str = "cpu"
) -> tuple[nn.Module, str | Path]:
    """A reward model to score with, a folder of its own or an adapter's, and where its tokenizer is.

    Args:
        folder: as of :func:`alignite.models.reward_files.load_reward_model`, or a PEFT folder, whose adapter is put on
            its base.
        base: the base of an adapter; default: the one that it names. An adapter of the hub is told by it.

    Raises:
        ModelError: as :func:`alignite.models.reward_files.load_reward_model`. AdapterError: as
            :func:`alignite.peft.score_files.load_score_adapter`.
    """
    path = Path(folder)
    is_adapter = (path / "adapter_config.json").is_file() and not (path / "config.json").is_file()
    if base is None and not is_adapter:
        return load_reward_model(folder, dtype=dtype, device=device), folder
    model, home = load_score_adapter(folder, base, dtype=dtype, device=device)
    return model, folder if (path / "tokenizer.json").is_file() else home
