"""Token ids and triples for the tests of the ranker's architecture and losses."""

import torch

LENGTHS = (5, 30, 12, 2)


def texts(lengths=LENGTHS, seed=1, left=False):
    """Random token ids of some lengths, padded on one side, with their mask."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids, mask = torch.zeros(len(lengths), width, dtype=torch.long), torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        place = slice(width - length, width) if left else slice(0, length)
        ids[row, place] = torch.randint(5, 300, (length,), generator=generator)
        mask[row, place] = 1
    return ids, mask


def score(model, x, y):
    with torch.no_grad():
        return model(x[0], y[0], x[1], y[1]).scores


def triple(lengths=LENGTHS):
    batch = {}
    for seed, name in enumerate(("instruction", "direct", "referenced", "human")):
        batch[f"{name}_input_ids"], batch[f"{name}_attention_mask"] = texts(lengths, seed=10 + seed)
    return batch
