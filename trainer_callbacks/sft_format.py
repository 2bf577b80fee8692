"""Rows as TRL's SFTTrainer takes them."""

from typing import Any, TypeVar

from datasets import Dataset, IterableDataset

from ..rows.conversations import CHAT_ROLES
from ..rows.pairs import PairReader

AnyDataset = TypeVar("AnyDataset", Dataset, IterableDataset)


def to_sft_format(ds: AnyDataset) -> AnyDataset:
    """
    Bring rows that SFTTrainer would refuse, or render with roles that a chat template does not know, into a format that
    it takes: `conversations` (from/value, with "human" and "gpt") become `messages`; an instruction and a response in
    columns of their own (alpaca, Dolly) become `prompt` and `completion` messages. Other formats stay as they are.

    Args:
        ds ([`~datasets.Dataset`] or [`~datasets.IterableDataset`]): the rows.

    Returns:
        [`~datasets.Dataset`] or [`~datasets.IterableDataset`]: the same rows; the other columns are kept.

    Raises:
        `ValueError`: if the columns fit no format.

    Example:

    ```python
    >>> SFTTrainer(model, train_dataset=to_sft_format(scar_select(ds, k=0.1)))
    ```
    """
    names = ds.column_names or list(next(iter(ds)))
    if "conversations" in names and "messages" not in names:
        return ds.map(_as_messages, remove_columns=["conversations"])
    if ("prompt" in names and "completion" in names) or any(name in names for name in ("messages", "text", "input_ids")):
        return ds
    reader = PairReader()
    needed = reader.needed(names) or []
    return ds.map(_as_prompt_completion, remove_columns=needed, fn_kwargs={"needed": needed})


def _as_messages(row: dict[str, Any]) -> dict[str, Any]:
    messages = [
        {
            "role": CHAT_ROLES.get(message.get("role") or message.get("from"), message.get("role") or message.get("from")),
            "content": message["content"] if "content" in message else message.get("value"),
        }
        for message in row["conversations"] or []
    ]
    return {"messages": messages}


def _as_prompt_completion(row: dict[str, Any], needed: list[str]) -> dict[str, Any]:
    (pair,) = PairReader().read({name: [row[name]] for name in needed})
    return {
        "prompt": [{"role": "user", "content": pair.instruction}],
        "completion": [{"role": "assistant", "content": pair.response}],
    }
