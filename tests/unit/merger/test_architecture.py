"""The decoders the streaming merge knows, against what transformers makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from cutoff.hub.candidates import CANDIDATES
from cutoff.merger import architecture
from tests.unit.merger.models import MODELS, build


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_whole_model_lacks_nothing_and_has_nothing_strange(name: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{**MODELS[name], "num_hidden_layers": 3}))
    names = set(model.state_dict())
    config = json.loads((build(name, tmp_path, torch.float32) / "config.json").read_text()) | {"num_hidden_layers": 3}
    assert architecture.is_known(config)
    assert (architecture.missing(config, names), architecture.unknown(config, names)) == ([], [])
    for each in names - {architecture.EMBEDDING, architecture.OUTPUT}:
        assert architecture.missing(config, names - {each}) == [each]
    assert architecture.unknown(config, {*names, "model.layers.3.input_layernorm.weight", "model.extra"}) == [
        "model.extra",
        "model.layers.3.input_layernorm.weight",
    ]


@pytest.mark.parametrize("name", sorted(architecture.LAYERS))
def test_ties_are_transformers_own_where_the_configuration_is_silent(name: str) -> None:
    config: Any = AutoConfig.for_model(name)
    assert architecture.is_tied({"model_type": name}) is config.tie_word_embeddings


def test_one_of_two_tied_embeddings_is_enough() -> None:
    names = {architecture.EMBEDDING, architecture.OUTPUT}
    config = {"model_type": "llama", "num_hidden_layers": 0, "tie_word_embeddings": True}
    for kept in names:
        assert architecture.missing(config, {kept, "model.norm.weight"}) == []
    assert architecture.missing(config, {"model.norm.weight"}) == [architecture.EMBEDDING]
    untied = config | {"tie_word_embeddings": False}
    assert architecture.missing(untied, {architecture.EMBEDDING, "model.norm.weight"}) == [architecture.OUTPUT]


def test_every_candidate_of_the_document_is_known() -> None:
    assert {entry.shape.model_type for entry in CANDIDATES} <= set(architecture.LAYERS)
