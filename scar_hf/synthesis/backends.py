"""The interface of backends that answer chats: an endpoint or a local model."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Sampling:
    """
    Sampling settings of an answer. Fields that are `None` use the default of the backend.

    Args:
        temperature (`float`, *optional*, defaults to 0.7): 0 or more; 0 is greedy decoding.
        top_p (`float`, *optional*): probability mass to sample from, in (0, 1].
        max_tokens (`int`, *optional*, defaults to 512): maximum number of tokens of an answer.
        seed (`int`, *optional*): makes answers repeatable, if the backend supports it.
        schema (`dict`, *optional*): JSON schema that the answer must follow, if the backend supports it.

    Raises:
        `ValueError`: if a value is out of range.
    """

    temperature: float | None = 0.7
    top_p: float | None = None
    max_tokens: int = 512
    seed: int | None = None
    schema: Mapping[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if self.temperature is not None and not 0 <= self.temperature <= 10:
            raise ValueError(f"`temperature` must be between 0 and 10, got {self.temperature}.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"`top_p` must be in (0, 1], got {self.top_p}.")
        if self.max_tokens < 1:
            raise ValueError(f"`max_tokens` must be 1 or more, got {self.max_tokens}.")

    def settings(self) -> dict[str, Any]:
        """Return the fields that are set (`dict`), for requests, log keys and manifests."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Completion:
    """
    A model's answer.

    Args:
        text (`str`): the answer.
        finish_reason (`str`, *optional*): `"stop"`, `"length"` if it was cut off, or a backend-specific value.
        prompt_tokens, completion_tokens (`int`, *optional*): `None` if the backend does not report them.
    """

    text: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    @property
    def tokens(self) -> int:
        """Total tokens of prompt and answer; estimated from the length of the answer if the backend does not report them."""
        if self.prompt_tokens is None and self.completion_tokens is None:
            return len(self.text) // 4
        return (self.prompt_tokens or 0) + (self.completion_tokens or 0)


class Backend(Protocol):
    """
    Answers chats. `model` is the name under which answers are stored; `concurrency` is the number of chats that it handles
    at a time.
    """

    model: str
    concurrency: int

    async def complete(self, messages: Messages, sampling: Sampling) -> Completion:
        """
        Answer a chat.

        Raises:
            `CompletionError`: if this chat cannot be answered.
            `BackendError`: if no chat can be answered.
        """
        ...

    async def close(self) -> None:
        """Release connections and memory."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return a description of the backend for a manifest (`dict`), without secrets."""
        ...


class CompletionError(ValueError):
    """
    One chat could not be answered; other chats may work.

    Args:
        message (`str`): the reason.
        of_request (`bool`, *optional*, defaults to `False`): whether the chat itself was refused, for example as too long,
            which says nothing about others.
    """

    def __init__(self, message: str, of_request: bool = False) -> None:
        super().__init__(message)
        self.of_request = of_request


class BackendError(ValueError):
    """No chat can be answered: a wrong key, an unknown model, no connection."""
