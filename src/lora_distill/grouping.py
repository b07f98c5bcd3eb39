"""Which finished runs are seeds of one experiment."""

import itertools
import logging
import re
from collections import Counter

from lora_distill.run_folder import DECIDES_NOTHING, RunFolder

logger = logging.getLogger(__name__)


def group_by_seed(runs: list[RunFolder]) -> dict[str, list[RunFolder]]:
    """Put finished runs together that differ in nothing but the seed, under the name that is left without it.

    A run of the same models as another says nothing new and is left out, which is told: a copy, or one of another suite
    that found them trained. What was trained again with a seed that is there, and answers otherwise, is no further seed
    but a group of its own. Names that several groups would have begin with the folders in which these lie.
    """
    alike: dict[str, dict[int, RunFolder]] = {}
    for run in runs:
        if run.outdated_since:
            logger.warning("%s is to be trained again, which has not been done: it is shown as it was", run.path)
        config, inputs = run.resolved(), run.inputs()
        settings = config.model_dump_json(exclude={"seed", *DECIDES_NOTHING})
        for again in itertools.count():
            twin = alike.setdefault(f"{settings} {inputs} {again}", {}).setdefault(config.seed, run)
            if twin is run:
                break
            if run.answers_as(twin):
                logger.warning("%s is left out, for it has the models of %s", run.path, twin.path)
                break
    groups = [list(each.values()) for each in alike.values()]
    ways = [_names(each) for each in groups]
    counts = [Counter(names) for names in zip(*ways, strict=True)]
    return {
        next(name for name, count in zip(names, counts, strict=True) if count[name] == 1): each
        for names, each in zip(ways, groups, strict=True)
    }


def _names(group: list[RunFolder]) -> list[str]:
    """What a group may be called, the shortest first; the last is no other group's."""
    path = group[0].path.resolve()
    short = re.sub(r"-seed-\d+$", "", path.name) if len(group) > 1 else path.name
    return [short, f"{path.parent.name}/{short}", f"{path.parent.name}/{path.name}", str(path)]
