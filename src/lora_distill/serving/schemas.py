"""What goes in and what comes out, as the API's documentation shows it."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator


def _of_characters(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can write half of a pair, as "\\ud800"
        raise ValueError("holds a surrogate without its other half, which is no character") from None
    return text


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value  # 3.0 is an integer in JSON Schema


Text = Annotated[str, AfterValidator(_of_characters)]
TopK = Annotated[
    int, Field(ge=1, description="Of each text, only so many labels, the likeliest first."), BeforeValidator(_whole)
]


class _Asked(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _with_one_unknown_key(cls, given: object) -> object:
        """Without the other unknown ones: a small body can hold so many that their faults fill the memory."""
        if not isinstance(given, dict):
            return given
        unknown = [key for key in given if key not in cls.model_fields]
        return {key: value for key, value in given.items() if key in cls.model_fields or key == unknown[0]}


class OneText(_Asked):
    """A text to classify."""

    text: Text
    top_k: TopK | None = None


class ManyTexts(_Asked):
    """Texts to classify."""

    texts: Annotated[list[Text], Field(fail_fast=True)]
    top_k: TopK | None = None


def _of_two(given: object) -> object:
    if not isinstance(given, dict):
        raise ValueError('should be a pair of texts, {"text": ..., "text_pair": ...}: this model reads pairs')
    return given


class Pair(_Asked):
    """Two texts that are judged together."""

    text: Text
    text_pair: Text


class OnePair(Pair):
    """A pair to classify."""

    top_k: TopK | None = None


class ManyPairs(_Asked):
    """Pairs to classify."""

    texts: Annotated[list[Annotated[Pair, BeforeValidator(_of_two)]], Field(fail_fast=True)]
    top_k: TopK | None = None


def _which(asked: object) -> str:
    return "texts" if isinstance(asked, dict) and "texts" in asked else "text"


Asked = Annotated[
    Annotated[OneText, Tag("text")] | Annotated[ManyTexts, Tag("texts")],
    Discriminator(_which),  # so that a fault is told of the one that was meant
]
AskedPairs = Annotated[
    Annotated[OnePair, Tag("text")] | Annotated[ManyPairs, Tag("texts")],
    Discriminator(_which),
]


class LabelProbability(BaseModel):
    """A label and how likely it is."""

    label: str
    probability: float = Field(ge=0, le=1)


class Answer(BaseModel):
    """What a text was classified as."""

    label: str = Field(description="The likeliest.")
    confidence: float = Field(ge=0, le=1, description="Its probability.")
    probabilities: list[LabelProbability] = Field(description="The likeliest first.")


class Answers(BaseModel):
    """One for each text, in their order."""

    results: list[Answer]


class Limits(BaseModel):
    """What a request may hold."""

    max_texts: int
    max_characters: int
    max_body: int


class ModelInfo(BaseModel):
    """The model that answers."""

    labels: list[str]
    pairs: bool = Field(description="Whether what it classifies are pairs of texts.")
    about: dict[str, Any] = Field(description="What it was made from and with, and its metrics on the test split.")
    card: str = Field(description="Its model card, in Markdown; empty if it has none.")
    limits: Limits


class State(BaseModel):
    """How the server stands."""

    status: Literal["ok", "ready", "not ready"]


class Problem(BaseModel):
    """Why there is no answer."""

    error: str


class _FromHub(BaseModel):
    # Their clients send keys that only some of their models know.
    model_config = ConfigDict(strict=True, extra="ignore")


class HubParameters(_FromHub):
    """Of Hugging Face's text-classification task."""

    top_k: TopK | None = None
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None


class HubRequest(_FromHub):
    """A request of Hugging Face's text-classification task."""

    inputs: Text | Annotated[list[Text], Field(fail_fast=True)]
    parameters: HubParameters | None = None


class HubPair(_FromHub):
    """Two texts that are judged together."""

    text: Text
    text_pair: Text


OneHubPair = Annotated[HubPair, BeforeValidator(_of_two)]


class HubPairsRequest(_FromHub):
    """A request of Hugging Face's text-classification task to a model that reads pairs."""

    inputs: Annotated[
        Annotated[OneHubPair, Tag("[one]")] | Annotated[list[OneHubPair], Field(fail_fast=True), Tag("[many]")],
        Discriminator(lambda given: "[many]" if isinstance(given, list) else "[one]"),
    ]
    parameters: HubParameters | None = None


class HubLabel(BaseModel):
    """A label and its score."""

    label: str
    score: float
