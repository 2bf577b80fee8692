"""Load prompt files: a file may hold several wordings of a prompt, and a hash of the row selects one."""

import re
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


class Prompt:
    """
    A prompt file: YAML with `user` and optionally `system`, each a text or a list of texts to draw from.

    Args:
        text (`str`): content of the file.
        name (`str`): name of the file, for error messages.
        required (`tuple[str, ...]`): placeholders that each user prompt must contain.

    Raises:
        `ValueError`: if the file has another format or lacks a placeholder.

    Example:

    ```python
    >>> prompt = Prompt("user: 'Answer in one word: {instruction}'", "one_word.yaml", ("instruction",))
    >>> prompt.messages({"instruction": "The capital of France?"})
    [{'role': 'user', 'content': 'Answer in one word: The capital of France?'}]
    ```
    """

    def __init__(self, text: str, name: str, required: tuple[str, ...]) -> None:
        self.name = name
        self.sha256 = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"The prompt file {name} is not valid YAML: {error}") from error
        if not isinstance(content, Mapping) or "user" not in content or set(content) - {"user", "system"}:
            got = sorted(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
            raise ValueError(f"The prompt file {name} must be YAML with `user` and optionally `system`, got {got}.")
        self.user, self.system = self._texts(content, "user"), self._texts(content, "system") or [""]
        if not self.user:
            raise ValueError(f"The prompt file {name} has an empty `user`.")
        for prompt in self.user:
            found = set(_PLACEHOLDER.findall(prompt))
            if missing := [f"{{{placeholder}}}" for placeholder in required if placeholder not in found]:
                have = ", ".join(f"{{{placeholder}}}" for placeholder in sorted(found)) or "none"
                raise ValueError(
                    f"The prompt file {name} needs {' and '.join(missing)} in each `user` prompt, and this one has {have}: "
                    f"{prompt[:80]!r}."
                )

    def messages(self, values: Mapping[str, str], draw: str = "") -> list[dict[str, str]]:
        """
        Fill in the placeholders and return the chat.

        Args:
            values (`Mapping[str, str]`): texts for the placeholders.
            draw (`str`, *optional*): text that, together with the values, selects one of several prompts.

        Returns:
            `list[dict]`: messages with `role` and `content`.
        """
        seed = "\n".join([draw, *(values[name] for name in sorted(values))])
        system, user = (
            self.system[_draw(f"system\n{seed}", len(self.system))],
            self.user[_draw(f"user\n{seed}", len(self.user))],
        )
        # Replace in one pass, so that placeholders inside inserted texts stay unchanged.
        content = _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), user)
        return [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": content}]

    def _texts(self, content: Mapping[str, Any], part: str) -> list[str]:
        value = content.get(part)
        texts = [value] if isinstance(value, str) else value or []
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"The prompt file {self.name}: `{part}` must be a text or a list of texts.")
        return texts


def load_prompt(kind: str, path: str | Path | None, required: tuple[str, ...]) -> Prompt:
    """
    Load a prompt file.

    Args:
        kind (`str`): name of the bundled file, without `.yaml`.
        path (`str` or `Path`, *optional*): file to use instead.
        required (`tuple[str, ...]`): placeholders that each user prompt must contain.

    Returns:
        [`Prompt`].

    Raises:
        `ValueError`: if the file does not exist or is not a prompt file.
    """
    if path is None:
        return Prompt(
            (files("scar_hf.synthesis") / "prompts" / f"{kind}.yaml").read_text(encoding="utf-8"), f"{kind}.yaml", required
        )
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"The prompt file {path} cannot be read: {error}.") from error
    return Prompt(text, str(path), required)


def _draw(seed: str, n: int) -> int:
    return int.from_bytes(sha256(seed.encode("utf-8", "surrogatepass")).digest()[:8], "big") % n
