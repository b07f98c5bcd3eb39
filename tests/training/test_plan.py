import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from lora_distill.errors import UserError
from lora_distill.training import plan as plan_module
from lora_distill.training.plan import ExecutionPlan, choose_plan, processor


@pytest.mark.parametrize(("times_as_fast", "precision"), [(2.2, "bf16"), (0.1, "fp32"), (1.0, "fp32")])
def test_bf16_is_chosen_only_where_the_processor_is_faster_with_it_measured_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, times_as_fast: float, precision: str
) -> None:
    measured: list[float] = []

    def measure() -> float:
        measured.append(times_as_fast)
        return times_as_fast

    monkeypatch.setattr(plan_module, "_times_as_fast", measure)
    monkeypatch.setenv("LORA_DISTILL_CACHE", str(tmp_path / "cache"))
    assert choose_plan("cpu", "fp32").precision == "fp32"
    assert measured == []
    for _ in range(2):
        assert choose_plan("cpu", "auto").precision == precision
    assert len(measured) == 1
    for damaged in ("{", "[]", "{}"):
        (tmp_path / "cache" / "processors.json").write_text(damaged)
        assert choose_plan("cpu", "auto").precision == precision
    assert len(measured) == 4
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LORA_DISTILL_CACHE", str(tmp_path / "file" / "cache"))
    assert choose_plan("cpu", "auto").precision == precision


def test_what_is_measured_is_a_time() -> None:
    assert plan_module._times_as_fast() > 0


def test_bf16_that_was_named_is_used_but_not_silently(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(plan_module, "_bf16_pays", lambda _: False)
    assert choose_plan("cpu", "bf16").precision == "bf16"
    assert "slow" in caplog.text


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_plan("auto", "fp32").device == "cpu"
    with pytest.raises(UserError, match=r"--device cuda.*has cpu"):
        choose_plan("cuda", "fp32")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    current = ["cuda:0"]
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: current[-1] == "cuda:1")

    @contextmanager
    def device(name: str) -> Iterator[None]:
        current.append(name)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", device)
    assert choose_plan("auto", "fp32").device == "cuda"
    assert choose_plan("cuda:1", "fp32").device == "cuda:1"
    assert [choose_plan(f"cuda:{index}", "auto").precision for index in (0, 1)] == ["fp32", "bf16"]
    with pytest.raises(UserError, match="cuda:2"):
        choose_plan("cuda:2", "fp32")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_plan("mps", "auto") == ExecutionPlan("mps", "fp32", torch.get_num_threads())


def test_the_processor_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file() and "model name" in cpuinfo.read_text():
        assert re.search(rf"^model name\s*: {re.escape(processor())}$", cpuinfo.read_text(), re.MULTILINE)
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert processor() == platform.machine()
