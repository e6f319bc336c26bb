"""Scores of replies by their text, and of solutions by their steps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from alignite.config import PrepareConfig
from alignite.data.tokenizer import ChatTokenizer
from alignite.errors import DataError, NumericsError, TemplateError, UsageError
from alignite.models.reward_files import save_reward_model
from alignite.models.routing import hidden_states
from alignite.models.score_head import score_scale, set_score_scale
from alignite.scoring.files import TextScorer

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

Text = str | Sequence[Mapping[str, Any]]
"""A text or a list of messages."""

# Longer than any reply, for models whose positions do not end.
_UNBOUNDED = 1 << 30


@dataclass
class _Encoded:
    """A prompt's ids, its replies' ids and where each was asked for."""

    prompt: list[int]
    replies: list[list[int]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        return len(self.prompt) + sum(map(len, self.replies))


class RewardModel(TextScorer):
    """A reward model and its own tokenizer and chat template: what wrote the texts may have others.

    A reply is encoded as training encodes it, end token included, and scored at that token: gain * raw + offset.
    Replies to the same prompt share it, so that it is computed once.

    Args:
        model: a causal LM with a score head, of :func:`alignite.models.reward_files.load_reward_model`.
        tokenizer: the model's.
        max_length: tokens of a prompt and a reply; as in training whole old turns leave a longer prompt, and no reply
            is cut. Default: the model's positions.
        max_tokens: tokens in a forward pass; a prompt and one reply may be longer.

    Raises:
        UsageError: the model has no score head. TokenizerError: the tokenizer does not fit the model.
    """

    def __init__(
        self, model: nn.Module, tokenizer: ChatTokenizer, *, max_length: int | None = None, max_tokens: int = 8192
    ) -> None:
        if getattr(model, "score", None) is None:
            raise UsageError("the model has no score head", fix="load it with load_reward_model")
        super().__init__(model, tokenizer)
        self.max_tokens = max_tokens
        self.max_length = max_length or positions_of(model)

    def save(self, folder: str | Path) -> None:
        """Write model, gain, offset and tokenizer: :func:`alignite.models.reward_files.save_reward_model`."""
        save_reward_model(self.model, folder, self.tokenizer.folder)

    def score(self, prompts: Sequence[Text], completions: Sequence[Text]) -> NDArray[np.float64]:
        """A score for each prompt and completion: float64 (replies,), or (replies, heads) with several heads.

        Args:
            prompts: texts, each a user's turn where the model has a chat template, or lists of messages.
            completions: texts or lists of messages; an empty text, or one message of it, is a reply that ends at once.

        Raises:
            UsageError: there is not one completion for each prompt. DataError: a pair is no text and no messages, or
            longer than ``max_length`` with its last turn alone. NumericsError: a score is not finite.
        """
        gain, offset = score_scale(self.model)
        scores: NDArray[np.float64] = self.raw_scores(prompts, completions) * np.array(gain) + np.array(offset)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def raw_scores(self, prompts: Sequence[Text], completions: Sequence[Text]) -> NDArray[np.float64]:
        """The same before gain and offset, (replies, heads)."""
        groups = self._encode(prompts, completions)
        heads = cast("Any", self.model).score.out_features
        scores = np.zeros((len(prompts), heads))
        with inference(self.model):
            for part in _parts(groups, self.max_tokens):
                numbers = [number for group in part for number in group.numbers]
                scores[numbers] = self._forward(part).double().cpu().numpy()
        wrong = np.flatnonzero(~np.isfinite(scores).all(1))
        if len(wrong):
            raise NumericsError(
                f"the score of a reply is {scores[wrong[0]].tolist()}",
                where=f"pair {int(wrong[0])}",
                fix="check the reward model's weights",
            )
        return scores

    def normalize(self, prompts: Sequence[Text], completions: Sequence[Text]) -> tuple[list[float], list[float]]:
        """Set gain and offset so that scores of these replies have mean 0 and standard deviation 1, and return them.

        Take replies of the reference policy (lm-human-preferences, arXiv 1909.08593, section 2.1). The deviation is
        the population's. :meth:`save` keeps both.

        Raises:
            UsageError: there are fewer than two replies, or all have the same score. And what :meth:`score` raises.
        """
        raw = self.raw_scores(prompts, completions)
        if len(raw) < 2 or (raw.std(0) == 0).any():
            raise UsageError("the scores do not differ", fix="give two or more replies that the model scores otherwise")
        gain = 1.0 / raw.std(0)
        set_score_scale(self.model, gain.tolist(), (-raw.mean(0) * gain).tolist())
        return score_scale(self.model)

    def _forward(self, groups: Sequence[_Encoded]) -> Tensor:
        """Raw scores (replies, heads) of all replies, in order: prompts are parents of their replies."""
        ids: list[int] = []
        positions: list[int] = []
        segments: list[tuple[int, int, int]] = []
        ends: list[int] = []
        for group in groups:
            parent = -1
            if group.prompt:
                parent = len(segments)
                segments.append((len(ids), len(group.prompt), -1))
                ids += group.prompt
                positions += range(len(group.prompt))
            for reply in group.replies:
                segments.append((len(ids), len(reply), parent))
                ids += reply
                positions += range(len(group.prompt), len(group.prompt) + len(reply))
                ends.append(len(ids) - 1)
        device = next(self.model.parameters()).device
        flat = torch.tensor(ids, device=device)
        layout = np.array(segments, dtype=np.int64)
        hidden = hidden_states(self.model, flat, torch.tensor(positions, device=device), layout)
        raw: Tensor = cast("Any", self.model).score(hidden[torch.tensor(ends, device=device)])
        return raw.float()

    def _encode(self, prompts: Sequence[Text], completions: Sequence[Text]) -> list[_Encoded]:
        if len(prompts) != len(completions):
            raise UsageError(
                f"there are {len(prompts)} prompts and {len(completions)} completions",
                fix="give a prompt for each completion",
            )
        groups: dict[tuple[int, ...], _Encoded] = {}
        for number, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            # What ends a reply stands behind any; an empty one is that alone, though no row to train on.
            empty = _is_empty(completion)
            row = {"prompt": prompt, "completion": "." if empty else completion, "label": True}
            ids, labels = encode_row(self.tokenizer, row, "unpaired", f"pair {number}", self.max_length)
            start = int(np.flatnonzero(labels >= 0)[0])
            reply = ids[start:].tolist() if not empty else ids[int(np.flatnonzero(labels >= 0)[-1]) :].tolist()
            group = groups.setdefault(tuple(ids[:start].tolist()), _Encoded(ids[:start].tolist()))
            group.replies.append(reply)
            group.numbers.append(number)
        return list(groups.values())


def _is_empty(completion: Any) -> bool:
    """Whether a reply says nothing, in either of its forms."""
    if not isinstance(completion, str):
        if isinstance(completion, Mapping) or not isinstance(completion, Sequence) or len(completion) != 1:
            return False
        (message,) = completion
        if not isinstance(message, Mapping) or message.get("role") != "assistant" or message.get("tool_calls"):
            return False
        completion = message.get("content")
    return isinstance(completion, str) and not completion.strip()


def encode_row(
    tokenizer: ChatTokenizer, row: Mapping[str, Any], form: str, where: str, max_length: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Ids and labels of a row as training would have them.

    Raises:
        DataError: the row cannot be read, or training would drop it.
    """
    config = PrepareConfig(
        max_length=max_length, format=form, apply_chat_template=tokenizer.chat_template is not None, num_threads=1
    )
    try:
        ids, labels, reason = tokenizer.preparer(config).encode(json.dumps(row).encode())
    except TypeError as error:
        raise DataError("a pair is not JSON", where=where, why=str(error), fix="give texts or messages") from error
    except (DataError, TemplateError) as error:
        error.where = where
        raise
    if reason is not None:
        raise DataError("a reply cannot be scored", where=where, why=reason, fix="leave it out")
    return ids, labels


def positions_of(model: nn.Module) -> int:
    """How many tokens a row may have."""
    limit = getattr(cast("Any", model).config.get_text_config(), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else _UNBOUNDED


def _parts(groups: Sequence[_Encoded], max_tokens: int) -> Iterator[list[_Encoded]]:
    """Prompts with their replies in parts of at most ``max_tokens``, shortest first; a prompt may be in several."""
    part: list[_Encoded] = []
    held = 0
    for group in sorted(groups, key=lambda group: group.num_tokens):
        piece = _Encoded(group.prompt)
        for reply, number in zip(group.replies, group.numbers, strict=True):
            more = len(reply) + (0 if piece.replies else len(group.prompt))
            if held + more > max_tokens and (part or piece.replies):
                yield [*part, piece] if piece.replies else part
                part, piece = [], _Encoded(group.prompt)
                held, more = 0, len(reply) + len(group.prompt)
            piece.replies.append(reply)
            piece.numbers.append(number)
            held += more
        part.append(piece)
    if part:
        yield part


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, as before afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
