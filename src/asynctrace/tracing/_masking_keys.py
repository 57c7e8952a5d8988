"""Which names announce a secret.

A name is split into its words (`X-Api-Key`, `apiKey` and `api_key` are all *api*, *key*), and the words
decide: `session_token` is a secret, `input_tokens`, `token_count`, `time_to_first_token` and `author` are
not.
"""

from __future__ import annotations

import re

__all__ = ["names_a_secret"]

_LONGEST = 256
"""Characters of a name that are looked at, at each end."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+").findall


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ALWAYS = _words("""
    password passwords passwd pwd passphrase passcode passkey secret secrets credential credentials creds
    cookie cookies jwt bearer otp totp cvv cvc ssn
""")
"""Words that make any name a secret one."""

_INSIDE = re.compile(
    "password|passwd|passphrase|secretkey|privatekey|accesskey|apikey|authkey|credential|clientsecret"
    "|authtoken|accesstoken|refreshtoken|sessiontoken|bearertoken|apitoken|idtoken|middlewaretoken"
).search
"""Parts of words in names written without any border (`dbpassword`, `APIKEY`)."""

_OWNERS_OF_KEYS = _words("""
    api app private access secret encryption encrypt decryption signing master session account auth
    authorization ssh storage shared subscription service deploy consumer client licence license hmac aes
    rsa pgp gpg
""")
_OWNERS_OF_TOKENS = _words("access refresh auth api bearer session id csrf xsrf oauth security personal")
_OWNERS_OF_PASS = _words("db database user smtp mail redis mysql pg postgres proxy sudo root admin")
_HARMLESS_TOKENS = _words("""
    per first next last prev previous eos bos pad sep cls unk mask stop start end begin special page
    continuation sync current predicted new num max min
""")
"""Before *token*: words of language models and of paging."""
_PUBLIC_AUTHORIZATION = _words("endpoint url uri server servers type status mode scheme method")


def names_a_secret(name: str) -> bool:
    """Whether a value under this name must not be shown. Linear in the length of the name, which is
    bounded."""
    if len(name) > 2 * _LONGEST:
        name = f"{name[:_LONGEST]} {name[-_LONGEST:]}"
    words = [word.lower() for word in _WORDS(name)]
    if not _ALWAYS.isdisjoint(words) or _INSIDE(" ".join(words)):
        return True
    return any(_decides(word, words, place) for place, word in enumerate(words))


def _decides(word: str, words: list[str], place: int) -> bool:
    before = words[place - 1] if place else ""
    after = words[place + 1] if place + 1 < len(words) else ""
    match word:
        case "token":
            return (not after and before not in _HARMLESS_TOKENS) or after in ("secret", "value")
        case "tokens":
            return not after and before in _OWNERS_OF_TOKENS
        case "key" | "keys":
            return before in _OWNERS_OF_KEYS
        case "authorization":
            return after not in _PUBLIC_AUTHORIZATION
        case "auth":
            return not after
        case "pass":
            return not after and (not before or before in _OWNERS_OF_PASS)
        case "number":
            return before == "card"
        case "string":
            return before == "connection"
        case _:
            return False
