"""What takes secrets out of a program's values, before they reach the span log.

- By name: a value under `password`, `X-Api-Key`, `session_token` and the like is replaced, whatever it holds.
- By value: bearer and basic credentials, URLs with a password (the host stays), keys of clouds and services,
  JWT, PEM blocks, card numbers, `password=…` in texts.
- Then the user's own masker. When it fails, its field is replaced, and only that.

A secret becomes `[masked]`. Nothing here raises, and what is cached (decisions about names) holds no secret:
a name that itself looks like a secret is decided anew each time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

from .._errors import ConfigurationError
from ._masking_keys import names_a_secret
from ._masking_values import MASKED, is_card_number, mask_secrets

__all__ = ["MASKED", "MASKER_FAILED", "CustomMasker", "MaskOption", "Masker"]

MASKER_FAILED = "[masked: masker failed]"

CustomMasker: TypeAlias = Callable[[str, str], str]
"""`(key, text) -> text`: the name of the field (the last part of its path) and its text."""
MaskOption: TypeAlias = CustomMasker | Literal[False] | None

_MOST_DECISIONS = 4096
_LONGEST_CACHED = 128


class Masker:
    """Decides what is a secret. Safe from any thread.

    `keys` and `values` are further regular expressions: names (searched, ignoring case) and texts (each
    match is replaced). Their running time is the caller's business. Raises `ConfigurationError` for a
    pattern that does not compile or a `custom` that cannot be called.
    """

    __slots__ = ("_custom", "_decisions", "_enabled", "_keys", "_on_error", "_values", "decided")

    def __init__(
        self,
        custom: CustomMasker | None = None,
        *,
        keys: Iterable[str] = (),
        values: Iterable[str] = (),
        enabled: bool = True,
        on_error: Callable[[BaseException], None] | None = None,
    ) -> None:
        if custom is not None and not callable(custom):
            raise ConfigurationError(f"mask={custom!r}: None, False or a function (key, text) -> text")
        self._custom = custom
        self._keys = _compile("keys", keys, re.IGNORECASE)
        self._values = _compile("values", values)
        self._enabled = enabled
        self._on_error = on_error
        self._decisions: dict[str, bool] = {}
        self.decided = self._decisions.get
        """`decided(name)`: `True` or `False` as remembered, `None` when the name is not known yet."""

    @classmethod
    def from_option(cls, mask: MaskOption = None, on_error: Callable[[BaseException], None] | None = None) -> Masker:
        """For the option `mask=`: `None` is the built-in rules, `False` none at all, a function comes after
        them."""
        if mask is False:
            return cls(enabled=False)
        return cls(mask, on_error=on_error)

    @property
    def calls_user_code(self) -> bool:
        """Whether there is a custom masker, whose time nobody knows."""
        return self._custom is not None

    def is_secret_key(self, key: str) -> bool:
        """Whether a value under this name is a secret. Remembered for ordinary names."""
        secret = self._decisions.get(key)
        return self._decide(key) if secret is None else secret

    def mask_text(self, text: str) -> str:
        """The text without its secrets; the same object when there is none. Does not call the custom
        masker."""
        if not self._enabled:
            return text
        masked = mask_secrets(text)
        for pattern in self._values:
            masked = pattern.sub(MASKED, masked)
        return masked

    def mask_value(self, key: str, text: str) -> str:
        """A text under a name: by name, by value, then by the custom masker."""
        secret = self._decisions.get(key)
        if secret or (secret is None and self._decide(key)):
            return MASKED
        return self.mask_leaf(key, text)

    def mask_leaf(self, key: str, text: str) -> str:
        """`mask_value()` for a name that is known to be harmless."""
        masked = mask_secrets(text) if self._enabled else text
        if self._values:
            masked = self.mask_text(masked)
        return masked if self._custom is None else self._apply_custom(key, masked)

    def mask_int(self, value: int) -> int | str:
        """An integer, unless it is a card number."""
        if 10**12 <= value < 10**19 and self._enabled and is_card_number(str(value)):
            return MASKED
        return value

    def _decide(self, key: str) -> bool:
        secret = self._enabled and (names_a_secret(key) or any(pattern.search(key) for pattern in self._keys))
        if len(key) <= _LONGEST_CACHED and self.mask_text(key) is key:
            if len(self._decisions) >= _MOST_DECISIONS:
                self._decisions.clear()
            self._decisions[key] = secret
        return secret

    def _apply_custom(self, key: str, text: str) -> str:
        try:
            masked = self._custom(key, text)  # type: ignore[misc]
            if type(masked) is str:
                return masked
            raise TypeError(f"mask= must return str, not {type(masked).__name__}")
        except Exception as error:  # noqa: BLE001 - user code: its field is redacted, its error told
            self._tell(error)
            return MASKER_FAILED

    def _tell(self, error: Exception) -> None:
        if self._on_error is not None:
            self._on_error(error)


def _compile(field: str, patterns: Iterable[str], flags: int = 0) -> tuple[re.Pattern[str], ...]:
    try:
        return tuple(re.compile(pattern, flags) for pattern in patterns)
    except (re.error, TypeError) as error:
        raise ConfigurationError(f"Masker({field}=…): not a regular expression: {error}") from error
