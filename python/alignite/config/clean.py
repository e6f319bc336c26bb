"""The options of cleaning; everything is off by default."""

from __future__ import annotations

from alignite.config.options import Options, check_bound, config_class, option
from alignite.errors import ConfigError


@config_class
class CleanOptions(Options):
    """Which rows are left out as duplicates, test data or noise, and which are held out for validation."""

    dedup: str = option(
        default="none",
        help="leave out duplicates of earlier rows: exact by content, minhash by similar words",
        choices=("none", "exact", "minhash"),
    )
    dedup_on: str = option(default="record", help="what makes rows duplicates", choices=("record", "prompt", "reply"))
    dedup_fold: bool = option(
        default=False, help="exact duplicates may differ in case, white space and Unicode form (NFC)"
    )
    dedup_threshold: float = option(
        default=0.8, help="Jaccard similarity of word n-grams from which rows are near duplicates"
    )
    dedup_ngram: int = option(default=5, help="words of an n-gram of near duplicates")
    decontaminate: list[str] = option(
        default=[],
        help="evaluation sets that no row may overlap with: files, globs, folders, URLs, or org/name[:[config:]split]",
    )
    decontaminate_columns: list[str] = option(default=[], help="columns of these files that count; default: all text")
    decontaminate_ngram: int = option(
        default=13, help="words that a row must share in sequence with an evaluation set to be left out"
    )
    decontaminate_share: float = option(
        default=0.0, help="share of a row's n-grams above which it is left out; 0: a single one is enough"
    )
    filter_on: str = option(
        default="record",
        help="what min_, max_ chars, words and the like look at",
        choices=("record", "prompt", "reply"),
    )
    min_chars: int | None = option(default=None, help="fewest characters of a row")
    max_chars: int | None = option(default=None, help="most characters of a row")
    min_words: int | None = option(default=None, help="fewest words of a row, split at white space")
    max_words: int | None = option(default=None, help="most words of a row")
    min_tokens: int | None = option(default=None, help="fewest tokens of a row")
    max_tokens: int | None = option(default=None, help="most tokens of a row; longer ones are left out, not cut")
    min_turns: int | None = option(default=None, help="fewest messages of a row")
    max_turns: int | None = option(default=None, help="most messages of a row")
    max_symbols: float | None = option(
        default=None, help="largest share of characters that are neither letters, digits nor white space"
    )
    max_repetition: float | None = option(
        default=None, help="Gopher's limits on repeated lines, paragraphs and n-grams, times this; 1: the paper's"
    )
    split_share: float = option(default=0.0, help="share of the rows held out for validation, by a hash of the content")
    split_seed: int = option(default=0, help="which rows are held out")

    def validate(self) -> None:
        super().validate()
        if not 0 < self.dedup_threshold <= 1:
            raise ConfigError(f"dedup_threshold is {self.dedup_threshold}", fix="it must be above 0 and at most 1")
        minhash = ("dedup_threshold", "dedup_ngram")
        for name in (*minhash, "dedup_fold"):
            needed = "minhash" if name in minhash else "exact"
            default = type(self).__dataclass_fields__[name].default
            if getattr(self, name) != default and self.dedup != needed:
                raise ConfigError(
                    f"{name} has no effect: dedup is {self.dedup}",
                    fix=f"set dedup to {needed}, or leave {name} out",
                )
        for name in ("dedup_ngram", "decontaminate_ngram"):
            if not 1 <= getattr(self, name) <= 100:
                raise ConfigError(f"{name} is {getattr(self, name)}", fix="it must be from 1 to 100")
        for name in ("decontaminate_share", "split_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", fix="it must be at least 0 and below 1")
        for name in ("max_symbols", "max_repetition", "split_seed"):
            if getattr(self, name) is not None:
                check_bound(name, getattr(self, name), 0, True)
        for name in ("chars", "words", "tokens", "turns"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            for side, value in (("min", low), ("max", high)):
                if value is not None:
                    check_bound(f"{side}_{name}", value, 0, True)
            if low is not None and high is not None and low > high:
                raise ConfigError(f"min_{name} is {low}", fix=f"it must be at most max_{name}, {high}")
