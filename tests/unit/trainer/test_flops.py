"""Model FLOPs utilisation, by hand."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from cutoff.trainer.flops import computing_parameters, peak_of, utilisation


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("AMD Radeon 8060S Graphics", 59e12),
        ("AMD Instinct MI300X", 1307e12),
        ("Some new thing", None),
        ("NVIDIA L400", None),
    ],
)
def test_a_devices_peak_is_found_by_its_name(name, peak):
    assert peak_of(name) == peak


def test_a_tenth_of_the_peak_is_a_tenth():
    # 1.5e9 parameters, 4 FLOPs each and token: 989e12 / 10 / 6e9 tokens per second
    assert utilisation(989e12 / 10 / 6e9, 1_500_000_000, "NVIDIA H100 80GB HBM3") == pytest.approx(0.1)
    assert utilisation(1000.0, 1_500_000_000, "unknown") is None


@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_that_is_only_looked_up_does_not_compute(tied):
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    layers = sum(parameter.numel() for parameter in model.model.layers.parameters()) + model.model.norm.weight.numel()
    assert computing_parameters(model) == layers + 32 * 16
    assert isinstance(model.lm_head.weight, torch.nn.Parameter)
