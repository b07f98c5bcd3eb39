from pathlib import Path

import pytest

from lora_distill.errors import UserError
from lora_distill.yaml_file import YamlMapping, read_yaml


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "settings.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_every_key_knows_its_line(tmp_path: Path) -> None:
    file = write(tmp_path, "# a comment\nalpha: 0.5\n\nbase:\n  seed: 1\n  names: [a, b]\n")
    top = read_yaml(file)
    assert top.origin("alpha") == f"{file}, line 2: alpha"
    base = top.values["base"]
    assert isinstance(base, YamlMapping)
    assert base.origins() == {"seed": f"{file}, line 5: seed", "names": f"{file}, line 6: names"}
    assert top.plain() == {"alpha": 0.5, "base": {"seed": 1, "names": ["a", "b"]}}


def test_bom_empty_file_and_anchors(tmp_path: Path) -> None:
    assert read_yaml(write(tmp_path, b"\xef\xbb\xbfseed: 1\n")).values == {"seed": 1}
    assert read_yaml(write(tmp_path, "# nothing\n")).values == {}
    merged = read_yaml(write(tmp_path, "a: &a {x: 1}\nb:\n  <<: *a\n  y: 2\n")).plain()
    assert merged["b"] == {"x": 1, "y": 2}
    overridden = read_yaml(write(tmp_path, "a: &a {x: 1, z: 0}\nb: &b\n  <<: *a\n  x: 2\nc: *b\n")).plain()
    assert overridden["b"] == overridden["c"] == {"x": 2, "z": 0}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a: 1\nb: [1, 2\n", ["line 3", "not YAML"]),
        ("a: 1\na: 2\n", ["line 2", "a stands twice, first in line 1"]),
        ("- 1\n- 2\n", ["key: value"]),
        ("just words\n", ["key: value"]),
        (b"a: \xff\n", ["byte 3", "UTF-8"]),
        ("a: !!python/object/apply:os.system ['true']\n", ["line 1", "not YAML"]),
        ("a: 1\n---\na: 2\n", ["line 2", "expected a single document", "found another document"]),
        ("a: \0\n", ["not YAML", "#x0000"]),
        ("a: &a\n  b: *a\n", ["not YAML", "recursion"]),
        (f"a: {'9' * 5000}\n", ["not YAML", "5000 digits"]),
        ("a: 2026-13-01\n", ["not YAML", "month"]),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str | bytes, parts: list[str]) -> None:
    file = write(tmp_path, text)
    with pytest.raises(UserError) as error:
        read_yaml(file)
    assert all(part in str(error.value) for part in [str(file), *parts])


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(UserError, match="no such file"):
        read_yaml(tmp_path / "a\0b.yaml")
    with pytest.raises(UserError, match="directory"):
        read_yaml(tmp_path)
