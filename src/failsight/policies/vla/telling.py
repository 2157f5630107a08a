"""Which instructions a policy cannot tell apart, because they reach it as the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from failsight.core.errors import FailsightError
from failsight.policies.vla.design import VLAConfig
from failsight.policies.vla.words import MAX_WORDS, WORD_RULE, vocabulary_of, words


def confused(texts: Mapping[str, Iterable[str]], tokens: Callable[[str], Sequence[int]]) -> list[tuple[str, ...]]:
    """Groups of instructions that share a token row.

    Args:
        texts: instruction -> its other wordings.
        tokens: what the model reads of a text.
    """
    owners: dict[tuple[int, ...], dict[str, None]] = {}
    for instruction, wordings in texts.items():
        for text in (instruction, *wordings):
            owners.setdefault(tuple(tokens(text)), {})[instruction] = None
    return [group for group in dict.fromkeys(tuple(found) for found in owners.values()) if len(group) > 1]


def tiny_tokens(
    vocabulary: Sequence[str], rule: int = WORD_RULE, length: int = MAX_WORDS
) -> Callable[[str], list[int]]:
    """What the `tiny` backbone reads: the numbers of the first words; an unknown word is one like any other."""
    index = {word: i for i, word in enumerate(vocabulary)}
    return lambda text: [index.get(word, -1) for word in words(text, rule)][:length]


def tiny_confuses(texts: Mapping[str, Iterable[str]]) -> list[tuple[str, ...]]:
    """What `tiny` would confuse when trained on these texts."""
    known = vocabulary_of([text for key, others in texts.items() for text in (key, *others)])
    return confused(texts, tiny_tokens(known))


def tokens_of(config: VLAConfig) -> Callable[[str], Sequence[int]]:
    """What the policy's backbone reads of a text. Raises FailsightError when there is no tokenizer."""
    if config.backbone.family == "tiny":
        return tiny_tokens(config.vocabulary, config.word_rule, config.backbone.words)
    from transformers import AutoTokenizer

    from failsight.policies.vla.base import resolve_source

    source = resolve_source(config.backbone)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise FailsightError(f"{source} has no tokenizer that loads ({error}).") from error
    return lambda text: [int(i) for i in tokenizer(_plain(text), add_special_tokens=False)["input_ids"]]


def _plain(text: str) -> str:
    """As `prompts.Composer` hands an instruction on."""
    return text.replace("{", "(").replace("}", ")")
