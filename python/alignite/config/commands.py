"""The options of commands that do not train."""

from __future__ import annotations

from alignite.config.data import DataOptions
from alignite.config.options import Options, check_bound, check_device, config_class, option
from alignite.errors import ConfigError


@config_class
class GenerateConfig(Options):
    """Options of ``alignite generate``."""

    model: str | None = option(default=None, help="model folder, or org/name[@revision] of the hub")
    adapter: str | None = option(default=None, help="an adapter of this model: a PEFT folder, or a hub id")
    prompt: list[str] = option(default=[], help="what to ask; several are asked one by one")
    prompt_file: str | None = option(default=None, help="file with a prompt a line; - is standard input")
    system: str | None = option(default=None, help="system message")
    raw: bool = option(default=False, help="send prompts as they are, without the chat template")
    max_new_tokens: int = option(default=256, help="longest answer in tokens")
    temperature: float = option(default=0.0, help="0 takes the likeliest token each time")
    top_p: float = option(default=1.0, help="sample from the likeliest tokens of this total probability")
    top_k: int = option(default=0, help="sample from this many likeliest tokens; 0 means all")
    repetition_penalty: float = option(default=1.0, help="above 1 makes repeated tokens less likely")
    seed: int = option(default=0, help="seed of the sampling")
    batch_size: int = option(default=8, help="prompts answered together")
    num_threads: int = option(default=0, help="CPU threads; 0 means all cores")
    dtype: str = option(default="float32", help="dtype of the model", choices=("float32", "bfloat16"))
    device: str = option(default="auto", help="auto, cpu, cuda or cuda:N")

    def validate(self) -> None:
        super().validate()
        for name in ("max_new_tokens", "batch_size"):
            check_bound(name, getattr(self, name), 1, True)
        for name in ("temperature", "top_k", "seed", "num_threads"):
            check_bound(name, getattr(self, name), 0, True)
        for name in ("top_p", "repetition_penalty"):
            check_bound(name, getattr(self, name), 0, False)
        if self.top_p > 1:
            raise ConfigError(f"top_p is {self.top_p}", fix="it must be at most 1")
        check_device(self.device)


@config_class
class PreviewConfig(DataOptions):
    """Options of ``alignite preview``."""

    model: str | None = option(
        default=None, help="model whose tokenizer and template are used: a folder, or org/name[@revision] of the hub"
    )
    data: list[str] = option(default=[], help="files of any format, folders, globs, URLs, or org/name[:[config:]split]")
    prepared: str | None = option(
        default=None, help="show windows of this prepared folder instead: their records, shared prompts and replies"
    )
    num_rows: int = option(default=5, help="rows to show in full, the first that are trained on; 0 shows numbers only")
    row: list[str] = option(default=[], help="show these rows instead: numbers, counted from 0, or file:line")
    html: str | None = option(default=None, help="write everything shown as one HTML page, rows in full length")
    num_threads: int = option(default=0, help="CPU threads; 0 means all cores")

    def validate(self) -> None:
        super().validate()
        for name, most in (("num_rows", 10_000), ("num_threads", 4096)):
            check_bound(name, getattr(self, name), 0, True)
            if getattr(self, name) > most:
                raise ConfigError(f"{name} is {getattr(self, name)}", fix=f"it must be at most {most}")
        for row in self.row:
            if not row.rpartition(":")[2].isdecimal() or len(row) > 4096:
                raise ConfigError(f"row is {row!r}", fix="it must be a number, counted from 0, or file:line")
        # A page replaces what is there, which must not be the data.
        if self.html is not None and not self.html.endswith((".html", ".htm")):
            raise ConfigError(f"html is {self.html!r}", fix="it must end with .html")


@config_class
class MergeConfig(Options):
    """Options of ``alignite merge``."""

    model: str | None = option(
        default=None,
        help="the base model: a folder, or org/name[@revision] of the hub; default: the one that the adapter names",
    )
    adapter: str | None = option(default=None, help="the adapter: a PEFT folder, or a hub id")
    output_dir: str | None = option(default=None, help="folder of the merged model")
    dtype: str = option(default="float32", help="dtype of the merged model", choices=("float32", "bfloat16"))


@config_class
class ImportGgufConfig(Options):
    """Options of ``alignite import-gguf``."""

    gguf: str | None = option(default=None, help="GGUF file of a Llama-family model")
    output_dir: str | None = option(default=None, help="folder to write")
    dtype: str = option(default="float32", help="dtype of the weights", choices=("float32", "bfloat16", "float16"))


@config_class
class ReportConfig(Options):
    """Options of ``alignite report``."""

    run: list[str] = option(default=[], help="run folders; several are compared")
    output: str | None = option(
        default=None, help="HTML file to write or replace; default: report.html in the folder of a single run"
    )

    def validate(self) -> None:
        super().validate()
        if self.output is not None and not self.output.lower().endswith((".html", ".htm")):
            raise ConfigError(f"output is {self.output!r}", fix="it must end in .html: the file is replaced")


@config_class
class DoctorConfig(Options):
    """``alignite doctor`` has no options of its own."""
