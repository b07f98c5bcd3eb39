"""How the stand-in for the hub takes uploads: as huggingface_hub's client sends them over HTTP."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

if TYPE_CHECKING:
    from tests.hub_server import Handler

NAME = r"([^/]+/[^/]+?)"
LARGE = (".safetensors", ".bin", ".parquet")  # what the hub keeps in its store for large files


def take_upload(handler: "Handler") -> bool:
    """Answer a request if it is one of an upload, or asks who the token's owner is."""
    for method, pattern, answer in _ANSWERS:
        found = re.fullmatch(pattern, urlsplit(handler.path).path)
        if found and handler.command == method:
            answer(handler, *found.groups())
            return True
    return False


def _who(handler: "Handler") -> None:
    owner = handler.owner()
    if owner is None:
        _refuse_token(handler)
    else:
        handler.send_json({"type": "user", "name": owner})


def _create(handler: "Handler") -> None:
    asked = json.loads(handler.body)
    name = f"{asked['organization']}/{asked['name']}"
    if not _may_write(handler, name):
        return
    url = {"url": f"{handler.hub.url}/{name}"}
    if ("models", name) in handler.hub.repositories:
        handler.send_json(url | {"error": "You already created this model repo"}, status=409)
        return
    handler.hub.put("models", name, {".gitattributes": b""}, private=asked.get("visibility") == "private")
    handler.send_json(url)


def _validate_yaml(handler: "Handler") -> None:
    metadata = json.loads(handler.body)["content"].split("---\n")[1]
    try:
        fault = "" if isinstance(yaml.safe_load(metadata), dict) else "no mapping"
    except yaml.YAMLError as error:
        fault = str(error)
    errors = [{"message": fault}] if fault else []
    handler.send_json({"errors": errors, "warnings": []}, status=400 if fault else 200)


def _preupload(handler: "Handler", name: str) -> None:
    if not _may_write(handler, name):
        return
    repository = handler.hub.repositories.get(("models", name))
    if repository is None:
        handler.refuse(404, "RepoNotFound")
        return
    files: list[dict[str, Any]] = []
    for each in json.loads(handler.body)["files"]:
        path = each["path"]
        there = repository.describe(path) if path in repository.files else {}
        oid = there.get("lfs", there).get("oid")
        mode = "lfs" if path.endswith(LARGE) else "regular"
        files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    handler.send_json({"files": files})


def _batch(handler: "Handler", name: str) -> None:
    if not _may_write(handler, name):
        return
    objects = []
    for each in json.loads(handler.body)["objects"]:
        place = f"{handler.hub.url}/lfs/{each['oid']}"
        actions = {"upload": {"href": place}, "verify": {"href": f"{place}/verify"}}
        is_there = each["oid"] in handler.hub.large_files
        objects.append({"oid": each["oid"], "size": each["size"]} | ({} if is_there else {"actions": actions}))
    handler.send_json({"transfer": "basic", "objects": objects})


def _store(handler: "Handler", oid: str) -> None:
    if hashlib.sha256(handler.body).hexdigest() == oid:
        handler.hub.large_files[oid] = handler.body
        handler.send(200)
    else:
        handler.send(400)


def _verify(handler: "Handler", oid: str) -> None:
    asked = json.loads(handler.body)
    is_whole = asked["oid"] == oid and len(handler.hub.large_files.get(oid, b"")) == asked["size"]
    handler.send(200 if is_whole else 400)


def _commit(handler: "Handler", name: str) -> None:
    if not _may_write(handler, name):
        return
    hub, summary = handler.hub, ""
    repository = hub.repositories["models", name]
    files = dict(repository.files)
    for line in map(json.loads, handler.body.splitlines()):
        value = line["value"]
        match line["key"]:
            case "header":
                summary = value["summary"]
            case "file":
                files[value["path"]] = base64.b64decode(value["content"])
            case "lfsFile":
                files[value["path"]] = hub.large_files[value["oid"]]
            case "deletedFile":
                del files[value["path"]]
    commit = hub.put("models", name, files, private=repository.private)
    hub.commits.append(f"{name}: {summary}")
    handler.send_json({"commitUrl": f"{hub.url}/{name}/commit/{commit}", "commitOid": commit})


def _may_write(handler: "Handler", name: str) -> bool:
    owner = handler.owner()
    if owner is None:
        _refuse_token(handler)
    elif name.partition("/")[0] != owner:
        handler.refuse(403, "", "You don't have the rights to write under this namespace")
    return name.partition("/")[0] == owner


def _refuse_token(handler: "Handler") -> None:
    handler.refuse(401, "", "Invalid credentials in Authorization header")


_ANSWERS: tuple[tuple[str, str, Callable[..., None]], ...] = (
    ("GET", "/api/whoami-v2", _who),
    ("POST", "/api/repos/create", _create),
    ("POST", "/api/validate-yaml", _validate_yaml),
    ("POST", rf"/api/models/{NAME}/preupload/main", _preupload),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", _batch),
    ("PUT", r"/lfs/(\w+)", _store),
    ("POST", r"/lfs/(\w+)/verify", _verify),
    ("POST", rf"/api/models/{NAME}/commit/main", _commit),
)
