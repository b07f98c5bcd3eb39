"""A finished run's model as a folder that opens elsewhere, with proof that it answers as it did."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
from transformers import AutoTokenizer, PreTrainedModel

from lora_distill.config import Role
from lora_distill.data.reading import Reading
from lora_distill.data.wording import listing
from lora_distill.deployment.exported import Opened, about_model, open_onnx, read_about
from lora_distill.deployment.finished import FinishedModel, open_role
from lora_distill.deployment.forms import CLASSIFIER, EXPORTED, MERGED, ONNX_FILES, VERIFICATION
from lora_distill.deployment.onnx_model import convert, save_as
from lora_distill.deployment.through_torch import open_with_torch
from lora_distill.deployment.verification import BARS, verify
from lora_distill.errors import UserError
from lora_distill.evidence import read_predictions
from lora_distill.made_with import OF_EXPORTS, made_with
from lora_distill.processors import cores
from lora_distill.remembering import remembering
from lora_distill.reporting.exported import opening_of
from lora_distill.reporting.model_card import model_card
from lora_distill.reporting.public import PublicFacts, public_facts
from lora_distill.run_folder import RunFolder
from lora_distill.store import check_named, locked_folder, read_json, write_json

Form = Literal["merged", "onnx", "onnx-int8"]
FORMS: tuple[Form, ...] = get_args(Form)


class UnfaithfulError(UserError):
    """An exported model does not answer as the one that it was made from, and was not kept."""


def places(run: RunFolder, role: Role, forms: tuple[Form, ...], output: Path | None) -> dict[Form, Path]:
    """Where each form goes: what was asked for, with a folder for each of several forms, or a place in the run's."""
    if output is None:
        return {form: run.path / EXPORTED / f"{role}-{form}" for form in forms}
    return {form: output / form if len(forms) > 1 else output for form in forms}


@remembering()
def export_role(
    run: RunFolder, role: Role, folders: Mapping[Form, Path], *, force: bool = False, repository: str | None = None
) -> dict[str, dict[str, Any]]:
    """Write a role's model in some forms, each verified on the run's test rows before it is put in place.

    Args:
        run: finished.
        role: one that the run has.
        folders: by form, where it goes; an earlier export there is replaced.
        force: keep also what does not answer as it did.
        repository: on a hub that it goes to: its card says how it opens from there. Speed is left out then, the
            only thing that would differ each time.

    Returns:
        By form what its verification.json holds.

    Raises:
        UnfaithfulError: a form does not answer as the run's model did. It was not kept; the others were.
        UserError: there is no such model, it cannot be had in this form, or a folder holds what no export wrote.
    """
    run.results_of(role)
    for folder in folders.values():
        check_named(folder)
        _check_replaceable(folder)
    exporting = _Exporting.of(run, role, repository)
    written: dict[str, dict[str, Any]] = {}
    faults = []
    for form, folder in folders.items():
        try:
            written[form] = exporting.write(form, folder, force=force)
        except UnfaithfulError as error:
            faults.append(str(error))
    if faults:
        others = [f"Written to {folder}" for form, folder in folders.items() if form in written]
        nothing = f"Nothing of {'it' if len(faults) == 1 else 'them'} was kept. --force keeps it all the same."
        raise UnfaithfulError("\n".join([*faults, nothing, *others]))
    return written


@dataclass
class _Exporting:
    """A model on its way out.

    Attributes:
        facts: what may be told of it.
        model: merged.
        names: of its labels, in the order of its logits.
        reading: how it reads texts.
    """

    run: RunFolder
    role: Role
    repository: str | None
    facts: PublicFacts
    opened: FinishedModel
    model: PreTrainedModel
    names: list[str]
    reading: Reading
    graph: onnx.ModelProto | None = None

    @classmethod
    def of(cls, run: RunFolder, role: Role, repository: str | None) -> "_Exporting":
        opened, facts = open_role(run, role), public_facts(run, role)
        model, names = opened.merged(), facts.results["data"]["label_names"]
        order = np.argsort(opened.columns)  # a given teacher may have its labels in another order
        names = [names[index] for index in order]
        config = model.config
        config.id2label, config.label2id = dict(enumerate(names)), {name: at for at, name in enumerate(names)}
        config.architectures = [type(model).__name__]
        return cls(run, role, repository, facts, opened, model, names, opened.tokeniser.reading)

    def write(self, form: Form, place: Path, *, force: bool) -> dict[str, Any]:
        """One form, whole or not at all."""
        try:
            with locked_folder(place) as folder:
                about = self._about(form)
                self._save(form, folder)
                write_json(folder / CLASSIFIER, about)
                verification = self._verify(form, folder, about)
                if verification["faults"] and not force:
                    raise UnfaithfulError(f"{form}: {'; '.join(verification['faults'])}.{_of_few(form, verification)}")
                (folder / "README.md").write_text(self._card(about, verification), encoding="utf-8")
                verification["files"] = [*_files(folder), VERIFICATION]
                write_json(folder / VERIFICATION, verification)
        except OSError as error:
            raise UserError(f"{place}: {error.strerror}.\nGive another folder with --output.") from error
        return verification

    def _card(self, about: dict[str, Any], verification: dict[str, Any]) -> str:
        opening = opening_of(about, ONNX_FILES.get(about["form"], ""), verification, self.repository)
        return model_card(role=self.role, opening=opening, **self.facts._asdict())

    def _about(self, form: Form) -> dict[str, Any]:
        results = self.facts.results
        base = results[self.role].get("checkpoint", self.facts.base["name"])
        about = about_model(form, self.names, self.reading, base, self.role, results)
        return about | {"made_with": made_with(*OF_EXPORTS)}

    def _save(self, form: Form, folder: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(self.opened.tokenizer_folder)
        tokenizer.model_max_length = self.reading.max_length  # so that whoever truncates does so where we did
        tokenizer.save_pretrained(folder)
        if form == MERGED:
            self.model.save_pretrained(folder)
            for weights in folder.glob("*.safetensors"):  # which safetensors lets nobody else read
                weights.chmod((folder / "config.json").stat().st_mode)
            return
        self.model.config.save_pretrained(folder)
        if self.graph is None:
            self.graph = convert(self.model, segments=self.reading.segments)
        save_as(form, self.graph, folder)

    def _verify(self, form: Form, folder: Path, about: dict[str, Any]) -> dict[str, Any]:
        rows = read_predictions(self.run)
        place = np.argsort(np.argsort(self.opened.columns))
        found = verify(
            _open(folder, about),
            rows.texts,
            rows.logits[self.role][:, np.argsort(self.opened.columns)],
            place[rows.labels],
            BARS[form],
        )
        if self.repository:
            del found["texts_per_second"]
        weights = [*folder.glob("*.safetensors"), *folder.glob("onnx/*")]
        sizes = {
            "bytes": sum(file.stat().st_size for file in weights),
            "bytes_merged": sum(weight.numel() * weight.element_size() for weight in self.model.parameters()),
        }
        return {"form": form} | found | sizes | {"threads": cores(), "made_with": about["made_with"]}


def _check_replaceable(folder: Path) -> None:
    """Refuse a place where there is more to lose than an earlier export."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file. Choose another --output.")
    try:
        read_about(folder)
        written = set(read_json(folder / VERIFICATION)["files"])
    except (UserError, OSError, ValueError, LookupError, TypeError):
        written = set()
    if others := [file for file in _files(folder) if file not in written]:
        raise UserError(
            f"{folder}: holds what no export wrote: {listing(others, 3)}. Move it away, or choose another --output."
        )


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def _of_few(form: Form, verification: dict[str, Any]) -> str:
    """What to do where too few test rows make one row too many."""
    if not verification["other_class"] or verification["rows"] >= BARS[form].fewest:
        return ""
    return f" Train on data with {BARS[form].fewest} test rows or more (--test_fraction), of which one may."


def _open(folder: Path, about: dict[str, Any]) -> Opened:
    if about["form"] == MERGED:
        return open_with_torch(folder, about, cores())
    return open_onnx(folder, about, cores())
