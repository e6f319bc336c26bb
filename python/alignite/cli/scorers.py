"""The reward models that a command line names, opened and asked as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignite.cli.options import check_model_folder
from alignite.cli.score_folders import check_kinds
from alignite.client import HttpClient, RewardClient
from alignite.config import ScorerOptions
from alignite.errors import DataError, ModelError, UsageError
from alignite.scoring.combined_reward import checked_scores, combine_scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alignite.types import Scorer


class Panel:
    """Reward models side by side. As a scorer it gives a column for each, or for each of their heads.

    Args:
        names: of the models. models: what scores.
        options: how the columns become one score, and which head is taken.
    """

    def __init__(self, names: Sequence[str], models: Sequence[Scorer], options: ScorerOptions) -> None:
        # The same model twice, say with other heads behind HTTP, is told apart.
        again = [list(names[:number]).count(name) for number, name in enumerate(names)]
        self.names = [name if not before else f"{name}#{before + 1}" for name, before in zip(names, again, strict=True)]
        self.models, self.options = list(models), options
        self.takes_messages = all(map(_takes_messages, models))
        self._widths: list[int] = []

    @property
    def columns(self) -> list[str]:
        """The columns' names, once something was scored."""
        called = self.options.criteria or range(max(self._widths, default=0))
        return [
            name if width == 1 else f"{name}[{called[head]}]"
            for name, width in zip(self.names, self._widths, strict=True)
            for head in range(width)
        ]

    @property
    def heads(self) -> list[int | None]:
        """Which head of its model each column is; None where the model has one column."""
        return [None if width == 1 else head for width in self._widths for head in range(width)]

    @property
    def chosen_head(self) -> int | None:
        """The head that is asked for of models with several."""
        head, criteria = self.options.head, self.options.criteria
        return None if head is None else criteria.index(head) if head in criteria else int(head)

    def score(self, prompts: Sequence[Any], completions: Sequence[Any]) -> NDArray[np.float64]:
        """float64 (replies, columns).

        Raises:
            UsageError: a model has no such head. And as :func:`alignite.scoring.combined_reward.checked_scores`.
        """
        found = []
        for name, model in zip(self.names, self.models, strict=True):
            steps = hasattr(model, "step_scores")
            scores = checked_scores(model, prompts, [_as_steps(r) if steps else _as_reply(r) for r in completions])
            found.append(scores if scores.shape[1] == 1 else self._heads_of(name, scores))
        self._widths = [scores.shape[1] for scores in found]
        return np.concatenate(found, axis=1)

    def _heads_of(self, name: str, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The heads that are asked for, of a model with several."""
        criteria, number, count = self.options.criteria, self.chosen_head, scores.shape[1]
        if criteria and len(criteria) != count:
            raise UsageError(f"{name} has {count} heads, and criteria names {len(criteria)}", fix="name each of them")
        if number is None:
            return scores
        if number >= count:
            raise UsageError(f"{name} has {count} heads, and head {number} is asked for", fix="count from 0")
        return scores[:, [number]]

    def combine(self, scores: NDArray[np.float64], is_safety: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """One score a reply, float64 (replies,), of :meth:`score`'s columns."""
        options = self.options
        return combine_scores(
            scores.T,
            options.combine,
            weights=options.weights or None,
            tolerance=options.tolerance,
            threshold=options.threshold,
            is_safety=is_safety,
        )

    def safety_of(self, row: Mapping[str, Any], column: str | None) -> bool:
        """Whether a row's prompt is about safety.

        Raises:
            DataError: its column holds no truth value.
        """
        value = False if column is None else row.get(column)
        if not isinstance(value, bool):
            raise DataError(f"column {column!r} holds {value!r:.40}, not true or false", fix="mend the row")
        return value

    def combine_row(self, scores: NDArray[np.float64], about: int | None) -> NDArray[np.float64]:
        """One score a reply, float64 (replies,), of a row's columns; of several heads the one that it is about."""
        own = [column for column, head in enumerate(self.heads) if about is None or head in (None, about)]
        return self.combine(scores[:, own])

    def criterion_of(self, row: Mapping[str, Any]) -> int | None:
        """The head of what a row is about; None where it or the options say nothing, or all heads are combined.

        Raises:
            DataError: its criterion is none of the options'.
        """
        said, criteria = row.get("criterion"), self.options.criteria
        if said is None or not criteria or self.options.combine not in ("mean", "min"):
            return None
        if isinstance(said, str) and said in criteria:
            return criteria.index(said)
        if isinstance(said, int) and not isinstance(said, bool) and 0 <= said < len(criteria):
            return said
        raise DataError(
            f"criterion is {said!r:.40}, none of {', '.join(criteria)}", fix="give one of these names, or its place"
        )


class Combined:
    """A panel as a scorer of one score a reply."""

    def __init__(self, panel: Panel) -> None:
        self.panel, self.takes_messages = panel, panel.takes_messages

    def score(self, prompts: Sequence[Any], completions: Sequence[Any]) -> NDArray[np.float64]:
        """float64 (replies,)."""
        return self.panel.combine(self.panel.score(prompts, completions))


def check_models(options: ScorerOptions) -> None:
    """Find the models before torch is imported.

    Raises:
        UsageError: no model is given, or one of another kind. ModelError: one is not there.
    """
    names = [*options.reward_model, *options.process_reward_model]
    if not names:
        raise UsageError("no reward_model is given", fix="add --reward_model DIR, or http://HOST:PORT of a served one")
    for name in names:
        if _is_url(name):
            if name in options.process_reward_model:
                raise UsageError(f"process_reward_model is {name!r}", fix="a served one is given as --reward_model")
        elif not Path(name).is_dir():
            check_model_folder(name, "adapter" if options.base_model is not None else "model")
    if options.base_model is not None:
        check_model_folder(options.base_model)
    check_kinds(options)


def open_panel(options: ScorerOptions) -> Panel:
    """The models that the options name.

    Raises:
        ModelError, AdapterError, TokenizerError, UsageError: as opening them does.
    """
    import torch

    from alignite.models.loading import resolve_device
    from alignite.scoring.process_reward import ProcessRewardModel
    from alignite.scoring.reward import RewardModel

    if options.num_threads:
        torch.set_num_threads(options.num_threads)
    where: dict[str, Any] = {
        "dtype": options.dtype,
        "device": str(resolve_device(options.device)),
        "max_tokens": options.max_tokens,
    }
    models: list[Scorer] = []
    for name in options.reward_model:
        if _is_url(name):
            models.append(RewardClient(HttpClient(name)))
        else:
            base = _checked_base(name, options)
            models.append(RewardModel.from_folder(name, base=base, max_length=options.max_length, **where))
    for name in options.process_reward_model:
        kind: dict[str, Any] = {"aggregation": options.aggregation, "neutral_is_good": options.neutral_is_good}
        base = _checked_base(name, options)
        try:
            models.append(ProcessRewardModel.from_folder(name, base=base, **where, **kind))
        except UsageError as error:
            error.where = error.where or name
            raise
    return Panel([*options.reward_model, *options.process_reward_model], models, options)


def _checked_base(name: str, options: ScorerOptions) -> str | None:
    """The base to put an adapter on, if it is not the one that the adapter names; None for a whole model.

    Raises:
        ModelError: a whole model has no score head, and a new one would score at random.
    """
    from alignite.models.loading import checked_folder
    from alignite.models.reward_files import head_name

    is_adapter = (Path(name) / "adapter_config.json").is_file() and not (Path(name) / "config.json").is_file()
    if is_adapter or (options.base_model is not None and not Path(name).is_dir()):
        return options.base_model
    if head_name(checked_folder(name)) is None:
        raise ModelError(
            "the model has no score head",
            where=name,
            why="it is a language model",
            fix="train a reward model from it with `alignite reward` or `alignite prm`",
        )
    return None


def _takes_messages(model: Scorer) -> bool:
    """Whether a model may be given messages; a served one is asked, which also tells whether it is there."""
    if not isinstance(model, RewardClient):
        return getattr(getattr(model, "tokenizer", None), "chat_template", None) is not None
    turns: list[Any] = [[{"role": role, "content": "hello"}] for role in ("user", "assistant")]
    try:
        model.score(turns[:1], turns[1:])
    except (DataError, UsageError):
        return False
    return True


def _is_url(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def _as_reply(reply: Any) -> Any:
    """Steps as the text that they are."""
    is_steps = isinstance(reply, list) and bool(reply) and all(isinstance(step, str) for step in reply)
    return "\n".join(reply) if is_steps else reply


def _as_steps(reply: Any) -> Any:
    """A reply's message as its text, which is split into steps."""
    if isinstance(reply, list) and len(reply) == 1 and isinstance(reply[0], Mapping):
        return str(reply[0].get("content") or "")
    return reply
