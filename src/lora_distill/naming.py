"""The name of a run that was given none."""

import itertools
import re
import time
from pathlib import Path

from lora_distill.config import Config
from lora_distill.data.files import SUFFIXES
from lora_distill.model.cut import Cut


def automatic_name(config: Config) -> str:
    """A readable name that no run has yet: model, data, adapters and the time."""
    base, data = _short(config.student_base_model or config.base_model, "model"), _short(config.dataset, "data")
    teacher = f"t{config.teacher_lora_r}x{config.teacher_target_layers}"
    if config.teacher_is_given:
        teacher = "given"
    student = f"s{config.student_lora_r}x{config.student_target_layers}"
    if depth := Cut.of(config, "student").depth:
        base += f"-{depth}-layers"
    stem = f"{base}-{data}-{teacher}-{student}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return next(name for name in names if not (Path(config.output_dir) / name).exists())


def _short(name: str, otherwise: str) -> str:
    """The telling part of a model's or data set's name, in letters that every file system takes."""
    path = Path(name)
    last = path.stem if path.suffix.lower() in SUFFIXES else path.name
    return re.sub(r"[^A-Za-z0-9_.]+|\.{2,}", "-", last)[:30].strip("-._") or otherwise
