"""What is found out before a conversion begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from cutoff.artifacts import disk as disk_module
from cutoff.errors import DiskFull, InvalidInput, Refused
from cutoff.gguf_converter.metadata import Facts, general_metadata, own_metadata
from cutoff.gguf_converter.order import Order, require_possible
from cutoff.gguf_converter.weights import Weights
from cutoff.spec import ConvertSpec
from cutoff.spec.quant_types import GAINS_FROM_IMATRIX, NEEDS_IMATRIX, QuantType
from cutoff.spec.quantizations import QUANTIZATIONS, file_name, size_at_most

BILLION = Weights(1_000_000_000, 3.0, "w")
GIB = 1 << 30


def order(folder: Path, *types: QuantType, **more: Any) -> Order:
    outputs = {name: folder / file_name("m", name) for name in types}
    return Order(folder / "model", outputs, "m", folder / "convert.json", **more)


def free(monkeypatch: pytest.MonkeyPatch, **gib: float) -> None:
    """Says how much is free in folders of these names, and everywhere else."""

    def usage(path: Path) -> object:
        return type("Usage", (), {"free": int(gib.get(path.name, gib["rest"]) * GIB)})

    monkeypatch.setattr(disk_module.shutil, "disk_usage", usage)


def test_the_16_bit_file_and_all_others_must_fit_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 1.05 * sum(size_at_most(BILLION.parameters, name) for name in ("f16", "q4_k_m", "q8_0")) / GIB
    free(monkeypatch, rest=needed + 0.01)
    require_possible(order(tmp_path, "q4_k_m", "q8_0"), BILLION)
    free(monkeypatch, rest=needed - 0.5)
    with pytest.raises(DiskFull, match="converting model to q4_k_m, q8_0 does not fit") as caught:
        require_possible(order(tmp_path, "q4_k_m", "q8_0"), BILLION)
    assert "free 0.50 GiB" in caught.value.remedy
    assert "16-bit GGUF, while converting 1.89 GiB" in caught.value.message


def test_the_installed_copy_is_asked_for_on_a_file_system_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_tmpfs: Path
) -> None:
    free(monkeypatch, small=0.1, rest=2.9)
    with pytest.raises(DiskFull) as caught:
        require_possible(order(tmp_path, "q4_k_m", installed_in=small_tmpfs / "models"), BILLION)
    assert f"{small_tmpfs}: needs 0.83 GiB, has 0.10 GiB free, lacks 0.73 GiB" in caught.value.message
    assert f"{tmp_path}:" not in caught.value.message


def test_a_copy_on_the_same_disk_takes_the_room_of_the_16_bit_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, rest=2.9)
    require_possible(order(tmp_path, "q4_k_m", installed_in=tmp_path / "models"), BILLION)
    keeping = ConvertSpec(keep_f16=True)
    with pytest.raises(DiskFull, match="installed q4_k_m"):
        require_possible(order(tmp_path, "q4_k_m", spec=keeping, installed_in=tmp_path / "models"), BILLION)


def test_what_needs_a_matrix_needs_a_text(tmp_path: Path) -> None:
    for name in NEEDS_IMATRIX:
        with pytest.raises(InvalidInput, match=f"{name}: is made with an importance matrix"):
            require_possible(order(tmp_path, name), BILLION)
    with pytest.raises(InvalidInput, match="q4_k_m"):
        require_possible(order(tmp_path, "q4_k_m", spec=ConvertSpec(imatrix="always")), BILLION)


def test_which_types_get_a_matrix(tmp_path: Path) -> None:
    every: tuple[QuantType, ...] = get_args(QuantType)
    text = tmp_path / "text.txt"
    assert set(order(tmp_path, *every, calibration=text).with_imatrix) == set(GAINS_FROM_IMATRIX)
    assert set(order(tmp_path, *every).with_imatrix) == set(NEEDS_IMATRIX)
    always = order(tmp_path, *every, calibration=text, spec=ConvertSpec(imatrix="always")).with_imatrix
    assert set(every) - set(always) == {"f32", "f16", "bf16", "q8_0"}
    never = ConvertSpec(imatrix="never")
    assert order(tmp_path, "iq4_xs", calibration=text, spec=never).with_imatrix == ()


def test_f16_is_refused_where_it_would_be_infinite(tmp_path: Path) -> None:
    large = Weights(1000, 70_000.0, "model.layers.3.mlp.down_proj.weight")
    with pytest.raises(Refused, match=r"down_proj.weight holds 70000"):
        require_possible(order(tmp_path, "f16"), large)
    require_possible(order(tmp_path, "q4_k_m"), large)
    assert (large.sixteen_bit, BILLION.sixteen_bit) == ("bf16", "f16")


def test_the_16_bit_file_is_kept_once(tmp_path: Path) -> None:
    keep = ConvertSpec(keep_f16=True)
    assert order(tmp_path, "q4_k_m").kept("f16") is None
    assert order(tmp_path, "q4_k_m", spec=keep).kept("bf16") == tmp_path / "m-BF16.gguf"
    assert order(tmp_path, "f16", spec=keep).kept("f16") is None


def test_every_type_has_its_row() -> None:
    assert tuple(QUANTIZATIONS) == get_args(QuantType)
    assert all(row.usual_bits <= row.most_bits for row in QUANTIZATIONS.values())


def test_a_folder_is_told_by_its_name_alone() -> None:
    facts = Facts(base_model="/home/somebody/secret/my-base", license="")
    told = f"{general_metadata(facts)} {own_metadata(facts, '1')}"
    assert "my-base" in told
    assert "somebody" not in told
    assert "general.license" not in told
