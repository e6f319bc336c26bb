"""The options of the data path."""

from __future__ import annotations

from alignite.config.options import Options, check_bound, config_class, option
from alignite.errors import ConfigError


@config_class
class DataOptions(Options):
    """What decides how rows become tokens, and which of them are scored."""

    max_length: int = option(
        default=1024, help="longest row in tokens; longer rows are cut at a turn border and counted"
    )
    packing: str = option(
        default="none",
        help="how rows share a window of max_length tokens: best fit, the same with longer rows split instead of cut, "
        "or end to end with a cut at each window's border",
        choices=("none", "bfd", "bfd_split", "wrapped"),
    )
    format: str | None = option(default=None, help="format of the rows; default: told from the first rows of each file")
    columns: list[str] = option(default=[], help="columns by other names, as NAME=COLUMN: prompt=question")
    prompt_column: str | None = option(default=None, help="column that holds the prompt")
    completion_column: str | None = option(default=None, help="column that holds the completion")
    apply_chat_template: bool = option(
        default=True, help="render rows with the model's chat template; false leaves text raw"
    )
    template_date: str | None = option(
        default=None,
        help="date that templates see as today, YYYY-MM-DD; default: the first run's day, which the set keeps",
    )
    train_on_header: bool = option(
        default=False, help="score the header that opens an assistant's turn, its role included"
    )
    train_on_think_prefill: bool = option(
        default=False,
        help="score what the generation prompt writes in the model's name, such as the start of its thinking",
    )
    train_on_end_token: bool = option(default=True, help="score the token that ends an assistant's turn")
    train_on_last_turn_only: bool = option(default=False, help="score only a conversation's last assistant turn")
    tokenizer_backend: str = option(
        default="auto",
        help="what makes tokens: auto is the fast backend where it gives the ids of the tokenizers library",
        choices=("auto", "reference", "fast"),
    )
    on_bad_row: str = option(
        default="skip",
        help="what a malformed row does: it ends the work, or is counted and written to quarantine.jsonl",
        choices=("error", "skip"),
    )
    criteria: list[str] = option(
        default=[],
        help="names of what replies are compared by: a row's criterion is one of them, or its place from 0",
    )
    max_row_bytes: int = option(default=64 << 20, help="a row with more bytes than this is malformed")
    part_bytes: int = option(default=512 << 20, help="a prepared set begins a new file after this many bytes")

    def validate(self) -> None:
        super().validate()
        check_bound("max_length", self.max_length, 2, True)
        check_bound("max_row_bytes", self.max_row_bytes, 1, True)
        check_bound("part_bytes", self.part_bytes, 1, True)
        self.column_names()
        if len(set(self.criteria)) < len(self.criteria) or not all(self.criteria):
            raise ConfigError(f"criteria is {','.join(self.criteria)!r}", fix="give each criterion a name of its own")
        if (self.prompt_column is None) != (self.completion_column is None):
            given = "prompt_column" if self.prompt_column is not None else "completion_column"
            raise ConfigError(f"{given} is given alone", fix="give prompt_column and completion_column")
        for name in ("format", "columns"):
            if self.prompt_column is not None and getattr(self, name):
                raise ConfigError(
                    f"prompt_column and {name} are given together",
                    why="prompt_column and completion_column say both the format and its columns",
                    fix="give format and columns (prompt=..., completion=...), or prompt_column and completion_column",
                )

    def column_names(self) -> dict[str, str]:
        """``columns`` as a mapping: by a format's name for a column, the column's own name.

        Raises:
            ConfigError: an entry is not NAME=COLUMN, or a name stands twice.
        """
        return column_names(self.columns)


def column_names(columns: list[str]) -> dict[str, str]:
    """Entries ``NAME=COLUMN`` as a mapping.

    Raises:
        ConfigError: an entry has another form, or a name stands twice.
    """
    names: dict[str, str] = {}
    for text in columns:
        name, _, column = text.partition("=")
        if not name or not column or name in names:
            raise ConfigError(
                f"columns has {text!r}", fix="write NAME=COLUMN, each name once: prompt=question completion=answer"
            )
        names[name] = column
    return names
