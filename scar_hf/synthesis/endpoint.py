"""Request answers from any OpenAI-compatible endpoint with the client of huggingface_hub."""

import asyncio
import email.utils
import os
import random
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from .backends import BackendError, Completion, CompletionError, Messages, Sampling

KEY_VARIABLE = "SCAR_HF_API_KEY"
# Placeholder key: without a key, the client would send the user's Hugging Face token to any server.
_NO_KEY = "none"
_RETRIED = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_OF_THE_REQUEST = {400, 413, 422}  # too long, or against the rules of the endpoint
_LONGEST_BACK_OFF = 60.0  # seconds
_LONGEST_RETRY_AFTER = 600.0  # seconds
# Attempts to reach an endpoint that has not answered yet, so that a wrong URL fails within seconds.
_FIRST_ATTEMPTS = 3


class EndpointBackend:
    """
    A model behind an OpenAI-compatible endpoint: vLLM, TGI, llama.cpp, `transformers serve`, or a provider.

    Requests are retried after rate limiting (429), server errors, malformed answers and lost connections, with exponential
    back-off or the delay given by `Retry-After`. A delay requested by the endpoint applies to all requests.

    Args:
        model (`str`): name of the model at the endpoint.
        base_url (`str`, *optional*): URL of the endpoint, such as `http://127.0.0.1:8000/v1`.
        provider (`str`, *optional*): a provider known to `huggingface_hub`, or `"auto"`, instead of `base_url`.
        key_variable (`str`, *optional*, defaults to `"SCAR_HF_API_KEY"`):
            Environment variable that holds the API key. If it is not set, a `base_url` receives no key, and a provider
            receives the Hugging Face token.
        concurrency (`int`, *optional*, defaults to 4): number of parallel requests.
        timeout (`float`, *optional*, defaults to 600): seconds after which an unanswered request is retried.
        attempts (`int`, *optional*, defaults to 8): maximum number of attempts per request.

    Raises:
        `ValueError`: if the URL is invalid or contains a password.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        provider: str | None = None,
        key_variable: str = KEY_VARIABLE,
        concurrency: int = 4,
        timeout: float = 600.0,
        attempts: int = 8,
    ) -> None:
        if (base_url is None) == (provider is None):
            raise ValueError(
                "No endpoint: name the address of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1, with "
                "`base_url` (--base-url), or a provider with `provider` (--provider)."
                if base_url is None
                else "Pass `base_url` or `provider`, not both."
            )
        if base_url is not None:
            check_url(base_url)
        if concurrency < 1 or attempts < 1 or timeout <= 0:
            raise ValueError(
                "`concurrency` and `attempts` must be 1 or more and `timeout` above 0, got "
                f"{concurrency}, {attempts} and {timeout}."
            )
        self.model, self.base_url, self.provider = model, base_url, provider
        self.concurrency, self.timeout, self.attempts = concurrency, timeout, attempts
        self.key_variable = key_variable
        self.retries = 0
        self._key = os.environ.get(key_variable) or None
        self._client: Any = None
        self._resume_at = 0.0
        self._answered = False
        self._takes_schemas = True

    async def complete(self, messages: Messages, sampling: Sampling) -> Completion:
        """Answer a chat; see [`Backend`]."""
        attempt = 0
        while True:
            attempt += 1
            while (pause := self._resume_at - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            try:
                completion = await self._request(messages, sampling)
            except _RetryableError as problem:
                if attempt >= (self.attempts if self._answered else min(self.attempts, problem.first_attempts)):
                    raise CompletionError(f"{self._where} {problem}, {attempt} times in a row.") from problem.__cause__
                self.retries += 1
                await self._wait(problem, attempt)
            else:
                self._answered = True
                return completion

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    def describe(self) -> dict[str, Any]:
        """Return the model and its location for a manifest (`dict`)."""
        where = {"base_url": self.base_url} if self.base_url is not None else {"provider": self.provider}
        return {"model": self.model, **where}

    @property
    def _where(self) -> str:
        return f"The endpoint {self.base_url}" if self.base_url is not None else f"The provider {self.provider!r}"

    async def _request(self, messages: Messages, sampling: Sampling) -> Completion:
        """Send one request; raise `_RetryableError` for errors that a retry may fix."""
        from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError, OfflineModeIsEnabled
        from huggingface_hub.utils import httpx

        try:
            output = await self._send([dict(message) for message in messages], sampling)
        except OfflineModeIsEnabled as error:
            raise BackendError(
                f"{self._where} cannot be used because HF_HUB_OFFLINE is set, which blocks your own servers, too. Set "
                "HF_HUB_OFFLINE=0 for this command."
            ) from error
        except InferenceTimeoutError as error:
            raise _RetryableError(f"gave no answer within {self.timeout:g} seconds") from error
        except HfHubHTTPError as error:
            raise self._http_problem(error.response) from error
        except httpx.TransportError as error:
            detail = self._without_key(str(error) or type(error).__name__)
            raise _RetryableError(f"could not be reached ({detail})", first_attempts=_FIRST_ATTEMPTS) from error
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise _RetryableError(
                f"sent something other than a chat completion ({self._without_key(str(error))[:200]})"
            ) from error
        return self._completion(output)

    async def _send(self, messages: list[dict[str, str]], sampling: Sampling) -> Any:
        """Send one request, without the schema if the endpoint does not support schemas."""
        from huggingface_hub.errors import HfHubHTTPError

        settings = sampling.settings()
        schema = settings.pop("schema", None)
        if schema is not None and self._takes_schemas:
            try:
                extra = {"response_format": _response_format(schema)}
                return await self._open().chat_completion(messages, model=self.model, extra_body=extra, **settings)
            except HfHubHTTPError as error:
                if error.response.status_code not in (400, 422, 501):
                    raise
                self._takes_schemas = False
        return await self._open().chat_completion(messages, model=self.model, **settings)

    def _completion(self, output: Any) -> Completion:
        try:
            choice = output.choices[0]
            text, finish_reason = choice.message.content, choice.finish_reason
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            detail = self._without_key(str(getattr(output, "error", None) or "no choices in it"))[:200]
            raise _RetryableError(f"sent something other than a chat completion ({detail})") from error
        usage = getattr(output, "usage", None)
        counts = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
        prompt_tokens, completion_tokens = (count if isinstance(count, int) and count >= 0 else None for count in counts)
        return Completion(text if isinstance(text, str) else "", finish_reason, prompt_tokens, completion_tokens)

    def _http_problem(self, response: Any) -> Exception:
        status = response.status_code
        detail = self._without_key(" ".join(response.text.split()))[:300]
        said = f"HTTP {status}{f': {detail}' if detail else ''}"
        if status in (401, 403):
            key = f"the key in ${self.key_variable}" if self._key else f"no key, as ${self.key_variable} is not set"
            return BackendError(f"{self._where} refused {key} ({said}).")
        if status == 404:
            return BackendError(f"{self._where} has no model {self.model!r}, or is not an OpenAI-compatible server ({said}).")
        if status in _RETRIED:
            wait = retry_after(response.headers)
            if wait is not None and wait > _LONGEST_RETRY_AFTER:
                return BackendError(
                    f"{self._where} asks to come back in {wait:.0f} seconds ({said}). Run the command again then."
                )
            return _RetryableError(f"answered {said}", retry_after=wait)
        refused = status in _OF_THE_REQUEST
        return CompletionError(f"{self._where} did not take the request ({said}).", of_request=refused)

    async def _wait(self, problem: "_RetryableError", attempt: int) -> None:
        if problem.retry_after is not None:
            self._resume_at = max(self._resume_at, time.monotonic() + problem.retry_after)
            # Add jitter, so that waiting requests do not all restart at once.
            await asyncio.sleep(problem.retry_after + random.uniform(0, 0.1))
        else:
            back_off = min(_LONGEST_BACK_OFF, 0.5 * 2.0 ** (attempt - 1))
            await asyncio.sleep(random.uniform(0.5, 1) * back_off)

    def _open(self) -> Any:
        if self._client is None:
            from huggingface_hub import AsyncInferenceClient

            if self.base_url is not None:
                self._client = AsyncInferenceClient(base_url=self.base_url, api_key=self._key or _NO_KEY, timeout=self.timeout)
            else:
                provider: Any = self.provider
                self._client = AsyncInferenceClient(provider=provider, api_key=self._key, timeout=self.timeout)
        return self._client

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


class _RetryableError(Exception):
    """The error of one attempt."""

    def __init__(self, message: str, *, retry_after: float | None = None, first_attempts: int = 1 << 30) -> None:
        super().__init__(message)
        self.retry_after, self.first_attempts = retry_after, first_attempts


def _response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema in the formats of TGI (`value`) and llama.cpp (`schema`); the client converts OpenAI's to TGI's."""
    return {"type": "json_object", "value": schema, "schema": schema}


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait according to the `Retry-After` header; `None` if it is absent or cannot be parsed."""
    value = (headers.get("retry-after") or "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def check_url(url: str) -> None:
    """Raise a `ValueError` if a URL is invalid, or contains a password or key, which a manifest would publish."""
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query:
        raise ValueError(f"The address of the endpoint must not hold a password or key: put it in ${KEY_VARIABLE}.")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"The endpoint must be an address such as http://127.0.0.1:8000/v1, got {url!r}.")
