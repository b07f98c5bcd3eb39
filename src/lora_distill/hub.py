"""Models and data sets from the Hugging Face hub, or from its local cache where the hub is out of reach.

huggingface_hub and datasets read HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE when they are imported.
"""

import json
import logging
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from lora_distill.errors import UserError
from lora_distill.model.adapter_files import ADAPTER_FILES

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)
Kind = Literal["model", "dataset"]
T = TypeVar("T")

ANSWER_SECONDS = 5.0

# Vocabularies by the names that transformers gives them: vocab.md and the like are nobody's but their owner's.
TOKENIZER_FILES = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "spiece.model",
    "spm.model",
    "tiktoken.model",
    "tokenizer.model",
)
# Safetensors only: the other formats of weights are pickles, or not PyTorch's.
MODEL_FILES = (
    *TOKENIZER_FILES,
    "config.json",
    "model.safetensors*",
    "model-*.safetensors",
    *ADAPTER_FILES,
)

_WAYS_OUT = {
    "model": "a folder with the model, or the packaged minilm",
    "dataset": "a file or folder with the data, or the packaged bbc_news",
}


class Unavailable(UserError):  # noqa: N818 - `except Unavailable` says what it is
    """The hub, or the repository on it, cannot be had."""


class _OutOfReach(Unavailable):
    """The hub does not answer, so that a copy in the cache may stand in for it."""


@dataclass(frozen=True)
class HubModel:
    """A model's files on this machine.

    Attributes:
        folder: of the cached snapshot.
        revision: SHA of the hub's commit.
        name: as it was asked for.
    """

    folder: Path
    revision: str
    name: str


@dataclass(frozen=True)
class HubDataset:
    """A data set's splits on this machine.

    Attributes:
        splits: name of the split to its rows.
        revision: SHA of the hub's commit.
        name: as it was asked for.
    """

    splits: "dict[str, datasets.Dataset]"
    revision: str
    name: str


def quiet() -> None:
    """Silence the progress bars, advice and usage pings of datasets, huggingface_hub and transformers.

    Errors stay. Call it before these libraries are imported: they read the environment then. What the user
    has set in the environment stays as it is.
    """
    for switch in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ.setdefault(switch, "1")
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    for library, prefix in (("huggingface_hub", "HF_HUB"), ("transformers", "TRANSFORMERS"), ("datasets", "DATASETS")):
        level = "critical" if library == "datasets" else "error"  # what datasets logs as an error, it raises too
        os.environ.setdefault(f"{prefix}_VERBOSITY", level)
        logging.getLogger(library).setLevel(level.upper())


def fetch_model(name: str, revision: str | None = None) -> HubModel:
    """Download a model's (or adapter's) configuration, tokenizer and safetensors, in one snapshot.

    Args:
        name: of the repository, such as `roberta-base`.
        revision: branch, tag or commit; None is the main branch.

    Raises:
        Unavailable: the hub or the repository cannot be had and the cache holds no whole copy.
        UserError: the name is no repository's, or the repository has no weights in safetensors.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    def snapshot(*, cached: bool) -> Path:
        files = list(MODEL_FILES)
        return Path(snapshot_download(name, revision=revision, allow_patterns=files, local_files_only=cached))

    reason: UserError = no_safetensors(f"model {name}")
    try:
        _ask_commit("model", name, revision)
        logger.info("model %s: downloading what HF_HOME does not hold of it yet", name)
        folder = snapshot(cached=False)
    except Exception as error:
        reason = _explain(error, "model", name)
        if not isinstance(reason, _OutOfReach):
            raise reason from error
        try:
            folder = snapshot(cached=True)
        except LocalEntryNotFoundError:
            raise reason from error
    if not any(folder.glob("*.safetensors")):  # a cache that other programs filled may hold any part of it
        raise reason
    return HubModel(folder, folder.name, name)


def no_safetensors(what: str) -> UserError:
    """The refusal of weights that are not in safetensors, with the way to convert them."""
    return UserError(
        f"{what}: has no weights in safetensors, and other formats are not read: they can carry code.\n"
        "If you trust it, load it with transformers, save model and tokenizer with"
        " save_pretrained(FOLDER), which writes safetensors, and give FOLDER."
    )


def fetch_dataset(name: str) -> HubDataset:
    """Download a data set.

    Args:
        name: of the repository, such as `fancyzhx/ag_news`; `name:config` where it has several configurations.

    Raises:
        Unavailable: the hub or the repository cannot be had and the cache does not hold it.
        UserError: the name is no repository's, its configuration must be named, or it cannot be read.
    """
    repository, _, config = name.partition(":")
    try:
        commit = _ask_commit("dataset", repository)
        builder = _open_builder(repository, config, commit)
        logger.info("dataset %s: downloading what HF_HOME does not hold of it yet", name)
        builder.download_and_prepare()
    except UserError:
        raise
    except Exception as error:
        reason = _explain(error, "dataset", name)
        if not isinstance(reason, _OutOfReach):
            raise reason from error
        builder = _cached_builder(repository, config, reason)
    return HubDataset(dict(builder.as_dataset()), builder.hash, name)


def _open_builder(repository: str, config: str, commit: str) -> "datasets.DatasetBuilder":
    from datasets import get_dataset_config_names, load_dataset_builder

    location = f"hf://datasets/{repository}"  # never a folder that happens to have this name
    try:
        return load_dataset_builder(location, config or None, revision=commit)
    except ValueError:
        configs = get_dataset_config_names(location, revision=commit)
        if config in configs or (not config and len(configs) == 1):
            raise
        asked = f"has no configuration {config!r}" if config else f"has {len(configs)} configurations"
        raise UserError(
            f"dataset {repository}: {asked}.\nName one of {', '.join(configs)}; such as {repository}:{configs[0]}."
        ) from None


def _cached_builder(repository: str, config: str, reason: Unavailable) -> "datasets.DatasetBuilder":
    from datasets.packaged_modules.cache.cache import Cache

    # Not load_dataset, which asks a hub that is out of reach six times over before it looks into the cache.
    try:
        builder = Cache(
            repo_id=repository,
            dataset_name=repository.rpartition("/")[2],
            config_name=config or None,
            version="auto",
            hash="auto",
        )
    except ValueError as error:
        if "multiple" not in str(error):
            raise reason from error
        raise UserError(f"{first_line(error)}.\nName one, as {repository}:CONFIGURATION.") from error
    cached = builder.config.name
    if not config and _default_config(repository, builder.hash) not in (None, cached):
        raise UserError(
            f"dataset {repository}: HF_HOME holds its configuration {cached} only, which is not the default.\n"
            f"Name it, as {repository}:{cached}, if you mean it."
        ) from reason
    return builder


def _default_config(repository: str, commit: str) -> str | None:
    """What the hub gives where no configuration is named: "" for nothing, None where the cache cannot tell."""
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard, try_to_load_from_cache

    card = try_to_load_from_cache(repository, "README.md", repo_type="dataset", revision=commit)
    if not isinstance(card, str):
        return None
    configs = MetadataConfigs.from_dataset_card_data(DatasetCard.load(card).data)
    return (configs.get_default_config_name() or "") if configs else None


def _ask_commit(kind: Kind, name: str, revision: str | None = None) -> str:
    """The commit that the hub has, which also says within seconds whether there is a hub."""
    from huggingface_hub import HfApi

    info = within(ANSWER_SECONDS, lambda: HfApi().repo_info(name, repo_type=kind, revision=revision))
    return str(info.sha)


def within(seconds: float, call: Callable[[], T]) -> T:
    """The call's result, or a TimeoutError. In a thread, because no socket's timeout bounds a DNS lookup."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except Exception as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome.result(timeout=seconds)


def _explain(error: Exception, kind: Kind, name: str) -> UserError:
    """What went wrong, in words, and what would work."""
    from huggingface_hub import constants, errors
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined] # exported for others, but lazily

    hub, refusal = constants.ENDPOINT, Unavailable
    telling = (httpx.HTTPError, errors.OfflineModeIsEnabled, errors.HFValidationError, TimeoutError)
    match next((cause for cause in causes(error) if isinstance(cause, telling)), error):
        case errors.OfflineModeIsEnabled():
            reason, refusal = "HF_HUB_OFFLINE is set", _OutOfReach
        case TimeoutError():
            reason, refusal = f"{hub} did not answer within {ANSWER_SECONDS:.0f} seconds", _OutOfReach
        case errors.GatedRepoError():
            reason = f"it is gated; accept its terms at {hub} and set HF_TOKEN"
        case errors.RepositoryNotFoundError():
            reason = f"{hub} has no such {kind}, or it is private and needs HF_TOKEN"
        case errors.RevisionNotFoundError():
            reason = f"{hub} has it, but not this revision"
        case errors.HfHubHTTPError() as cause:
            status = cause.response.status_code
            reason = f"{hub} answers with HTTP status {status}"
            # Broken, too slow, or asked too often.
            refusal = _OutOfReach if status >= 500 or status in (408, 429) else Unavailable
        case httpx.HTTPError() as cause:
            reason, refusal = f"no connection to {hub} ({first_line(cause)})", _OutOfReach
        case json.JSONDecodeError():
            reason, refusal = f"{hub} does not answer as a hub does", _OutOfReach
        case errors.HFValidationError():
            return UserError(f"{kind} {name}: no such file or folder, and no name of the hub's, such as org/name.")
        case _:
            reason = first_line(causes(error)[-1])
            # A missing file is datasets' word for a gated repository and for one without data.
            if kind == "dataset" and not isinstance(error, FileNotFoundError):
                return UserError(f"{kind} {name} cannot be read: {reason}.\nWhat works: {_WAYS_OUT[kind]}.")
    if refusal is _OutOfReach:
        reason += f", and HF_HOME ({constants.HF_HOME}) holds no whole copy"
    return refusal(
        f"{kind} {name} cannot be had: {reason}.\n"
        f"What works: HF_HOME with a copy of it, HF_ENDPOINT of another hub, {_WAYS_OUT[kind]}."
    )


def causes(error: BaseException) -> list[BaseException]:
    """An error, and what it was raised from."""
    return [error, *(causes(error.__cause__) if error.__cause__ else [])]


def first_line(error: BaseException) -> str:
    """What an error says, shortly."""
    text = re.sub(r"^\[Errno -?\d+\] ", "", str(error).strip()) or type(error).__name__
    return text.splitlines()[0].rstrip(".")
