"""A folder pushed to the hub as a model: what can be found out before, and one commit.

As for `hub.py`, huggingface_hub reads HF_ENDPOINT, and the token where `hf auth login` or HF_TOKEN put it.
"""

import fnmatch
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lora_distill.data.wording import byte_size, counted
from lora_distill.errors import UserError
from lora_distill.hub import ANSWER_SECONDS, MODEL_FILES, causes, first_line, within

logger = logging.getLogger(__name__)

# What a push of the other form may have left in the repository, which would be taken for a part of this one.
_OURS = (*MODEL_FILES, "classifier.json", "verification.json")


@dataclass(frozen=True)
class Pushed:
    """A model on the hub.

    Attributes:
        url: of its page.
        commit: SHA of the commit that holds it.
    """

    url: str
    commit: str


def check_name(repository: str) -> None:
    """Refuse what no repository of the hub can be called, and a name without its owner.

    Raises:
        UserError: it is such a name.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined] # exported, but lazily

    try:
        validate_repo_id(repository)
        is_legal = "/" in repository
    except HFValidationError:
        is_legal = False
    if not is_legal:
        raise UserError(
            f"{repository}: no name of a repository. Give OWNER/NAME, as in your-name/my-student.\n"
            "Letters, digits, '-', '_' and '.' are allowed, 96 in all; not '--', '..', or '.git' at the end."
        )


def check_access(repository: str) -> None:
    """Find out, before there is anything to upload, whether the hub answers and knows this user.

    Raises:
        UserError: there is no token, the hub cannot be reached, or it does not accept the token.
    """
    from huggingface_hub import HfApi, constants, get_token

    with _told(repository):
        if get_token() is None:
            raise UserError(
                f"{repository}: there is no token for {constants.ENDPOINT}.\n"
                "Log in with `hf auth login`, or set HF_TOKEN to a token that may write there."
            )
        within(ANSWER_SECONDS, lambda: HfApi().whoami())


def check_base(repository: str, base: str, revision: str) -> None:
    """Find out whether whoever opens an adapter will find its base model where the adapter goes.

    Raises:
        UserError: the hub does not have it.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    with _told(repository):
        try:
            info = HfApi().model_info(base, revision=revision)
        except (RepositoryNotFoundError, RevisionNotFoundError):
            raise UserError(
                f"{repository}: {constants.ENDPOINT} does not have {base} at revision {revision}, the base model"
                " of this adapter: nobody could open it.\n--form merged pushes a whole model, which needs no other."
            ) from None
    if info.private or info.gated:
        logger.warning("the base model %s is not open to all: who opens this adapter needs access to it, too", base)


def push_folder(folder: Path, repository: str, *, private: bool, message: str) -> Pushed:
    """Make a repository, if it is not there, and put a folder's files into it, in one commit.

    What lies there of another model goes with the same commit; other files stay.

    Args:
        folder: with files of a model.
        repository: OWNER/NAME.
        private: for its owner alone. A public one is not made private, but refused.
        message: of the commit.

    Raises:
        UserError: the hub refuses it or cannot be reached. Nothing was committed then; a repository that was made
            stays, without a model.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

    api = HfApi()
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    size = byte_size(sum(path.stat().st_size for path in files.values()))
    with _told(repository):
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise UserError(
                f"{repository}: is there already, and public. --private does not change that; nothing was pushed.\n"
                f"Make it private in its settings at {constants.ENDPOINT}/{repository}, or give another name."
            )
        there = [name for name in api.list_repo_files(repository) if name not in files and _is_ours(name)]
        logger.info("%s: pushing %s (%s)", repository, counted(len(files), "file"), size)
        # Not upload_folder, which may make several commits of one folder.
        commit = api.create_commit(
            repository,
            [
                *(CommitOperationDelete(name) for name in there),
                *(CommitOperationAdd(name, path) for name, path in files.items()),
            ],
            commit_message=message,
        )
    return Pushed(f"{constants.ENDPOINT}/{repository}", str(commit.oid))


def _is_ours(name: str) -> bool:
    return "/" not in name and any(fnmatch.fnmatchcase(name, pattern) for pattern in _OURS)


@contextmanager
def _told(repository: str) -> Iterator[None]:
    """What the hub or the way to it says is a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # what moves large files has exceptions of its own
        raise UserError(f"{repository} cannot be pushed to: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    from huggingface_hub import constants, errors
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined] # exported for others, but lazily

    hub = constants.ENDPOINT
    telling = (httpx.HTTPError, errors.OfflineModeIsEnabled, TimeoutError)
    match next((cause for cause in causes(error) if isinstance(cause, telling)), error):
        case errors.OfflineModeIsEnabled():
            return "HF_HUB_OFFLINE is set. Unset it to push."
        case TimeoutError():
            return f"{hub} did not answer within {ANSWER_SECONDS:.0f} seconds. Try again later."
        case errors.HfHubHTTPError() as cause:
            return _refusal(cause.response.status_code, cause.server_message or "")
        case httpx.HTTPError() as cause:
            return f"no connection to {hub} ({first_line(cause)}).\nTry again later, or set HF_ENDPOINT to another hub."
        case json.JSONDecodeError():
            return f"{hub} does not answer as a hub does. Set HF_ENDPOINT to one."
        case _:
            told = first_line(causes(error)[-1])
            # The client's way to large files, which not every hub has.
            way_out = "\nWhere the hub has no Xet store, HF_HUB_DISABLE_XET=1 does without." if "xet" in told else ""
            return f"{told}.{way_out}"


def _refusal(status: int, said: str) -> str:
    """What an HTTP status means for a push, and what to do."""
    from huggingface_hub import constants

    hub, reason = constants.ENDPOINT, "".join(f": {line}" for line in said.splitlines()[:1])
    match status:
        case 401:
            return (
                f"{hub} does not accept the token (HTTP status 401).\n"
                "Log in again with `hf auth login`, or set HF_TOKEN, which goes before it, to a valid token."
            )
        case 403:
            return (
                f"the token may not write there (HTTP status 403{reason}).\n"
                "Give a repository of your own, or a token with write access to that one."
            )
        case 404:
            return f"{hub} has no such owner or repository, or hides it from this token (HTTP status 404)."
        case _:
            later = " Try again later." if status >= 500 or status == 429 else ""
            return f"{hub} refuses it (HTTP status {status}{reason}). Nothing was pushed.{later}"
