"""The best evaluation of a run: which checkpoint is kept, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from alignite.config import TrainingConfig
from alignite.errors import ConfigError


@dataclass
class Best:
    """The best value so far of one metric, and for how many evaluations none was better by the threshold.

    Early stopping is transformers' (``early_stopping_patience``, ``early_stopping_threshold``): any better value is
    the best, only one that is better by more than the threshold starts the patience anew. ``data`` is the fingerprint
    of what is evaluated on: values on other data are not compared.
    """

    metric: str | None
    data: str | None = None
    greater: bool = False
    patience: int = 0
    threshold: float = 0.0
    value: float | None = None
    step: int | None = None
    waited: int = 0

    @classmethod
    def of(cls, config: TrainingConfig, data: str | None = None) -> Self:
        """As the config's options say; it never changes when they name no metric."""
        metric = config.metric_for_best_model
        given = config.greater_is_better
        greater = given if given is not None else not (metric or "").endswith(("loss", "entropy"))
        return cls(metric, data, greater, config.early_stopping_patience, config.early_stopping_threshold)

    def update(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Take an evaluation; says whether it is the best so far. A value that is not a number never is.

        Raises:
            ConfigError: the evaluation has no such metric.
        """
        if self.metric is None:
            return False
        self.check(metrics)
        value = metrics[self.metric]
        gain = -math.inf if math.isnan(value) else math.inf if self.value is None else value - self.value
        if self.value is not None and not self.greater and not math.isnan(value):
            gain = -gain
        self.waited = 0 if gain > self.threshold else self.waited + 1
        if gain > 0:
            self.value, self.step = value, step
        return gain > 0

    def check(self, metrics: Mapping[str, float]) -> None:
        """Whether an evaluation has the metric.

        Raises:
            ConfigError: it has not.
        """
        if self.metric is not None and self.metric not in metrics:
            raise ConfigError(
                f"metric_for_best_model is {self.metric!r}", fix=f"the evaluation gives {', '.join(sorted(metrics))}"
            )

    @property
    def reason(self) -> str:
        """Why the patience is at its end."""
        found = self.value is not None
        best = f"the best is {self.value:.6g} (step {self.step})" if found else "no evaluation gave a number"
        by = f" by more than {self.threshold:g}" if self.threshold else ""
        return f"{self.metric} was not better{by} in {self.waited} evaluations; {best}"

    @property
    def exhausted(self) -> bool:
        """Whether the patience is at its end."""
        return 0 < self.patience <= self.waited

    def state_dict(self) -> dict[str, Any]:
        return {"metric": self.metric, "data": self.data, "value": self.value, "step": self.step, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; one of another metric or of other data is of no use and is left."""
        if state.get("metric") == self.metric and state.get("data") == self.data:
            self.value, self.step, self.waited = state["value"], state["step"], int(state["waited"])
