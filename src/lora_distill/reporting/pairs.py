"""What differs between any two experiments, or runs of them: settings, and figures as they are said."""

from collections.abc import Sequence
from typing import Any

from lora_distill.reporting.sentences import one_line
from lora_distill.reporting.summary import Experiment
from lora_distill.run_folder import DECIDES_NOTHING

HIDDEN = (*DECIDES_NOTHING, "device")


def settings_of(experiment: Experiment) -> dict[str, Any]:
    """The settings that decide its results, but for the seed."""
    settings: dict[str, Any] = experiment.runs[0].resolved().model_dump(mode="json", exclude={*HIDDEN, "seed"})
    return settings


def pairs(experiments: Sequence[Experiment]) -> list[dict[str, Any]]:
    """Each experiment, and then each run of those with several: its `name`, and what is `said` of it, key by key.

    Settings are said that vary among the experiments, and the figures of each.

    Args:
        experiments: one at least.
    """
    settings = [settings_of(each) for each in experiments]
    varied = [key for key in settings[0] if any(each[key] != settings[0][key] for each in settings)]
    shown = list(zip(experiments, settings, strict=True))
    runs = [(run, own) for each, own in shown if len(each.runs) > 1 for run in each.of_each_seed()]
    return [
        {
            "name": one_line(each.name),
            "said": [*((key, one_line(str(own[key]))) for key in varied), *each.figures().items()],  # in this order
        }
        for each, own in [*shown, *runs]
    ]
