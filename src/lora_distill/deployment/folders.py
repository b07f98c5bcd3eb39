"""Which folders hold a model, told by the files in them and so without torch."""

import os
from pathlib import Path

from lora_distill.deployment.forms import CLASSIFIER
from lora_distill.errors import UserError
from lora_distill.model.adapter_files import ADAPTER_CONFIG
from lora_distill.run_folder import ENVIRONMENT

TELLING = {
    "an exported model": CLASSIFIER,
    "a run": ENVIRONMENT,
    "an adapter": ADAPTER_CONFIG,
    "a model": "config.json",
}
DEEPEST = 3  # from a folder of runs to what was exported of one: RUN/exported/FORM
MOST_NAMED = 5


def check_model(folder: Path) -> None:
    """Refuse a folder that holds no model.

    Raises:
        UserError: it is none, or holds none; with the folders below it that do.
    """
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "no such folder"
        raise UserError(f"model {folder}: {state}. Give the folder of an exported model, or of a run.")
    if _holds_model(folder):
        return
    lacking = ", ".join(f"{file} ({what})" for what, file in TELLING.items())
    below = _models_below(folder)
    named = ", ".join(f"'{path}'" for path in below[:MOST_NAMED])
    more = f" and {len(below) - MOST_NAMED:,} more" if len(below) > MOST_NAMED else ""
    way_out = f"Models below it: {named}{more}." if below else "Nor does a folder below it."
    raise UserError(f"model {folder}: holds no model, for it has none of {lacking}.\n{way_out}")


def _holds_model(folder: Path) -> bool:
    return any((folder / file).is_file() for file in TELLING.values())


def _models_below(folder: Path) -> list[Path]:
    """The outermost, in the order of their names."""
    found = []
    for place, folders, _ in os.walk(folder):
        path = Path(place)
        is_model = path != folder and _holds_model(path)
        if is_model:
            found.append(path)
        if is_model or len(path.relative_to(folder).parts) == DEEPEST:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))  # .artefacts is nobody's to name
    return found
