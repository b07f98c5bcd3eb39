import pytest
import torch

from lora_distill.errors import UserError
from lora_distill.training.plan import ExecutionPlan, choose_plan


@pytest.mark.parametrize(
    ("able", "precision"),
    [
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({"avx512_bf16": False, "avx2": True}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_bf16_is_chosen_only_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, able: dict[str, bool], precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert choose_plan("cpu", "auto").precision == precision
    assert choose_plan("cpu", "fp32").precision == "fp32"


def test_bf16_that_was_named_is_used_but_not_silently(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert choose_plan("cpu", "bf16").precision == "bf16"
    assert "slow" in caplog.text


def test_accelerate_s_environment_names_no_other_device_than_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "meta")
    assert choose_plan("cpu", "fp32").accelerator().device == torch.device("cpu")


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_plan("auto", "fp32").device == "cpu"
    with pytest.raises(UserError, match=r"--device cuda.*has cpu"):
        choose_plan("cuda", "fp32")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert choose_plan("auto", "fp32").device == "cuda"
    assert choose_plan("cuda:1", "fp32").device == "cuda:1"
    with pytest.raises(UserError, match="cuda:2"):
        choose_plan("cuda:2", "fp32")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_plan("mps", "auto") == ExecutionPlan("mps", "fp32", torch.get_num_threads())
