"""The options of commands that use reward models."""

from __future__ import annotations

import math

from alignite.config.data import column_names
from alignite.config.options import Options, check_bound, check_device, config_class, option
from alignite.errors import ConfigError


@config_class
class ScorerOptions(Options):
    """Which reward models score, and how several are used as one."""

    reward_model: list[str] = option(
        default=[],
        help="reward models: folders, adapters' folders, org/name[@revision] of the hub, or http://HOST:PORT of served "
        "ones",
    )
    process_reward_model: list[str] = option(
        default=[], help="process reward models, likewise but not served; a solution's steps are its lines"
    )
    base_model: str | None = option(
        default=None, help="the base of the adapters among them; default: the one that each names"
    )
    head: str | None = option(
        default=None,
        help="take this head of models with several: its place from 0, or one of criteria; default: each counts as a "
        "model",
    )
    criteria: list[str] = option(
        default=[],
        help="names of the heads of models with several, as in training; default: as the run's config.yaml says",
    )
    combine: str = option(
        default="mean",
        help="how several scores of a reply become one",
        choices=("mean", "weighted", "min", "product", "lexicographic", "threshold"),
    )
    weights: list[float] = option(default=[], help="for weighted: a number a model, in their order")
    tolerance: float = option(
        default=0.0,
        help="for lexicographic: scores are rounded down to multiples of this; equal ones leave it to the next model",
    )
    threshold: float = option(
        default=0.15, help="for threshold: where the first model's score is below, it counts, else the second model's"
    )
    aggregation: str = option(
        default="product",
        help="how the probabilities of a solution's steps become one score",
        choices=("product", "min", "last", "mean", "geometric_mean"),
    )
    neutral_is_good: bool = option(default=True, help="whether a neutral step counts as right")
    max_length: int | None = option(
        default=None, help="tokens of a prompt and a reply; old turns leave a longer prompt; default: the model's limit"
    )
    max_tokens: int = option(default=8192, help="tokens in a forward pass; a prompt and one reply may be longer")
    dtype: str = option(default="float32", help="dtype of the models", choices=("float32", "bfloat16"))
    device: str = option(default="auto", help="auto, cpu, cuda or cuda:N")
    num_threads: int = option(default=0, help="CPU threads; 0 means all cores")

    def validate(self) -> None:
        super().validate()
        for name, low in (("max_tokens", 1), ("num_threads", 0), ("tolerance", 0)):
            check_bound(name, getattr(self, name), low, True)
        if self.max_length is not None:
            check_bound("max_length", self.max_length, 2, True)
        if self.head is not None and self.head not in self.criteria and not self.head.isdecimal():
            raise ConfigError(
                f"head is {self.head!r}",
                fix=f"it is one of {', '.join(self.criteria)}"
                if self.criteria
                else "it is a number, counted from 0, or one of the names that --criteria gives",
            )
        if not math.isfinite(self.threshold) or not all(map(math.isfinite, self.weights)):
            raise ConfigError("threshold or one of weights is not finite", fix="give finite numbers")
        if bool(self.weights) != (self.combine == "weighted"):
            raise ConfigError(
                f"combine is {self.combine!r} and weights are {self.weights}",
                fix="give --combine weighted and a number a model, or neither",
            )
        check_device(self.device)


@config_class
class ScoredDataOptions(ScorerOptions):
    """The rows that are scored."""

    data: list[str] = option(default=[], help="files of any format, folders, globs, URLs, or org/name[:[config:]split]")
    columns: list[str] = option(default=[], help="columns by other names, as NAME=COLUMN: prompt=question")
    safety_column: str | None = option(
        default=None, help="for threshold: column that says, true or false, whether the prompt is about safety"
    )
    on_bad_row: str = option(
        default="skip",
        help="what a row does that cannot be read or scored: it ends the work, or is counted",
        choices=("error", "skip"),
    )

    def validate(self) -> None:
        super().validate()
        self.column_names()
        if self.safety_column is not None and self.combine != "threshold":
            raise ConfigError("safety_column is given without threshold", fix="add --combine threshold")

    def column_names(self) -> dict[str, str]:
        """``columns`` as a mapping: by the name that is wanted, the column's own name."""
        return column_names(self.columns)


@config_class
class EvaluateConfig(ScoredDataOptions):
    """Options of ``alignite evaluate``."""

    format: str | None = option(default=None, help="format of the rows; default: told from each row")
    category_column: str = option(default="category", help="column by whose values the accuracy is reported too")
    answer_column: str | None = option(
        default=None,
        help="column with the true answer: a row's completions are graded by it, 1 or 0, in the place of scores; needs "
        "math-verify",
    )
    num_bins: int = option(default=10, help="bins of the calibration")
    step_threshold: float = option(
        default=0.5, help="of rated steps: the probability from which a step is said to be right"
    )
    output: str | None = option(default=None, help="new JSONL file for the scores of every row")

    def validate(self) -> None:
        super().validate()
        check_bound("num_bins", self.num_bins, 1, True)
        if self.criteria and self.combine not in ("mean", "min"):
            raise ConfigError(
                f"combine is {self.combine!r}, and criteria are given",
                why="a row about a criterion is judged by that head alone",
                fix="choose mean or min, or leave out criteria",
            )
        if not 0 < self.step_threshold < 1:
            raise ConfigError(f"step_threshold is {self.step_threshold}", fix="it must be between 0 and 1")
        if self.output is not None and not self.output.endswith(".jsonl"):
            raise ConfigError(f"output is {self.output!r}", fix="it must end in .jsonl")


@config_class
class ScoreConfig(ScoredDataOptions):
    """Options of ``alignite score``."""

    output: str | None = option(
        default=None, help="new JSONL file for the rows with their scores; - is standard output"
    )

    def validate(self) -> None:
        super().validate()
        if self.output is not None and self.output != "-" and not self.output.endswith(".jsonl"):
            raise ConfigError(f"output is {self.output!r}", fix="it must end in .jsonl, or be -")


@config_class
class ServeConfig(ScorerOptions):
    """Options of ``alignite serve``."""

    host: str = option(
        default="127.0.0.1",
        help="address to listen at; there is no password: another than this machine's is for "
        "networks that keep others out",
    )
    port: int = option(default=0, help="port to listen at; 0 takes a free one")

    def validate(self) -> None:
        super().validate()
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port is {self.port}", fix="it must be between 0 and 65535")
        if self.combine == "lexicographic":
            raise ConfigError(
                "combine is 'lexicographic'",
                why="it orders the replies of one call, which a server's clients choose as they like",
                fix="serve the models apart and combine what they say, or choose another combination",
            )
