"""What may be told of a run to everybody: no path of the machine that it was made on."""

import re
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from lora_distill.config import ROLES, Role
from lora_distill.run_folder import RunFolder

# A path in a sentence, with two folders at least: neither a label such as /r/space nor an address.
_PATH = re.compile(r"(?<![\w:/.~-])~?/(?:[^\s/'\"(),;]+/)+(?P<name>[^\s/'\"(),;]+)")


class PublicFacts(NamedTuple):
    """Of one role, what `model_card` takes: a place of this machine is called by its last name.

    Attributes:
        results: of metrics.json.
        config: resolved.
        base: what environment.json says of the role's base model.
    """

    results: dict[str, Any]
    config: dict[str, Any]
    base: dict[str, str]


def public_facts(run: RunFolder, role: Role) -> PublicFacts:
    """What may be told of a role of a finished run.

    Raises:
        UserError: the run is not finished, or damaged.
    """
    results, config = run.results(), run.resolved().model_dump(mode="json")
    base = run.environment()["base_model" if role == "teacher" else "student_base_model"]
    places = local_places(run)

    def told(text: str) -> str:
        return _without_places(text, places)

    data = results["data"]
    results["data"] = data | {
        "name": told(data["name"]),
        "source": data["source"] | {"location": told(data["source"]["location"])},
        "notes": list(map(told, data["notes"])),
    }
    results["fallbacks"] = list(map(told, results["fallbacks"]))
    for each in (name for name in ROLES if name in results):
        named = {name: told(results[each][name]) for name in ("base_model", "checkpoint") if name in results[each]}
        results[each] = results[each] | named
    if config["teacher_predictions"]:
        config["teacher_predictions"] = told(config["teacher_predictions"])
    return PublicFacts(results, config, base | {name: told(base[name]) for name in ("name", "reference")})


def public_text(text: str, run: RunFolder) -> str:
    """A text on a run in which each place of this machine is called by its last name."""
    return _without_places(text, local_places(run))


def local_places(run: RunFolder) -> list[str]:
    """Files and folders of this machine that a run was made from, as it names them, the longest first."""
    config, environment, data = run.resolved(), run.environment(), run.results()["data"]
    named: list[tuple[dict[str, str] | None, list[str | None]]] = [
        (data["source"], [data["name"], data["source"]["location"]]),
        (data.get("unlabelled_source"), [config.unlabelled]),
        (environment["base_model"], [config.base_model]),
        (environment["student_base_model"], [config.student_base_model]),
    ]
    given = environment.get("given_teacher") or {"models": []}
    named += [(model, [config.teacher_checkpoint]) for model in given["models"]]
    places = {config.teacher_predictions, str(run.path.resolve().parent)}
    for source, names in named:
        if source and source["kind"] != "hub":
            places |= {*names, source.get("name"), source.get("reference"), source.get("location")}
    # What has no folder in its name tells nothing of the machine: minilm, rows.csv.
    return sorted((place for place in places if place and len(Path(place).parts) > 1), key=len, reverse=True)


def _without_places(text: str, places: list[str]) -> str:
    for place in places:
        text = text.replace(place, PurePath(place).name)
    return _PATH.sub(r"\g<name>", text)
