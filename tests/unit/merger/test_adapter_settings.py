"""Whatever an adapter_config.json holds: its faults are named, or its settings can be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cutoff.merger.adapter import Adapter, lacking, strange_to_streaming
from cutoff.merger.adapter_settings import setting_faults
from cutoff.merger.checkpoint import Stored

MODULE = "model.layers.0.self_attn.q_proj"
SIMPLE = st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.sampled_from(["q_proj", "(", ".*q_proj", ""])
VALUES = (
    SIMPLE | st.lists(SIMPLE, max_size=2) | st.dictionaries(st.sampled_from(["q_proj", "[", ""]), SIMPLE, max_size=2)
)
NAMES = ("rank_pattern", "alpha_pattern", "target_modules", "exclude_modules", "modules_to_save", "layers_to_transform")


@given(
    st.fixed_dictionaries(
        {"r": st.just(4) | VALUES, "lora_alpha": st.just(8) | VALUES},
        optional=dict.fromkeys((*NAMES, "use_rslora", "ensure_weight_tying"), VALUES),
    )
)
def test_settings_without_faults_can_be_used(config: dict[str, Any]) -> None:
    if list(setting_faults(Path("adapter_config.json"), config)):
        return
    stored = Stored(Path("model.safetensors"), f"{MODULE}.weight", "F32", (4, 4))
    adapter = Adapter(Path("adapter"), config, {MODULE: {"lora_A": stored}}, {stored.name: stored})
    assert adapter.rank(MODULE) > 0
    assert isinstance(adapter.scale(MODULE), float)
    list(strange_to_streaming(adapter))
    lacking(Adapter(Path("adapter"), config, {}, {}), {stored.name: stored})
