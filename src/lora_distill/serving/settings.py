"""How a classifier is served: every knob, once. The flags of `serve` are made from it."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ByteSize, ConfigDict, Field, model_validator

from lora_distill.config import Names, PositiveFloat, PositiveInt
from lora_distill.errors import UserError

# As a browser says it: in small letters, without the scheme's own port.
_ORIGIN = re.compile(r"\*|http://(?![^/]*:80$)[^/?#\sA-Z]+|https://(?![^/]*:443$)[^/?#\sA-Z]+")


def _check_origins(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not _ORIGIN.fullmatch(name):
            raise ValueError(
                f"would never match: {name!r} is no scheme and host in small letters, without a path or the usual port"
            )
    return names


class ServeSettings(BaseModel):
    """Where a server listens, and what it takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 for all")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 for one that is free")
    threads: PositiveInt | None = Field(None, le=1024, description="threads that compute; all cores when empty")
    key_file: str | None = Field(
        None,
        min_length=1,
        description="file with the key that requests must bear; $LORA_DISTILL_KEY when not given",
    )
    allow_origins: Annotated[Names, AfterValidator(_check_origins)] = Field(
        (), description="other sites whose pages may ask, as https://a.org,https://b.org; * for any"
    )
    max_batch: PositiveInt = Field(64, description="texts of several requests that are answered together")
    max_queue: PositiveInt = Field(512, description="texts that may wait for their turn; what is over gets a 429")
    max_texts: PositiveInt = Field(256, description="texts of a request; no more than --max_queue")
    max_characters: PositiveInt = Field(20_000, description="characters of a text")
    max_body: ByteSize = Field(ByteSize(2_000_000), gt=0, description="size of a request, as 2MB")
    timeout: PositiveFloat = Field(
        30.0, le=86_400, description="seconds in which a request must arrive, and again in which it must be answered"
    )

    @model_validator(mode="after")
    def _a_request_has_room(self) -> Self:
        if self.max_queue < self.max_texts:
            raise UserError(
                f"--max_queue {self.max_queue}: a request may hold more texts than may wait, --max_texts"
                f" {self.max_texts}.\nGive a --max_texts of {self.max_queue} at most, or a larger --max_queue."
            )
        return self
