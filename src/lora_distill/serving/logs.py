"""A server's log: JSON, a line for each event, and never a text that was sent."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime

LOGGERS = ("lora_distill", "uvicorn.error")


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: its time, level, message, and the `fields` of its `extra`.

    Of an error only its type and where it was raised: its message may hold a text.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0]:
            frames = traceback.extract_tb(record.exc_info[2])
            line["error"] = record.exc_info[0].__name__
            line["where"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        return json.dumps(line)


def log_as_json() -> None:
    """Send what this program and uvicorn say to standard error, as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
