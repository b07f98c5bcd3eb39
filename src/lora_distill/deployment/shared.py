"""A finished run's model as others get it from a hub: the folder that is pushed, and the push."""

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lora_distill.config import Role
from lora_distill.deployment.forms import ADAPTER, CLASSIFIER, MERGED
from lora_distill.errors import UserError
from lora_distill.hub import TOKENIZER_FILES
from lora_distill.model.adapter_files import ADAPTER_FILES, LABELS_FILE
from lora_distill.pushing import Pushed, check_access, check_base, check_name, push_folder
from lora_distill.reporting.loading import opening_lines
from lora_distill.reporting.model_card import model_card
from lora_distill.reporting.public import local_places, public_facts
from lora_distill.run_folder import RunFolder
from lora_distill.store import check_named, locked_folder, read_json

Form = Literal["adapter", "merged"]
_VOCABULARIES = {"tokenizer.json", "vocab.json"}  # long, and of a base model's


@dataclass(frozen=True)
class Shared:
    """A model that was pushed.

    Attributes:
        pushed: where to.
        opening: lines of Python that open it from there.
    """

    pushed: Pushed
    opening: list[str]


def push(
    run: RunFolder, repository: str, *, role: Role = "student", form: Form = ADAPTER, private: bool = False
) -> Shared:
    """Push a role's model to a hub, in one commit, with a model card from which the hub shows its results.

    The hub is HF_ENDPOINT's, the token that of `hf auth login` or HF_TOKEN.

    Args:
        run: finished.
        repository: OWNER/NAME, made if it is not there.
        role: one that the run trained.
        form: an adapter, whose base model is on the hub, too; or a whole model, merged and verified.
        private: for its owner alone.

    Raises:
        UserError: as in `write_shared`; or the hub refuses it or cannot be reached. Nothing was pushed then.
    """
    check_shareable(run, repository, role, form)
    check_access(repository)
    if form == ADAPTER:
        base = _adapter_base(run, role)
        check_base(repository, base["name"], base["revision"])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "model")
        write_shared(run, repository, folder, role=role, form=form)
        pushed = push_folder(folder, repository, private=private, message=f"{run.path.name}: the {role}, {form}")
    reads = len(run.results()["data"]["label_names"]), run.resolved().max_length
    return Shared(pushed, opening_lines(repository, reads if form == ADAPTER else None))


def write_shared(
    run: RunFolder, repository: str, folder: Path, *, role: Role = "student", form: Form = ADAPTER
) -> None:
    """Write the very folder that `push` would push. Asks no hub.

    Args:
        run: finished.
        repository: OWNER/NAME, from which the model card loads it.
        folder: not there, or empty.
        role: one that the run trained.
        form: as for `push`.

    Raises:
        UserError: the run has no such model, or none in this form that others could open; the merged model does not
            answer as the run's; a file would tell a secret or a path of this machine; or the folder cannot be written.
    """
    check_shareable(run, repository, role, form)
    check_named(folder)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder}: exists, and is no empty folder. Move it away, or give another --output.")
        with locked_folder(folder) as beside:
            if form == MERGED:
                _write_merged(run, repository, role, beside)
            else:
                _write_adapter(run, repository, role, beside)
            _check_told(run, beside)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}. Give a folder that can be written, with some room.") from error


def check_shareable(run: RunFolder, repository: str, role: Role, form: Form) -> None:
    """Refuse what cannot be pushed, before any work.

    Raises:
        UserError: the name is no repository's, or the run has no such model that others could open in this form.
    """
    check_name(repository)
    facts = run.results_of(role)
    if facts["trainable_parameters"] is None:
        raise UserError(f"--role {role}: was given to this run, not trained by it. Push what it trained: the student.")
    if members := facts.get("members"):
        raise UserError(
            f"--role {role}: is {members} models that answer together, and a repository holds one. Push the student."
        )
    if form == ADAPTER and (base := _adapter_base(run, role))["kind"] != "hub":
        raise UserError(
            f"--form adapter: its base model, {base['name']}, is not from a hub, so that nobody else could open it.\n"
            "--form merged pushes a whole model, which needs no other."
        )


def _adapter_base(run: RunFolder, role: Role) -> dict[str, str]:
    """Name, kind and revision of the base model that an adapter sits on."""
    path = run.path / role / LABELS_FILE
    try:
        base: dict[str, str] = read_json(path)["base_model"]
    except (OSError, ValueError, LookupError, TypeError):
        raise UserError(f"{path}: missing or damaged. Put it back, or train the run again.") from None
    return base


def _write_adapter(run: RunFolder, repository: str, role: Role, folder: Path) -> None:
    """Only what is known to be of the adapter: whatever else lies beside it stays there."""
    source = run.path / role
    for pattern in (*ADAPTER_FILES, *TOKENIZER_FILES, CLASSIFIER):
        for file in source.glob(pattern):
            shutil.copyfile(file, folder / file.name)
    if missing := [name for name in ADAPTER_FILES if not (folder / name).is_file()]:
        raise UserError(f"{source / missing[0]}: missing. Put it back, or train the run again.")
    card = model_card(role=role, repository=repository, **public_facts(run, role)._asdict())
    (folder / "README.md").write_text(card, encoding="utf-8")


def _write_merged(run: RunFolder, repository: str, role: Role, folder: Path) -> None:
    from lora_distill.deployment.export import UnfaithfulError, export_role

    try:
        export_role(run, role, {"merged": folder}, repository=repository)
    except UnfaithfulError as error:
        raise UserError(
            f"{str(error).splitlines()[0]}\nSo the run's results are not of it; of --form adapter they are."
        ) from None


def _check_told(run: RunFolder, folder: Path) -> None:
    """The last look at what everybody will read."""
    from huggingface_hub import get_token

    local = {Path(place) for place in local_places(run)} | {Path.home(), Path.cwd()}
    # A place is told by its whole name: /data neither by me/data nor by /data-set.
    private = [
        (str(place), rf"(?<![\w.~-]){re.escape(str(place))}(?![\w-]|\.\w)")
        for place in local
        if place.is_absolute() and len(place.parts) > 1
    ]
    if token := get_token():
        private.append(("your token", re.escape(token)))
    for file in sorted(folder.glob("*.md")) + sorted(folder.glob("*.json")):
        if file.name in _VOCABULARIES:
            continue
        # In JSON a letter may be written as its number.
        text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), file.read_text(encoding="utf-8"))
        for what, secret in private:
            if re.search(secret, text):
                raise UserError(f"{file.name}: would tell everybody {what}. Nothing was pushed.")
