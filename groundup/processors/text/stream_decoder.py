"""Text as it is generated: a token may end in the middle of a character, which is held back until
it is whole."""

from __future__ import annotations

from groundup.contracts.processors import TextProcessor

__all__ = ["StreamDecoder"]


class StreamDecoder:
    """Turns tokens into text one by one; all that it returns, joined, is ``processor.decode`` of
    all the tokens.

    Only the last U+FFFD of a decoded text can be a character still to be completed, so all before
    it may be shown. The last finished piece stays in the window, because some tokenizers drop a
    space at the start of what they decode.

    Example:
        >>> decoder = StreamDecoder(processor)
        >>> text = "".join(decoder.push(token) for token in tokens) + decoder.flush()
    """

    def __init__(self, processor: TextProcessor) -> None:
        self._processor = processor
        self._window: list[int] = []
        # Tokens of the window whose text was returned.
        self._finished = 0
        # Characters of the window's text that were returned.
        self._returned = 0

    def push(self, token_id: int) -> str:
        """Return the text that this token completes, often none for a part of a character."""
        self._window.append(int(token_id))
        text = self._processor.decode(self._window)
        whole = text.removesuffix("\ufffd")
        new = whole[self._returned :]
        self._returned += len(new)
        if whole == text and new:
            self._window = self._window[self._finished :]
            self._finished = len(self._window)
            self._returned = len(self._processor.decode(self._window))
        return new

    def flush(self) -> str:
        """Return what is still held back, and start again."""
        rest = self._processor.decode(self._window)[self._returned :]
        self._window = []
        self._finished = 0
        self._returned = 0
        return rest
