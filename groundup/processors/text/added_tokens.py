"""Tokens that only the other files of a tokenizer name, added as ``transformers`` adds them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from groundup.processors.saved_files import read_json

__all__ = ["add_named_tokens", "add_words"]

log = logging.getLogger("groundup")
_NAMED = tuple(f"{kind}_token" for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
_LISTS = ("additional_special_tokens", "extra_special_tokens")
_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
)
_FLAGS = ("lstrip", "rstrip", "normalized", "single_word")


def add_named_tokens(folder: Path, tokenizer: Tokenizer) -> None:
    """Add the tokens that tokenizer.json lacks, after its own, in the order of ``transformers``.

    These are named by ``added_tokens_decoder`` of tokenizer_config.json, else in added_tokens.json;
    then come special tokens of tokenizer_config.json and special_tokens_map.json. What config.json
    leaves no row for in the embedding stays away, and is named.
    """
    config, special, added, model = (
        read_json(folder / name) if (folder / name).is_file() else {} for name in _FILES
    )
    rows = model.get("vocab_size")
    described = config.get("added_tokens_decoder")
    numbered = {int(key): token for key, token in (described or {}).items()}
    numbered = numbered or {int(number): text for text, number in added.items()}
    named = [token for source in (config, special) for token in _special_in(source)]
    for number, token in [*sorted(numbered.items()), *((None, token) for token in named)]:
        entry = token if isinstance(token, dict) else {"content": token}
        content = entry.get("content")
        if not isinstance(content, str) or tokenizer.token_to_id(content) is not None:
            continue
        place = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
        # Without config.json nothing says that a token with a name alone has a row.
        if not isinstance(rows, int):
            if number is None:
                continue
        elif place >= rows:
            log.warning("%s: the model has no row for token %s: it is left out", folder, content)
            continue
        flags = {name: bool(entry[name]) for name in _FLAGS if name in entry}
        tokenizer.add_tokens(
            [AddedToken(content, special=bool(entry.get("special", number is None)), **flags)]
        )
        if number not in (None, place):
            log.warning(
                "%s: token %s is %s by its files and %d here, as in transformers",
                folder,
                content,
                number,
                place,
            )


def add_words(tokenizer: Tokenizer, words: Sequence[str], special: Sequence[str]) -> list[str]:
    """Add tokens to a tokenizer, numbered and matched as ``transformers`` does it
    (``add_tokens``, with ``special_tokens``); return what becomes of those that it had, in words.

    Departs from it: a special token that is named among the words stays special.
    """
    notes = []
    before = tokenizer.get_added_tokens_decoder()
    for word in (*words, *special):
        number = tokenizer.token_to_id(word)
        if number is None:
            continue
        said = f"{word!r} is token {number} already"
        if number not in before:
            said += ": it is matched as a whole now"
        elif before[number].special == (word in special):
            said += ": nothing is added"
        elif word in special:
            said += ": it is a special token now"
        else:
            said += ", a special one, and stays it"
        notes.append(said)
    # The library would take away that it is special, and a text could then spell it out.
    kept = {token.content for token in before.values() if token.special}
    tokenizer.add_tokens([word for word in words if word not in kept])
    tokenizer.add_special_tokens(list(special))
    return notes


def _special_in(source: dict[str, Any]) -> Iterator[Any]:
    for key in _NAMED:
        yield source.get(key)
    for key in _LISTS:
        found = source.get(key) or ()
        yield from found.values() if isinstance(found, dict) else found
