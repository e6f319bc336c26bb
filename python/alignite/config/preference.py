"""The options of methods that learn from comparisons, rankings and ratings."""

from __future__ import annotations

from alignite.config.data import DataOptions
from alignite.config.options import check_bound, config_class, option
from alignite.config.training import SFTConfig, TrainingConfig
from alignite.errors import ConfigError


@config_class
class PreferenceConfig(DataOptions, TrainingConfig):
    """What every method of learning from preferences takes on top of training and data options.

    ``per_device_train_batch_size`` counts records: pairs, rankings, labelled replies. Each is a window of its own, and
    ``micro_batch_tokens`` says how many go through the model at a time.
    """

    learning_rate: float = option(default=1e-6, help="peak learning rate")
    num_train_epochs: float = option(default=1.0, help="passes over the data, unless max_steps is given")
    per_device_train_batch_size: int = option(default=8, help="records (pairs, rankings, replies) in a batch")
    disable_dropout: bool = option(default=True, help="no dropout in the model, so that replies are compared fairly")

    def validate(self) -> None:
        super().validate()
        if self.packing != "none":
            raise ConfigError(
                f"packing is {self.packing!r}",
                why="records of preferences are never torn apart, and batches of them hold no padding",
                fix="leave packing out; micro_batch_tokens bounds what goes through the model at a time",
            )


@config_class
class ReferenceOptions(PreferenceConfig):
    """For objectives that compare the policy with a reference, the model as it was."""

    ref_model: str | None = option(
        default=None, help="reference model: a folder or a hub id; default: the model as it is before training"
    )
    precompute_ref_log_probs: bool = option(
        default=False, help="compute the reference's log-probabilities once, before training, and keep them"
    )
    precompute_ref_batch_size: int = option(default=8, help="records in a batch of that computation")
    sync_ref_model: bool = option(
        default=False, help="move the reference towards the policy every ref_model_sync_steps"
    )
    ref_model_mixup_alpha: float = option(default=0.6, help="the policy's share when the reference is moved")
    ref_model_sync_steps: int = option(default=512, help="updates between two such moves")

    def validate(self) -> None:
        super().validate()
        check_bound("precompute_ref_batch_size", self.precompute_ref_batch_size, 1, True)
        check_bound("ref_model_sync_steps", self.ref_model_sync_steps, 1, True)
        check_bound("ref_model_mixup_alpha", self.ref_model_mixup_alpha, 0, False)
        if self.ref_model_mixup_alpha > 1:
            raise ConfigError(f"ref_model_mixup_alpha is {self.ref_model_mixup_alpha}", fix="it must be at most 1")
        if self.sync_ref_model and self.precompute_ref_log_probs:
            raise ConfigError(
                "sync_ref_model and precompute_ref_log_probs are both given",
                why="log-probabilities that are computed once do not follow a reference that moves",
                fix="leave one of them out",
            )
        if self.sync_ref_model and self.use_peft:
            raise ConfigError(
                "sync_ref_model and use_peft are both given",
                why="a reference follows the policy weight by weight, and an adapter is no weight of the reference",
                fix="train all weights, or leave sync_ref_model out",
            )


@config_class
class DPOConfig(ReferenceOptions):
    """Direct preference optimization; see :class:`alignite.objectives.DPOObjective`."""

    beta: float = option(default=0.1, help="strength of the reference")
    loss_type: list[str] = option(
        default=["sigmoid"],
        help="losses of a pair, added by loss_weights",
        choices=(
            "sigmoid",
            "robust",
            "ipo",
            "ipo_sum",
            "hinge",
            "sigmoid_norm",
            "exo_pair",
            "nca_pair",
            "bco_pair",
            "sppo_hard",
            "apo_zero",
            "apo_down",
            "discopop",
            "aot",
            "aot_unpaired",
            "sft",
        ),
    )
    loss_weights: list[float] = option(default=[], help="a weight for each loss; default: 1 each")
    label_smoothing: float = option(
        default=0.0, help="probability that a label is wrong, for sigmoid (cDPO), robust, exo_pair and aot"
    )
    reference_free: bool = option(default=False, help="without a reference: it says the same of all replies")
    f_divergence_type: str = option(
        default="reverse_kl",
        help="divergence from the reference",
        choices=("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"),
    )
    f_alpha_divergence_coef: float = option(default=0.5, help="alpha of alpha_divergence")
    discopop_tau: float = option(default=0.05, help="temperature of discopop's blend")
    use_weighting: bool = option(default=False, help="weigh pairs by how likely the policy is to write them (WPO)")


@config_class
class SimPOConfig(PreferenceConfig):
    """Simple preference optimization; see :class:`alignite.objectives.SimPOObjective`."""

    beta: float = option(default=2.0, help="scale of the mean log-probabilities")
    simpo_gamma: float = option(default=1.0, help="margin by which the scaled means are to differ")


@config_class
class ORPOConfig(PreferenceConfig):
    """Odds-ratio preference optimization; see :class:`alignite.objectives.ORPOObjective`."""

    beta: float = option(default=0.1, help="weight of the odds ratio")


@config_class
class CPOConfig(PreferenceConfig):
    """Contrastive preference optimization; see :class:`alignite.objectives.CPOObjective`."""

    beta: float = option(default=0.1, help="scale of the log-probabilities")
    loss_type: str = option(default="sigmoid", help="loss of a pair", choices=("sigmoid", "hinge", "ipo"))
    label_smoothing: float = option(default=0.0, help="probability that a label is wrong, for sigmoid")
    cpo_alpha: float = option(default=1.0, help="weight of the chosen replies' mean negative log-probability")


@config_class
class KTOConfig(ReferenceOptions):
    """Kahneman-Tversky optimization on replies with labels; see :class:`alignite.objectives.KTOObjective`."""

    beta: float = option(default=0.1, help="strength of the reference")
    desirable_weight: float = option(default=1.0, help="weight of good replies")
    undesirable_weight: float = option(default=1.0, help="weight of bad replies")


@config_class
class RRHFConfig(PreferenceConfig):
    """RRHF on rankings; see :class:`alignite.objectives.RRHFObjective`."""

    length_penalty: float = option(default=1.0, help="a reply's score is its log-probability over its length to this")
    rrhf_weight: float = option(default=1.0, help="weight of the ranking term")
    sft: str = option(default="sum", help="the best reply's imitation, over its tokens", choices=("sum", "mean"))
    mode: str = option(
        default="paper", help="the paper's form, or what the authors' code computes", choices=("paper", "reference")
    )
    padded_width: int | None = option(
        default=None, help="padded width in reference mode; default: found from the replies"
    )


@config_class
class SLiCConfig(ReferenceOptions):
    """SLiC-HF on pairs and rankings; see :class:`alignite.objectives.SLiCObjective`."""

    delta: float = option(default=1.0, help="margin by which the better reply is to be likelier")
    lam: float = option(default=0.5, help="weight of the regularizer")
    kind: str = option(default="rank", help="calibration", choices=("rank", "margin", "list", "reward"))
    reg: str = option(
        default="ce",
        help="regularizer: imitation of the best reply, or divergence from a reference, over the vocabulary or as an "
        "estimate from the reply's tokens",
        choices=("ce", "kl", "k3"),
    )


@config_class
class CoHConfig(PreferenceConfig):
    """Chain of Hindsight on pairs and rankings; see :class:`alignite.objectives.CoHObjective`."""

    learning_rate: float = option(default=2e-5, help="peak learning rate")
    good: str = option(default="A helpful answer:", help="marker of the good answer")
    bad: str = option(default="An unhelpful answer:", help="marker of the bad answer")
    forms: list[str] = option(
        default=["p", "n", "pn", "np"],
        help="conversations that are made of a row: the good answer p, the bad one n, or both in an order",
        choices=("p", "n", "pn", "np"),
    )
    separator: str = option(default="\n", help="what stands between a user message and the marker")


@config_class
class QuarkConfig(ReferenceOptions):
    """Quark on replies under reward markers; see :class:`alignite.objectives.QuarkObjective`."""

    kl_coef: float = option(default=0.05, help="weight of the divergence from the reference; 0 needs none")
    kl: str = option(
        default="exact",
        help="the divergence: over the vocabulary, or an estimate from the replies' tokens",
        choices=("exact", "k3"),
    )
    entropy_coef: float = option(default=0.0, help="weight of the entropy that is rewarded")
    num_quantiles: int = option(
        default=5,
        help="quantiles of the rankings' replies, each with a marker; 0 when the data's rows have their markers",
    )
    marker: str = option(
        default="<rwd_{quantile}>", help="marker of a quantile, which begins the prompt; 0 is the best"
    )


@config_class
class FIGAConfig(PreferenceConfig):
    """FIGA on originals and their revisions; see :class:`alignite.objectives.FIGAObjective`."""

    negative_weight: float = option(default=-0.5, help="weight of the original's tokens that the revision drops")
    threshold: float = option(default=0.6, help="such a token counts when its loss is at most this (nats)")
    lower_threshold: float = option(default=0.0, help="and at least this")


@config_class
class ContrastConfig(PreferenceConfig):
    """Contrast of instructions; see :class:`alignite.objectives.InstructionContrastObjective`."""

    contrast_weight: float = option(default=1.0, help="weight of the contrastive term")
    label_smoothing: float = option(default=0.0, help="share of imitation that goes to the whole vocabulary")
    entropy_coef: float = option(default=0.0, help="weight of the entropy that is rewarded")
    shuffle: bool = option(default=False, help="shuffling would part the rows that are contrasted with each other")


@config_class
class HIRConfig(ContrastConfig):
    """Hindsight instruction relabelling on rankings; see :class:`alignite.objectives.HIRObjective`."""

    label_smoothing: float = option(default=0.2, help="share of imitation that goes to the whole vocabulary")
    entropy_coef: float = option(default=0.001, help="weight of the entropy that is rewarded")
    good: str = option(default="Give a right answer.", help="what a good reply is said to have been asked for")
    bad: str = option(default="Give a wrong answer.", help="what a bad reply is said to have been asked for")
    threshold: float = option(default=0.5, help="least score of a good reply")
    separator: str = option(default="\n", help="what stands between that and the prompt")
    group_size: int = option(default=4, help="instructions whose outputs are contrasted with each other")

    def validate(self) -> None:
        super().validate()
        check_bound("group_size", self.group_size, 2, True)
        if self.shuffle:
            raise ConfigError(
                "shuffle is given", why="a group must come in one update, and shuffling parts it", fix="leave it out"
            )
        rows = self.per_device_train_batch_size * self.gradient_accumulation_steps
        if rows % self.group_size:
            raise ConfigError(
                f"an update has {rows} rows and group_size is {self.group_size}",
                why="a group must come in one update",
                fix="let per_device_train_batch_size times gradient_accumulation_steps be a multiple of group_size",
            )


@config_class
class StableAlignmentConfig(PreferenceConfig):
    """Stable alignment on rated replies; see :class:`alignite.objectives.StableAlignmentObjective`."""

    ratio: float = option(default=0.2, help="weight of the contrastive term")
    margin: float = option(default=10.0, help="margin for the whole rating scale")
    rating_scale: float = option(default=7.0, help="the highest rating")
    max_flow: bool = option(default=False, help="take the worst contrast of a prompt instead of the mean")


@config_class
class RewardConfig(PreferenceConfig):
    """Reward models on pairs and rankings; see :class:`alignite.objectives.RewardObjective`."""

    learning_rate: float = option(default=1e-4, help="peak learning rate")
    loss_type: str = option(
        default="bradley_terry",
        help="loss of a prompt's replies: all its pairs, or the likelihood of their order",
        choices=("bradley_terry", "plackett_luce"),
    )
    margin: str = option(
        default="column",
        help="how a row's margin is read: as it stands, not at all, or as LLaMA-2's degrees 0 to 3",
        choices=("column", "none", "llama2_small", "llama2_large"),
    )
    label_smoothing: float = option(default=0.0, help="probability that a label is wrong")
    center_rewards_coefficient: float = option(default=0.0, help="weight of the squared sum of a pair's rewards")
    lm_coefficient: float = option(default=0.0, help="weight of the best replies' language-model loss")
    num_heads: int = option(default=1, help="rewards that the model gives; with criteria there is one for each")

    def validate(self) -> None:
        super().validate()
        check_bound("num_heads", self.num_heads, 1, True)
        if self.criteria and self.num_heads not in (1, len(self.criteria)):
            raise ConfigError(
                f"num_heads is {self.num_heads}, and criteria names {len(self.criteria)}",
                fix="leave num_heads out: criteria have a head each",
            )


@config_class
class PRMConfig(PreferenceConfig):
    """Process reward models on rated steps; see :class:`alignite.objectives.ProcessRewardObjective`."""

    learning_rate: float = option(default=1e-5, help="peak learning rate")
    num_classes: int = option(default=2, help="2: bad and good; 3: neutral, too")
    neutral: str = option(
        default="good", help="what a neutral step counts as with 2 classes", choices=("good", "bad", "ignore")
    )
    train_on_last_step_only: bool = option(default=False, help="learn from each solution's last step only")


METHOD_CONFIGS: dict[str, type[PreferenceConfig]] = {
    "dpo": DPOConfig,
    "simpo": SimPOConfig,
    "orpo": ORPOConfig,
    "cpo": CPOConfig,
    "kto": KTOConfig,
    "rrhf": RRHFConfig,
    "slic": SLiCConfig,
    "coh": CoHConfig,
    "quark": QuarkConfig,
    "figa": FIGAConfig,
    "contrast": ContrastConfig,
    "hir": HIRConfig,
    "stable_alignment": StableAlignmentConfig,
}
"""The config class of each method of :data:`alignite.objectives.registry.METHODS`."""

TRAINING_CONFIGS: dict[str, type[TrainingConfig]] = {
    "sft": SFTConfig,
    "reward": RewardConfig,
    "prm": PRMConfig,
    **METHOD_CONFIGS,
}
"""The config class of everything that trains, by the name of its command or objective."""
