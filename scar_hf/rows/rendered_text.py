"""Splits texts that a chat template has rendered into turns."""

import re

# For each family of templates: the markers that start a turn, and its role. End-of-turn markers are stripped from the text.
_FAMILIES: tuple[tuple[tuple[str, str], ...], ...] = (
    (
        (r"<\|im_start\|>user\n", "user"),
        (r"<\|im_start\|>assistant\n", "assistant"),
        (r"<\|im_start\|>system\n", "system"),
        (r"<\|im_start\|>tool\n", "tool"),
    ),
    (
        (r"<\|start_header_id\|>user<\|end_header_id\|>", "user"),
        (r"<\|start_header_id\|>assistant<\|end_header_id\|>", "assistant"),
        (r"<\|start_header_id\|>system<\|end_header_id\|>", "system"),
        (r"<\|start_header_id\|>(?:tool|ipython)<\|end_header_id\|>", "tool"),
    ),
    ((r"<start_of_turn>user\n", "user"), (r"<start_of_turn>model\n", "assistant")),
    (
        (r"<\|user\|>", "user"),
        (r"<\|assistant\|>", "assistant"),
        (r"<\|system\|>", "system"),
        (r"<\|(?:tool|observation)\|>", "tool"),
    ),
    ((r"\[INST\]", "user"), (r"\[/INST\]", "assistant")),
    (
        (r"### (?:Instruction|Question|Human|User|Prompt|Input)(?::|$)", "user"),
        (r"### (?:Response|Answer|Assistant|Output)(?::|$)", "assistant"),
        (r"### System(?::|$)", "system"),
    ),
    ((r"(?:^|[ \n])(?:USER|Human|User): ?", "user"), (r"(?:^|[ \n])(?:ASSISTANT|Assistant): ?", "assistant")),
)
_ENDS = re.compile(r"<\|(?:im_end|eot_id|eom_id|end|endoftext|end_of_text)\|>|<end_of_turn>|<eos>|</?s>")
_SYSTEM_BLOCK = re.compile(r"<<SYS>>.*?<</SYS>>", re.DOTALL)
_PATTERNS = [
    (
        re.compile("|".join(f"(?P<t{i}>{mark})" for i, (mark, _) in enumerate(family)), re.MULTILINE),
        [role for _, role in family],
    )
    for family in _FAMILIES
]


def turns_of_text(text: str) -> list[tuple[str, str]] | None:
    """
    Split a rendered conversation into turns.

    Args:
        text (`str`):
            A text rendered by `apply_chat_template` (ChatML, Llama 2 and 3, Mistral, Gemma, Zephyr, Phi), or one with
            Alpaca, Guanaco or Vicuna headings.

    Returns:
        `list[tuple[str, str]]` of role and text, or `None` if no family's user and assistant markers both occur.
    """
    for pattern, roles in _PATTERNS:
        marks = list(pattern.finditer(text))
        found = [roles[int(str(mark.lastgroup)[1:])] for mark in marks]
        if "user" not in found or "assistant" not in found:
            continue
        ends = [mark.start() for mark in marks[1:]] + [len(text)]
        return [
            (role, _SYSTEM_BLOCK.sub("", _ENDS.sub("", text[mark.end() : end])).strip())
            for role, mark, end in zip(found, marks, ends, strict=True)
        ]
    return None
