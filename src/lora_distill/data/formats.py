"""Which format a file that is labelled has, by its name."""

from pathlib import Path

from lora_distill.errors import UserError

INPUT_FORMATS = ("csv", "tsv", "jsonl", "parquet", "txt")
OUTPUT_FORMATS = ("csv", "tsv", "jsonl", "parquet")
STANDARD = "-"  # input or output


def formats_of(source: str, source_format: str | None, target: str) -> tuple[str, str]:
    """Formats of input and output, by the suffix; standard output is as the input if it can be, else JSON lines.

    Args:
        source: a file, or STANDARD.
        source_format: where it was said; else the suffix says it.
        target: a file, or STANDARD.

    Raises:
        UserError: nothing says it.
    """
    if source_format is None:
        source_format = _suffix(source)
        if source == STANDARD:
            raise UserError(f"{STANDARD}: say in which format standard input is: --format {'|'.join(INPUT_FORMATS)}.")
        if source_format not in INPUT_FORMATS:
            raise UserError(f"{source}: its name says no format. Say it: --format {'|'.join(INPUT_FORMATS)}.")
    if target == STANDARD:
        return source_format, source_format if source_format in ("csv", "tsv") else "jsonl"
    if _suffix(target) not in OUTPUT_FORMATS:
        allowed = ", ".join(f".{name}" for name in OUTPUT_FORMATS)
        raise UserError(f"--output {target}: its name says no format. Allowed: {allowed}; and {STANDARD}.")
    return source_format, _suffix(target)


def _suffix(name: str) -> str:
    return Path(name).suffix.lower().removeprefix(".")
