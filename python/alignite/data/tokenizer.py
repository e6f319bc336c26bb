"""The tokenizer and chat template of a model folder, without transformers."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date as Date
from functools import cached_property
from pathlib import Path
from typing import Any

from alignite.config import CleanOptions, PrepareConfig, PreviewConfig, SFTConfig
from alignite.data.cleaning import cleaning_values
from alignite.data.hub import resolve_model
from alignite.data.template_check import check_template
from alignite.data.template_renderer import TemplateRenderer
from alignite.errors import ConfigError, TemplateError, TokenizerError
from alignite.native.data import Preparer

log = logging.getLogger("alignite")

_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_MASK = ("train_on_header", "train_on_think_prefill", "train_on_end_token", "train_on_last_turn_only")
_AGAIN = "get the model's files again"
# Longer than any conversation: rendering and encoding for generation never cut.
_UNBOUNDED = 1 << 30


@dataclass(frozen=True)
class ChatTokenizer:
    """What a model folder says about text.

    Args:
        folder: where it was read from.
        tokenizer_json: the bytes of tokenizer.json.
        chat_template: its source, or None.
        special_tokens: ``bos_token`` and the like, as templates see them.
        eos_token_ids: ids that end a generated turn, from generation_config.json, config.json and the eos_token.
        pad_token_id: the id that fills batches in generation.
    """

    folder: Path
    tokenizer_json: bytes = field(repr=False)
    chat_template: str | None = field(repr=False)
    special_tokens: Mapping[str, str]
    eos_token_ids: tuple[int, ...]
    pad_token_id: int

    @classmethod
    def from_folder(cls, folder: str | Path) -> ChatTokenizer:
        """Read tokenizer.json, tokenizer_config.json, chat_template.jinja and the configs.

        Args:
            folder: a transformers folder, or a hub id ``org/name[@revision]``, of which only these files are fetched.

        Raises:
            ModelError: the folder does not exist, or the hub does not give it. TokenizerError: a file is missing or
                broken.
        """
        path = resolve_model(folder, "tokenizer")
        file = path / "tokenizer.json"
        if not file.is_file():
            raise _no_tokenizer_json(path)
        settings = _read_json(path / "tokenizer_config.json")
        special = {name: _text(settings[name]) for name in _SPECIAL if settings.get(name)}
        tokenizer_json = file.read_bytes()
        ids = _token_ids(tokenizer_json, file)
        eos: list[int] = []
        for source in ("generation_config.json", "config.json"):
            eos += _eos_ids(path / source)
        if special.get("eos_token") in ids:
            eos.append(ids[special["eos_token"]])
        unique = tuple(dict.fromkeys(int(token) for token in eos))
        pad = ids.get(special.get("pad_token", ""), unique[0] if unique else 0)
        return cls(path, tokenizer_json, _template(path, settings), special, unique, pad)

    def __getstate__(self) -> dict[str, Any]:
        # The Rust side is made anew where it is needed: spawned workers get the folder's contents only.
        return {name: value for name, value in self.__dict__.items() if name not in ("_preparer", "_last")}

    @cached_property
    def _preparer(self) -> Preparer:
        return self.preparer(SFTConfig(max_length=_UNBOUNDED, apply_chat_template=self.chat_template is not None))

    def preparer(
        self,
        config: SFTConfig | PreviewConfig | PrepareConfig,
        *,
        kinds: Sequence[str] = (),
        shard: tuple[int, int] | None = None,
        part: str | None = None,
    ) -> Preparer:
        """The Rust preparer of this tokenizer and these options; the last one is kept, and given again for the same.

        A template that the Rust engine does not render as transformers does is rendered by jinja2, and logged.

        Args:
            config: the options of ``DataOptions`` and ``num_threads`` are used.
            kinds: records that it takes; all when empty.
            shard: (number, of): every ``of``-th block of rows only.
            part: ``train`` or ``validation`` of what ``split_share`` parts.

        Raises:
            TemplateError: no template, or one that is refused.
            TokenizerError: tokenizer.json cannot be used.
        """
        day = resolve_date(config.template_date)
        options = {
            "max_length": config.max_length,
            "packing": config.packing,
            "prompt_column": config.prompt_column,
            "completion_column": config.completion_column,
            "apply_chat_template": config.apply_chat_template,
            "on_bad_row": config.on_bad_row,
            "template_date": day,
            "mask": {name: getattr(config, name) for name in _MASK},
            "eos_token": self.special_tokens.get("eos_token"),
            "num_threads": config.num_threads,
            "max_row_bytes": config.max_row_bytes,
            "kinds": list(kinds),
            "shard": shard,
            "part": part,
            "clean": _cleaning(config),
            "tokenizer_backend": config.tokenizer_backend,
            "format": config.format,
            "columns": config.column_names(),
            "criteria": config.criteria,
            "part_bytes": config.part_bytes,
        }
        template = self.chat_template if config.apply_chat_template else None
        key = json.dumps(options)
        # Loading the tokenizer and testing its fast backend takes longer than a small table's rows.
        last = self.__dict__.get("_last")
        if last is not None and last[0] == key:
            kept: Preparer = last[1]
            return kept
        given = (self.tokenizer_json, template, dict(self.special_tokens), key)
        try:
            if template is None:
                preparer = Preparer(*given)
            else:
                renderer = TemplateRenderer(template, day)
                preparer = Preparer(*given, renderer)
                differs = check_template(template, self.special_tokens, renderer, preparer.render)
                if differs is None and not preparer.renders()[0]:
                    differs = "it does not compile there"
                if differs is not None:
                    slower = "%s: jinja2 renders the chat template, slower than the Rust engine would (%s)"
                    log.warning(slower, self.folder, differs)
                    preparer = Preparer(*given, renderer, native=False)
        except (TemplateError, TokenizerError) as error:
            error.where = error.where or str(self.folder)
            raise
        backend, reason = preparer.tokenizer_backend
        if backend != config.tokenizer_backend and reason:
            log.info("the tokenizers library makes the tokens of %s: %s", self.folder, reason)
        self.__dict__["_last"] = (key, preparer)
        return preparer

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = False) -> str:
        """The chat template's text of a conversation.

        Raises:
            TemplateError: there is no template, or it fails on this conversation.
        """
        if self.chat_template is None:
            raise TemplateError(
                "the model folder has no chat template",
                where=str(self.folder),
                fix="add chat_template.jinja to it, or use raw text",
            )
        return self._preparer.render(json.dumps([dict(message) for message in messages]), add_generation_prompt)

    def encode(self, text: str) -> list[int]:
        """Ids of a text as it stands; the text of a control token becomes that token."""
        ids: list[int] = self._preparer.ids(text).tolist()
        return ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of ids."""
        return self._preparer.decode(list(ids), skip_special_tokens)

    def same_ids(self, other: ChatTokenizer) -> bool:
        """Whether another tokenizer knows the same tokens by the same ids."""
        mine, theirs = (_token_ids(one.tokenizer_json, one.folder) for one in (self, other))
        return mine == theirs

    def check_fits(self, vocab_size: int, config: Mapping[str, Any]) -> None:
        """Whether this tokenizer belongs to a model.

        Args:
            vocab_size: rows of the model's input embedding.
            config: the model's config, of which ``bos_token_id`` and ``eos_token_id`` are compared.

        Raises:
            TokenizerError: an id lies outside the embedding, or the special ids disagree.
        """
        ids = _token_ids(self.tokenizer_json, self.folder / "tokenizer.json")
        largest = max(ids.values(), default=-1)
        if largest >= vocab_size:
            raise TokenizerError(
                f"the tokenizer's largest id is {largest}, the model's embedding has {vocab_size} rows",
                where=str(self.folder),
                fix="use the tokenizer that the model was made with",
            )
        for name in ("bos_token", "eos_token"):
            theirs = config.get(f"{name}_id")
            token = self.special_tokens.get(name)
            allowed = [theirs] if isinstance(theirs, int) else list(theirs or [])
            if token is None or not allowed:
                continue
            if token not in ids:
                raise TokenizerError(
                    f"{name} {token!r} is not in the tokenizer",
                    where=str(self.folder),
                    fix="make tokenizer_config.json and tokenizer.json agree, or get the model's files again",
                )
            if name == "eos_token":
                allowed += _eos_ids(self.folder / "generation_config.json")
            if ids[token] not in allowed:
                raise TokenizerError(
                    f"{name} is {token!r} (id {ids[token]}) for the tokenizer, and id {theirs} for the model",
                    where=str(self.folder),
                    fix="make tokenizer_config.json and config.json agree, or use the model's own tokenizer",
                )


def _no_tokenizer_json(folder: Path) -> TokenizerError:
    """What to do about a folder that holds its vocabulary in another file."""
    others = {
        "tokenizer.model": "a SentencePiece vocabulary",
        "tekken.json": "Mistral's vocabulary",
        "*.tiktoken": "a tiktoken vocabulary",
        "vocab.json": "a vocabulary without the rest of the tokenizer",
    }
    found = [f"{file.name} is {kind}" for name, kind in others.items() for file in sorted(folder.glob(name))]
    return TokenizerError(
        "the model folder has no tokenizer.json",
        where=str(folder),
        why=found[0] if found else None,
        fix="save its fast tokenizer there: AutoTokenizer.from_pretrained(...).save_pretrained(folder)",
    )


def _cleaning(config: object) -> dict[str, Any]:
    if not isinstance(config, CleanOptions):
        return {}
    return cleaning_values(config)


def resolve_date(value: str | None) -> tuple[int, int, int]:
    """``YYYY-MM-DD`` or today, as (year, month, day).

    Raises:
        ConfigError: not a date.
    """
    try:
        day = Date.fromisoformat(value) if value else Date.today()
    except ValueError as error:
        raise ConfigError(f"template_date is {value!r}", why=str(error), fix="write it as YYYY-MM-DD") from error
    return day.year, day.month, day.day


def _template(path: Path, settings: Mapping[str, Any]) -> str | None:
    file = path / "chat_template.jinja"
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise TemplateError(
                "the chat template cannot be read", where=str(file), why=str(error), fix="save it as UTF-8"
            ) from error
    given = settings.get("chat_template")
    if isinstance(given, list):
        named = {item.get("name"): item.get("template") for item in given if isinstance(item, dict)}
        given = named.get("default")
    return given if isinstance(given, str) else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise TokenizerError(f"{path.name} cannot be read", where=str(path), why=str(error), fix=_AGAIN) from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{path.name} is not a JSON object", where=str(path), fix=_AGAIN)
    return value


def _eos_ids(path: Path) -> list[int]:
    value = _read_json(path).get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in ids):
        raise TokenizerError(f"eos_token_id is {value!r}", where=str(path), fix="it must be an id, or a list of ids")
    return ids


def _text(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token)


def _token_ids(tokenizer_json: bytes, where: Path) -> dict[str, int]:
    try:
        content = json.loads(tokenizer_json)
        vocab = content["model"]["vocab"]
        ids = dict(vocab) if isinstance(vocab, dict) else {entry[0]: index for index, entry in enumerate(vocab)}
        ids |= {token["content"]: token["id"] for token in content.get("added_tokens", ())}
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise TokenizerError("tokenizer.json cannot be used", where=str(where), why=repr(error), fix=_AGAIN) from error
    return ids
