"""Every error alignite raises: what happened, where, why, and how to fix it.

Each class carries the exit code that the command line ends with, so that a
script can tell a wrong option (2) from a bad row (3) or a full disk (6).
"""

from __future__ import annotations


class AligniteError(Exception):
    """Base of all errors raised on purpose.

    Args:
        what: what went wrong, in one sentence.
        where: the place, ``file:line`` or the name of an option or tensor.
        why: the cause, when it is not plain from ``what``.
        fix: what the user can do about it.
    """

    exit_code = 70

    def __init__(self, what: str, where: str | None = None, why: str | None = None, fix: str | None = None) -> None:
        self.what = what
        self.where = where
        self.why = why
        self.fix = fix
        super().__init__(what)

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[type[AligniteError], tuple[str | None, ...]]:
        return type(self), (self.what, self.where, self.why, self.fix)


class UsageError(AligniteError, ValueError):
    """A command, option or argument that cannot be taken."""

    exit_code = 2


class ConfigError(UsageError):
    """An unknown configuration key, or a value of the wrong type or range."""


class DataError(AligniteError, ValueError):
    """A data file or row that cannot be read."""

    exit_code = 3


class TemplateError(DataError):
    """A chat template that cannot be compiled or fails on a conversation."""


class MaskError(DataError):
    """A conversation whose scored tokens cannot be told exactly."""


class ModelError(AligniteError, ValueError):
    """A model, adapter, tokenizer or GGUF file that cannot be used."""

    exit_code = 4


class TokenizerError(ModelError):
    """A tokenizer that cannot be loaded or does not fit its model."""


class GgufError(ModelError):
    """A GGUF file that is damaged or holds what alignite does not read."""


class AdapterError(ModelError):
    """An adapter that does not fit its model, or whose files disagree."""


class NumericsError(AligniteError, ArithmeticError):
    """A loss or gradient that is not finite; the update was not applied."""

    exit_code = 5


class ResourceError(AligniteError, OSError):
    """A file, folder, disk or memory limit of the machine."""

    exit_code = 6


class CheckpointError(AligniteError, ValueError):
    """A checkpoint that cannot be resumed, or a run folder in use."""

    exit_code = 7


class Preempted(AligniteError):  # noqa: N818 - an event, not a fault
    """The work was told to stop by SIGTERM, and saved what the same command goes on from."""

    exit_code = 75


class InternalError(AligniteError, RuntimeError):
    """A bug in alignite, such as a panic in the Rust core."""
