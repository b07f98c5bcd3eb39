"""A folder pushed by huggingface_hub's own client to a hub on this machine."""

from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session  # type: ignore[attr-defined] # exported, but lazily

from lora_distill import pushing
from lora_distill.errors import UserError
from lora_distill.pushing import check_access, check_base, check_name, push_folder
from tests.conftest import CLOSED_PORT
from tests.hub_server import HubServer

TOKEN = "hf_" + "t" * 34
CARD = b"---\nlibrary_name: peft\n---\n\n# A model\n"


@pytest.fixture
def mine(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The hub of this process, on which the token is `me`'s."""
    hub.tokens[TOKEN] = "me"
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # which no stand-in has
    close_session()
    return hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "model"
    place.mkdir()
    (place / "README.md").write_bytes(CARD)
    (place / "config.json").write_bytes(b"{}")
    (place / "model.safetensors").write_bytes(b"weights" * 1000)
    return place


def push(folder: Path, name: str = "me/model", *, private: bool = False) -> pushing.Pushed:
    return push_folder(folder, name, private=private, message="a model")


@pytest.mark.parametrize("name", ["mine", "me/my model", "me/a--b", "me/a..b", "me/x.git", "a/b/c", "", "me/", "/x"])
def test_what_is_no_repository_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"no name of a repository\. Give OWNER/NAME"):
        check_name(name)
    check_name("me/my-student_1.0")


def test_a_folder_is_one_commit_and_once_more_it_is_none(mine: HubServer, folder: Path) -> None:
    check_access("me/model")
    pushed = push(folder)
    repository = mine.repositories["models", "me/model"]
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert repository.files == files | {".gitattributes": b""}
    assert (pushed.url, pushed.commit) == (f"{mine.url}/me/model", repository.commit)
    assert (mine.commits, repository.private) == (["me/model: a model"], False)
    assert len([request for request in mine.requests if request.startswith("PUT /lfs/")]) == 1
    assert push(folder) == pushed
    assert len(mine.commits) == 1


def test_what_is_left_of_another_model_goes_and_the_rest_stays(mine: HubServer, folder: Path) -> None:
    others = {"LICENSE": b"mine", "onnx/config.json": b"{}", "vocab.md": b"words", "my.model": b"mine"}
    old = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"old", "labels.json": b"{}", "vocab.txt": b"a"}
    mine.put("models", "me/model", others | old | {"config.json": b"old"})
    push(folder)
    assert set(mine.repositories["models", "me/model"].files) == {path.name for path in folder.iterdir()} | set(others)
    assert len(mine.commits) == 1


def test_private_is_private_or_refused(mine: HubServer, folder: Path) -> None:
    push(folder, "me/secret", private=True)
    assert mine.repositories["models", "me/secret"].private
    push(folder, "me/secret")
    assert mine.repositories["models", "me/secret"].private
    mine.put("models", "me/open", {"LICENSE": b""})
    with pytest.raises(UserError, match=r"^me/open: is there already, and public\..*\n.*settings"):
        push(folder, "me/open", private=True)
    assert set(mine.repositories["models", "me/open"].files) == {"LICENSE"}


@pytest.mark.parametrize(
    ("request_part", "status", "said"),
    [
        ("/api/repos/create", 500, r"refuses it \(HTTP status 500\)\. Nothing was pushed\. Try again later\."),
        ("/api/validate-yaml", 403, "does not answer as a hub does"),
        ("/preupload/", 403, r"the token may not write there \(HTTP status 403\)\.\nGive a repository of your own"),
        ("/info/lfs/objects/batch", 404, r"no such owner or repository"),
        ("PUT /lfs/", 403, r"HTTP status 403"),
        ("/verify", 400, r"HTTP status 400"),
        ("/commit/main", 401, r"does not accept the token \(HTTP status 401\)\.\nLog in again with `hf auth login`"),
        ("/commit/main", 413, r"HTTP status 413\)\. Nothing was pushed\.$"),
    ],
)
def test_wherever_the_hub_stops_nothing_is_half_pushed(
    request_part: str, status: int, said: str, mine: HubServer, folder: Path
) -> None:
    before = {"README.md": b"before", "LICENSE": b""}
    mine.put("models", "me/model", before)
    mine.refusing[request_part] = status
    with pytest.raises(UserError, match=said) as raised:
        push(folder)
    assert str(raised.value).startswith("me/model cannot be pushed to: ")
    assert len(str(raised.value).splitlines()) <= 3
    assert (mine.repositories["models", "me/model"].files, mine.commits) == (before, [])


def test_a_repository_of_another_owner(mine: HubServer, folder: Path) -> None:
    with pytest.raises(UserError, match=r"may not write there \(HTTP status 403: You don't have the rights"):
        push(folder, "you/model")
    assert mine.repositories == {}


def test_a_hub_without_the_store_that_the_client_prefers(
    mine: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hf_xet")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with pytest.raises(UserError, match=r"xet-write-token.*\nWhere the hub has no Xet store, HF_HUB_DISABLE_XET=1"):
        push(folder)
    assert mine.commits == []


# Before anything is made


def no_token(mine: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")


def wrong_token(mine: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    mine.tokens.clear()


def no_network(mine: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", CLOSED_PORT)


def offline(mine: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def no_answer(mine: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "ANSWER_SECONDS", 0.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (no_token, r"there is no token for http.*\nLog in with `hf auth login`, or set HF_TOKEN"),
        (wrong_token, r"does not accept the token \(HTTP status 401\)"),
        (no_network, r"no connection to http://127\.0\.0\.1:9 .*\nTry again later, or set HF_ENDPOINT"),
        (offline, r"HF_HUB_OFFLINE is set\. Unset it to push\."),
        (no_answer, r"did not answer within 0 seconds"),
    ],
)
def test_who_cannot_push_is_told_so_at_once(
    change: Callable[[HubServer, pytest.MonkeyPatch], None],
    said: str,
    mine: HubServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change(mine, monkeypatch)
    with pytest.raises(UserError, match=said) as raised:
        check_access("me/model")
    assert len(str(raised.value).splitlines()) <= 3
    assert TOKEN not in str(raised.value)


def test_the_base_model_must_be_there(mine: HubServer, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    commit = mine.add_model("org/base", folder)
    check_base("me/model", "org/base", commit)
    assert caplog.text == ""
    for name, revision in (("org/base", "c0ffee"), ("org/other", commit)):
        with pytest.raises(UserError, match=rf"does not have {name} at revision {revision}.*\n--form merged"):
            check_base("me/model", name, revision)
    gated = mine.add_model("org/gated", folder, gated=True)
    check_base("me/model", "org/gated", gated)
    assert "org/gated is not open to all" in caplog.text
