from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from alignite.errors import AdapterError
from alignite.models.checkpointing import enable_gradient_checkpointing
from alignite.peft import (
    LoraConfig,
    adapter_parameters,
    apply_adapter,
    checkpoint_context_fn,
    merge_adapter,
    use_adapters,
)
from alignite.peft.lora import FusedLinear, _LoraLinear
from alignite.peft.seat import Seat, seats

VOCABULARY = 48
IDS = torch.arange(18).reshape(2, 9) % VOCABULARY


def llama(**options: Any) -> nn.Module:
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, num_key_value_heads=2, **sizes, **options)).eval()


def gpt2() -> nn.Module:
    torch.manual_seed(1)
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4)).eval()


MODELS = pytest.mark.parametrize(
    ("make", "targets"), [(llama, "all-linear"), (gpt2, ["c_attn", "c_fc"])], ids=["llama", "gpt2"]
)


def fill(model: nn.Module, name: str = "default", seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapter_parameters(model, name).values():
        parameter.data.normal_(0, 0.1, generator=generator)


def logits(model: Any) -> Tensor:
    found: Tensor = model(IDS).logits
    return found


@MODELS
def test_the_base_is_what_it_was(make: Any, targets: Any) -> None:
    model = make()
    before, names = logits(model), [name for name, _ in model.named_parameters()]
    state = set(model.state_dict())
    trained = apply_adapter(model, LoraConfig(r=4, target_modules=targets), seed=3)
    assert torch.equal(logits(model), before), "a new adapter changes nothing"
    assert set(model.state_dict()) == state
    model.load_state_dict(make().state_dict(), strict=True)
    kept = [name for name, _ in model.named_parameters() if name not in trained]
    assert kept == names
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trained
    assert {type(m).__name__ for m in model.modules()} == {type(m).__name__ for m in make().modules()} | (
        {"ModuleDict", "LoraAdapter", "_Factor"}
    )
    fill(model)
    assert not torch.allclose(logits(model), before)
    with use_adapters(model, None):
        assert torch.equal(logits(model), before), "without adapters it is the base, bit for bit"


@MODELS
def test_copies_and_pickles_are_whole(make: Any, targets: Any) -> None:
    model = make()
    apply_adapter(model, LoraConfig(r=4, target_modules=targets))
    fill(model)
    expected = logits(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(logits(twin), expected)
        fill(twin, seed=1)
        assert torch.equal(logits(model), expected), "the twin shares nothing"
        with use_adapters(twin, None):
            assert torch.equal(logits(model), expected), "not even which adapters act"


def test_the_start_depends_on_the_seed_alone() -> None:
    starts = []
    for noise, seed in ((0, 5), (1, 5), (1, 6)):
        model = llama()
        torch.manual_seed(noise)
        apply_adapter(model, LoraConfig(r=4), seed=seed)
        starts.append(adapter_parameters(model)["model.layers.0.mlp.up_proj.lora_A.weight"])
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    # PEFT's kaiming_uniform_(a=sqrt(5)) is uniform within 1 / sqrt(fan_in).
    assert 0.9 / 32**0.5 < starts[0].abs().max().item() <= 1 / 32**0.5


@pytest.mark.parametrize("checkpointing", [False, True])
def test_two_forwards_under_different_adapters_and_one_backward(checkpointing: bool) -> None:
    """With gradient checkpointing each forward's recomputation must see that forward's adapters."""

    def gradients(together: bool) -> dict[str, Tensor]:
        model = llama()
        for name, seed in (("one", 1), ("two", 2)):
            apply_adapter(model, LoraConfig(r=4), name=name, seed=seed)
            fill(model, name, seed)
        parameters = adapter_parameters(model, "one") | {
            f"two.{key}": value for key, value in adapter_parameters(model, "two").items()
        }
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        model.train()
        if checkpointing and together:
            enable_gradient_checkpointing(model, checkpoint_context_fn(model))
        losses = []
        for name in ("one", "two"):
            with use_adapters(model, name):
                losses.append(logits(model).square().sum())
                if not together:
                    losses.pop().backward()
        if together:
            with use_adapters(model, None):  # what is active in backward must not matter
                (losses[0] + losses[1]).backward()
        found = {key: parameter.grad for key, parameter in parameters.items()}
        assert all(gradient is not None and gradient.any() for gradient in found.values())
        return {key: gradient for key, gradient in found.items() if gradient is not None}

    expected, found = gradients(together=False), gradients(together=True)
    for key, gradient in expected.items():
        assert (found[key] - gradient).norm() <= 1e-5 * gradient.norm(), key


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("bias", [False, True])
def test_the_fused_linear_has_the_right_gradients(dropout: float, bias: bool) -> None:
    torch.manual_seed(0)
    x, w, a, b = (torch.randn(shape, dtype=torch.float64) for shape in ((5, 4), (3, 4), (2, 4), (3, 2)))
    offset = torch.randn(3, dtype=torch.float64) if bias else None
    for tensor in (x, a, b):
        tensor.requires_grad_(True)

    def forward(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        torch.manual_seed(7)  # the same mask each time
        found: Tensor = _LoraLinear.apply(x, w, offset, a, b, 0.5, dropout)
        return found

    assert torch.autograd.gradcheck(forward, (x, a, b))
    if not dropout:
        plain = nn.functional.linear(x, w, offset) + 0.5 * (x @ a.T @ b.T)
        torch.testing.assert_close(forward(x, a, b), plain)


@MODELS
def test_fused_and_plain_paths_agree(make: Any, targets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> dict[str, Tensor]:
        model = make()
        apply_adapter(model, LoraConfig(r=4, target_modules=targets, use_rslora=True))
        fill(model)
        output = logits(model)
        output.square().sum().backward()
        found = {name: p.grad for name, p in adapter_parameters(model).items() if p.grad is not None}
        assert len(found) == len(adapter_parameters(model))
        return found | {"logits": output.detach()}

    fused = run()
    monkeypatch.delattr(FusedLinear, "fused_forward")
    for name, value in run().items():
        assert (fused[name] - value).norm() <= 1e-5 * value.norm(), name


def test_shapes_strides_and_dtypes_that_models_send() -> None:
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 0.05)):
        model = nn.Sequential(nn.Linear(6, 5)).to(dtype)
        apply_adapter(model, LoraConfig(r=2, target_modules=["0"]))
        fill(model)
        parameters = adapter_parameters(model)
        assert all(parameter.dtype == torch.float32 for parameter in parameters.values())
        a, b = (parameters[f"0.lora_{letter}.weight"] for letter in "AB")
        for x in (torch.randn(4, 6), torch.randn(2, 3, 6), torch.randn(6, 4).T, torch.randn(6)):
            x = x.to(dtype)
            y = model(x)
            assert y.dtype == dtype
            expected = nn.functional.linear(x.float(), model[0].weight.float(), model[0].bias.float())
            expected = expected + 4.0 * (x.float() @ a.T @ b.T)
            assert (y.float() - expected).norm() <= tolerance * expected.norm()


def test_dropout_acts_in_training_only_and_scales_what_it_keeps() -> None:
    model = nn.Sequential(nn.Linear(64, 64, bias=False))
    model[0].weight.data.zero_()
    apply_adapter(model, LoraConfig(r=64, lora_alpha=64, target_modules=["0"], lora_dropout=0.25))
    for parameter in adapter_parameters(model).values():
        parameter.data.copy_(torch.eye(64))
    x = torch.ones(200, 64)
    assert torch.equal(model.eval()(x), x)
    y = model.train()(x)
    assert y.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (y == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)


@MODELS
def test_merging_keeps_the_function_and_leaves_no_seat(make: Any, targets: Any) -> None:
    model = make()
    apply_adapter(model, LoraConfig(r=4, target_modules=targets))
    fill(model)
    expected = logits(model)
    report = merge_adapter(model)
    torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)
    assert report.lost == 0.0
    assert report.modules > 0
    assert not seats(model)
    assert not any(isinstance(module, Seat) for module in model.modules())
    assert [type(m) for m in model.modules()] == [type(m) for m in make().modules()]


def test_merging_reports_what_rounding_takes(caplog: pytest.LogCaptureFixture) -> None:
    model = llama().bfloat16()
    apply_adapter(model, LoraConfig(r=4))
    for parameter in adapter_parameters(model).values():
        parameter.data.fill_(1e-3)
    assert merge_adapter(model).lost > 0.1
    assert "to rounding" in caplog.text


def test_merging_into_float64_keeps_float64() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False)).double()
    before = model[0].weight.detach().clone()
    apply_adapter(model, LoraConfig(r=2, target_modules=["0"]))
    merge_adapter(model)
    assert torch.equal(model[0].weight, before)


def test_targets_are_chosen_as_peft_chooses_them() -> None:
    def chosen(**options: Any) -> set[str]:
        return {name.split(".lora_")[0] for name in adapter_names(options)}

    def adapter_names(options: Any) -> list[str]:
        model = llama()
        apply_adapter(model, LoraConfig(**options))
        return list(adapter_parameters(model))

    every = chosen(target_modules="all-linear")
    assert len(every) == 14
    assert "lm_head" not in every
    assert chosen(target_modules=["q_proj", "layers.1.mlp.up_proj"]) == {
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
    }
    assert chosen(target_modules=r".*\.0\..*_proj") == {name for name in every if ".0." in name}
    assert chosen(target_modules=["q_proj"], layers_to_transform=[1]) == {"model.layers.1.self_attn.q_proj"}
    assert chosen(exclude_modules=r".*mlp.*") == {name for name in every if "mlp" not in name}


def test_ranks_and_alphas_by_pattern() -> None:
    model = llama()
    config = LoraConfig(r=4, lora_alpha=8, rank_pattern={"q_proj": 2}, alpha_pattern={"layers.1.mlp.up_proj": 1})
    apply_adapter(model, config)
    parameters = adapter_parameters(model)
    assert parameters["model.layers.0.self_attn.q_proj.lora_A.weight"].shape == (2, 32)
    assert parameters["model.layers.0.self_attn.k_proj.lora_A.weight"].shape == (4, 32)
    scales = {path: module.adapters["default"].scale for path, module in seats(model).items()}  # type: ignore[union-attr,index]
    assert scales["model.layers.0.self_attn.q_proj"] == 4.0
    assert scales["model.layers.1.mlp.up_proj"] == 0.25
    assert scales["model.layers.0.mlp.up_proj"] == 2.0
    assert LoraConfig(r=4, lora_alpha=8, use_rslora=True).scale_of("x") == 4.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target_modules": ["q_prj"]}, "did you mean q_proj"),
        ({"target_modules": ["q_proj", "nothing"]}, "'nothing'"),
        ({"target_modules": ["embed_tokens"]}, "linears"),
        ({"target_modules": "("}, "regular expression"),
        ({"target_modules": []}, "empty"),
        ({"r": 0}, "at least 1"),
        ({"lora_dropout": 1.0}, "lora_dropout"),
        ({"bias": "all"}, "bias"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"exclude_modules": ".*"}, "selects no linear"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(options: Any, words: str) -> None:
    model = llama()
    with pytest.raises(AdapterError) as caught:
        apply_adapter(model, LoraConfig(**options))
    assert words in str(caught.value)
    assert not seats(model)


def test_a_tied_head_is_refused_and_an_untied_one_taken() -> None:
    with pytest.raises(AdapterError, match="shares its weight"):
        apply_adapter(llama(tie_word_embeddings=True), LoraConfig(target_modules=["lm_head"]))
    assert apply_adapter(llama(), LoraConfig(target_modules=["lm_head"]))


def test_names_are_checked() -> None:
    model = llama()
    apply_adapter(model, LoraConfig(r=2))
    with pytest.raises(AdapterError, match="already"):
        apply_adapter(model, LoraConfig(r=2))
    with pytest.raises(AdapterError, match="dots"):
        apply_adapter(model, LoraConfig(r=2), name="a.b")
    with pytest.raises(AdapterError, match="adapters here: default"), use_adapters(model, "other"):
        pass
    with pytest.raises(AdapterError, match="adapters here: default"):
        merge_adapter(model, "other")
