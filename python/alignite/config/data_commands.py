"""The options of commands that make data of data."""

from __future__ import annotations

from alignite.config.clean import CleanOptions
from alignite.config.data import DataOptions, column_names
from alignite.config.options import Options, check_bound, config_class, option
from alignite.errors import ConfigError


@config_class
class PrepareConfig(CleanOptions, DataOptions):
    """Options of ``alignite prepare``."""

    model: str | None = option(
        default=None, help="model whose tokenizer and template are used: a folder, or org/name[@revision] of the hub"
    )
    data: list[str] = option(default=[], help="files of any format, folders, globs, URLs, or org/name[:[config:]split]")
    output_dir: str | None = option(default=None, help="the prepared folder, made whole or not at all")
    append: bool = option(default=False, help="add the data to the set that is in output_dir; not with dedup")
    shard: str | None = option(
        default=None, help="make a part of the set, K/N with K from 0 to N-1; any machine may make any of them"
    )
    merge: list[str] = option(default=[], help="instead of data: folders of all shards, to be joined in output_dir")
    fail_if: list[str] = option(
        default=[],
        help="exit with code 3 when the report is so: rows, used, bad, dropped, truncated, tokens, fill, ... with >, "
        "<, >=, <= and a number or a share, such as 'dropped>1%' (of the rows) or 'fill<50%'",
    )
    num_threads: int = option(
        default=0, help="CPU threads; 0 means all cores, 4 a core are the most; the result is the same"
    )

    def validate(self) -> None:
        super().validate()
        check_bound("num_threads", self.num_threads, 0, True)
        self.shard_numbers()
        if self.merge and (self.data or self.append or self.shard):
            raise ConfigError("merge joins shards that are prepared", fix="leave out data, append and shard")
        if self.append and self.shard:
            raise ConfigError("append and shard do not go together", fix="append to the merged set")

    def shard_numbers(self) -> tuple[int, int] | None:
        """``shard`` as (number, of).

        Raises:
            ConfigError: it is not K/N with K below N.
        """
        if self.shard is None:
            return None
        number, slash, of = self.shard.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal() and int(number) < int(of) <= 1_000_000):
            raise ConfigError(f"shard is {self.shard!r}", fix="write it as K/N with K from 0 to N-1, such as 0/4")
        return int(number), int(of)


@config_class
class ExportConfig(Options):
    """Options of ``alignite export``."""

    prepared: str | None = option(default=None, help="the prepared folder")
    to: str = option(
        default="parquet",
        help="one Parquet file, or Megatron's indexed files: OUTPUT.bin and .idx hold ids, OUTPUT_labels.* the labels; "
        "not for weights or compared replies",
        choices=("parquet", "megatron"),
    )
    output: str | None = option(default=None, help="new file, or for megatron the start of the new files' names")


@config_class
class ConvertConfig(Options):
    """Options of ``alignite convert``."""

    data: list[str] = option(default=[], help="files to convert, folders, globs, URLs, or org/name[:[config:]split]")
    to: str | None = option(
        default=None,
        help="what to write: messages, sharegpt, alpaca, prompt-completion, preference, unpaired, stepwise, ranked, hh",
    )
    output: str | None = option(default=None, help="new file to write, .jsonl or .jsonl.gz")
    format: str | None = option(default=None, help="format of the data; default: told from its first rows")
    columns: list[str] = option(default=[], help="columns by other names, as NAME=COLUMN: prompt=question")
    form: str = option(
        default="auto",
        help="how prompts and replies are written where both are possible; auto as the row had them",
        choices=("auto", "text", "messages"),
    )
    pairs: str = option(
        default="all", help="pairs of a ranking that become preferences; never ties", choices=("all", "best-worst")
    )
    on_bad_row: str = option(
        default="error", help="what a row does that cannot be converted", choices=("error", "skip")
    )

    def validate(self) -> None:
        super().validate()
        self.column_names()
        if self.output is not None and not self.output.endswith((".jsonl", ".jsonl.gz")):
            raise ConfigError(f"output is {self.output!r}", fix="it must end in .jsonl or .jsonl.gz")

    def column_names(self) -> dict[str, str]:
        """``columns`` as a mapping: by a format's name for a column, the column's own name."""
        return column_names(self.columns)


@config_class
class MixConfig(Options):
    """Options of ``alignite mix``."""

    mixture: str | None = option(
        default=None, help="YAML file: sources with their data, rates, seed; or stages of such"
    )
    total: int | None = option(default=None, help="draws; default as many as the sources have rows")
    output: str | None = option(
        default=None, help="JSONL file to write or replace with the drawn rows, source by source: shuffle when training"
    )

    def validate(self) -> None:
        super().validate()
        if self.total is not None:
            check_bound("total", self.total, 1, True)
        if self.output is not None and not self.output.endswith(".jsonl"):
            raise ConfigError(f"output is {self.output!r}", fix="it must end in .jsonl: the file is replaced")


@config_class
class InstructConfig(Options):
    """Options of ``alignite instruct``."""

    task: str | None = option(default=None, help="YAML file of the task: its data, templates, styles and few_shot")
    output: str | None = option(default=None, help="JSONL file to write or replace")
    model: str | None = option(
        default=None, help="model whose tokenizer counts few_shot's tokens: a folder, or org/name[@revision] of the hub"
    )
    seed: int = option(default=0, help="seed of everything that is drawn")
    max_examples: int = option(default=0, help="stop after this many instances; 0 means all")
    on_bad_row: str = option(default="error", help="what a malformed row does", choices=("error", "skip"))
    num_threads: int = option(default=0, help="CPU threads; 0 means all cores")

    def validate(self) -> None:
        super().validate()
        for name, most in (("seed", 2**63 - 1), ("max_examples", 2**63 - 1), ("num_threads", 4096)):
            check_bound(name, getattr(self, name), 0, True)
            if getattr(self, name) > most:
                raise ConfigError(f"{name} is {getattr(self, name)}", fix=f"it must be at most {most}")
        # The file is replaced, and must be none that holds something else.
        if self.output is not None and not self.output.endswith(".jsonl"):
            raise ConfigError(f"output is {self.output!r}", fix="it must end with .jsonl: the file is replaced")
