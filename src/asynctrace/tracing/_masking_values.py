"""Which texts are a secret, whatever their name.

- A text without a secret is returned as it is: the same object.
- Every pattern takes time linear in the text, whoever wrote it: what a pattern does not consume it scans only
  once, or a fixed number of times.
- Literal checks come before any pattern: an ordinary text costs a dozen `in`, of about 12 ns each.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable

__all__ = ["MASKED", "is_card_number", "mask_secrets"]

MASKED = "[masked]"

_SHORTEST = 8
"""Characters of the shortest text looked at: `pw=1234`-like texts are below any sensible use."""

# The order is the order of work: PEM first (it spans lines), tokens last (they may be inside the others).
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{1,40}-----[\s\S]*?(?:-----END [A-Z0-9 ]{1,40}-----|\Z)")
"""An unfinished block is masked to the end, so that a cut cannot uncover one."""

_USERINFO = re.compile(r"://[^/\s:@\"'<>]{0,256}:[^/\s\"'<>]+@")

_SCHEME = re.compile(
    r"([Bb](?<![A-Za-z0-9_].)(?i:earer|asic))([ \t]{1,8}|%20|\+)"
    r"(?!(?i:auth|token|schem|head|cred)[a-z]*(?![\w.~+/=-]))([A-Za-z0-9._~+/=-]{4,})"
)

_VALUE = r"""
    (?: =(?!["'\s])                                       # password=hunter2, ?token=…&
      | \\?["']?\s{0,4}[=:]\s{0,4}
        (?: (?P<quote>\\?["'])                            # "password": "…", password = '…'
          | (?=[^\s,;"'<>]{0,64}?[0-9!@\#$%^*]) )))       # password: hunter2
    (?!\[masked)
    (?(quote) [^"'\\\n]+ | [^\s&;,"'<>)\]}\\]+)"""
"""A name followed by its value: query strings, reprs, JSON text, YAML, source lines of a stack trace.

`token: str` and `Unexpected token: end` are no secrets: without quotes, after a colon or spaces, the value
must have a digit or a sign within its first 64 characters."""


_ASSIGNMENTS = tuple(
    (literal, re.compile(f"({name}{_VALUE}", re.VERBOSE))
    for literal, name in (
        ("passw", r"[Pp](?i:assw(?:or)?d)"),
        ("passphrase", r"[Pp](?i:assphrase)"),
        ("pwd", r"[Pp](?i:wd)"),
        ("secret", r"[Ss](?i:ecret)"),
        ("token", r"[Tt](?i:oken)"),
        ("cookie", r"[Cc](?i:ookie)"),
        ("credential", r"[Cc](?i:redentials?)"),
        ("authorization", r"[Aa](?i:uthorization)"),
        ("jwt", r"[Jj](?i:wt)"),
        ("key", r"[Aa](?i:(?:pi|ccess|ccount|uth)[_-]?key)"),
        ("key", r"[PpSsEe](?i:(?:rivate|ecret|igning|ncryption|hared[_-]?access)[_-]?key)"),
        ("signature", r"[SsXx](?i:haredaccesssignature|-amz-signature)"),
        ("sig=", r"(?<=[?&;])sig"),
    )
)
"""A part of the name in lower case, which is looked for first; the pattern of the name.

Each pattern begins with a set of one letter's two cases: the engine skips over everything else (measured:
1 ns a character, against 160 for one alternation of all names)."""

_COOKIE_HEADER = re.compile(
    r"""([Cc](?i:ookie)\\?["']?:[ ]{0,4}\\?["']?)(?!\[masked)(?=[^\s=;"']{1,64}=)[^\r\n"'\\]+"""
)
"""To the end of the line: each of the pairs may be the session."""

_AUTHORIZATION_HEADER = re.compile(
    r"""([Aa](?i:uthorization)\\?["']?:[ ]{0,4}\\?["']?[A-Za-z-]{1,20}[ ])"""
    r"""(?=[^\s"',]{0,64}?[0-9])[^\s"',\\]+"""
)
"""Schemes other than bearer and basic (`Token …`, `ApiKey …`)."""

_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*)*")

_SHORTEST_TOKEN = 16

_TOKENS: dict[str, tuple[tuple[str, re.Pattern[str]], ...]] = {
    sign: tuple((literal, re.compile(pattern)) for literal, pattern in tokens)
    for sign, tokens in {
        "-": (
            ("GOCSPX-", r"GOCSPX-[A-Za-z0-9_-]{20,}"),
            ("gl", r"\bgl[a-z]{2,5}-[A-Za-z0-9_.-]{16,}"),  # GitLab
            ("xox", r"xox[a-z]-[A-Za-z0-9-]{10,}"),  # Slack
            ("xapp-", r"xapp-[A-Za-z0-9-]{10,}"),
            ("sk-", r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{16,}"),  # OpenAI, Anthropic, OpenRouter, Langfuse
            ("xai-", r"xai-[A-Za-z0-9]{20,}"),
            ("pypi-", r"pypi-[A-Za-z0-9_-]{20,}"),
        ),
        "_": (
            ("gh", r"gh[pousr]_[A-Za-z0-9]{20,}"),  # GitHub
            ("github_pat_", r"github_pat_[A-Za-z0-9_]{20,}"),
            ("k_live_", r"[srp]k_live_[A-Za-z0-9]{8,}"),  # Stripe
            ("k_test_", r"[srp]k_test_[A-Za-z0-9]{8,}"),
            ("whsec_", r"whsec_[A-Za-z0-9+/=]{16,}"),
            ("gsk_", r"gsk_[A-Za-z0-9]{20,}"),  # Groq
            ("hf_", r"hf_[A-Za-z0-9]{20,}"),  # Hugging Face
            ("npm_", r"npm_[A-Za-z0-9]{20,}"),
        ),
        ".": (
            ("ya29.", r"ya29\.[A-Za-z0-9_.-]{20,}"),
            ("hooks.slack.com", r"(?<=hooks\.slack\.com/)[A-Za-z]{1,16}/[A-Za-z0-9/]{16,}"),
            ("SG.", r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),  # SendGrid
        ),
        "~": (
            ("Q~", r"[A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,}"),  # Azure
        ),
        "A": (
            ("AKIA", r"AKIA[A-Z0-9]{16}"),  # AWS
            ("ASIA", r"ASIA[A-Z0-9]{16}"),
            ("AIza", r"AIza[A-Za-z0-9_-]{30,}"),  # GCP
        ),
    }.items()
}
"""A character that each has, then a literal part of it, then the pattern: most texts stop at the first."""

_DIGITS = re.compile(r"(?<![0-9])(?<![0-9]\.)[0-9](?:[ -]?[0-9]){12,}")
"""13 digits and more, each pair with at most one space or dash between; not the digits of a fraction."""

_MOST_CANDIDATES = 2_000
"""Grouped numbers checked in one text; the runs behind are masked whole, so that time stays bounded."""


def mask_secrets(text: str) -> str:
    """The text with each secret replaced by `[masked]`; the same object when there is none."""
    length = len(text)
    if length < _SHORTEST:
        return text
    original = text
    # Each group of secrets needs one of these characters or words. Short-circuit order: the likeliest first.
    if (
        "-" in text
        or "_" in text
        or ":" in text
        or "=" in text
        or "." in text
        or "~" in text
        or "KIA" in text
        or "SIA" in text
        or "Iza" in text
        or "earer" in text
        or "asic" in text
        or "EARER" in text
        or "ASIC" in text
    ):
        text = _mask_tokens(text)
    if length >= 13 and ("4" in text or "5" in text or "3" in text or "6" in text or "2" in text):
        text = _mask_cards(text)
    return original if text is original or text == original else text


def _mask_tokens(text: str) -> str:
    if "-----BEGIN " in text:
        text = _PEM.sub(MASKED, text)
    if "://" in text and "@" in text:
        text = _USERINFO.sub(f"://{MASKED}@", text)
    if "earer" in text or "asic" in text or "EARER" in text or "ASIC" in text:
        text = _SCHEME.sub(_mask_scheme, text)
    if "=" in text or ":" in text:
        text = _mask_assignments(text)
    if "eyJ" in text:
        text = _JWT.sub(_mask_jwt, text)
    if len(text) >= _SHORTEST_TOKEN:
        for sign, tokens in _TOKENS.items():
            if sign in text:
                for literal, pattern in tokens:
                    if literal in text:
                        text = pattern.sub(MASKED, text)
    return text


def _mask_scheme(match: re.Match[str]) -> str:
    scheme, space, token = match.groups()
    if scheme.lower() == "basic" and not _is_basic_auth(token):
        return match[0]
    return f"{scheme}{space}{MASKED}"


def _is_basic_auth(token: str) -> bool:
    """`Basic` is also an English word: only base64 of `user:password` (RFC 7617, section 2) counts."""
    token = token[:1024].rstrip("=.")
    try:
        return b":" in binascii.a2b_base64(token + "=" * (-len(token) % 4))
    except binascii.Error:
        return False


_KEEP_NAME = rf"\g<1>{MASKED}"


def _mask_assignments(text: str) -> str:
    lowered = text.lower()
    if "cookie" in lowered:
        text = _COOKIE_HEADER.sub(_KEEP_NAME, text)
    if "authorization" in lowered:
        text = _AUTHORIZATION_HEADER.sub(_KEEP_NAME, text)
    for literal, pattern in _ASSIGNMENTS:
        if literal in lowered:
            text = pattern.sub(_KEEP_NAME, text)
    return text


def _mask_jwt(match: re.Match[str]) -> str:
    """`eyJ` is any base64 of a JSON object; a token has at least two parts (RFC 7519, section 3)."""
    return MASKED if "." in match[0][:-1] else match[0]


def _mask_cards(text: str) -> str:
    return _DIGITS.sub(_card_masker(), text)


def _card_masker() -> Callable[[re.Match[str]], str]:
    left = _MOST_CANDIDATES

    def mask(match: re.Match[str]) -> str:
        nonlocal left
        run = match[0]
        if run.isdigit():
            return MASKED if len(run) <= 19 and is_card_number(run) else run
        if left <= 0:
            return MASKED
        masked, checked = _mask_groups(run, left)
        left -= checked
        return masked

    return mask


_CANDIDATE = re.compile(
    r"(?<![0-9])([0-9]{4})(?:[0-9]{9,15}|([ -])[0-9]{4}\2[0-9]{4}\2[0-9]{1,4}(\2[0-9]{3})?"
    r"|([ -])[0-9]{6}\4[0-9]{4,5})(?![0-9])"
)
"""Digits at a stretch, and the ways cards print them: 4-4-4-4, 4-4-4-4-3, 4-6-4, 4-6-5."""


def _mask_groups(run: str, most: int) -> tuple[str, int]:
    """A run of digits with dashes or spaces: as a whole, then each candidate in it, overlapping ones too."""
    if len(run) <= 38 and _is_spaced_card(run):
        return MASKED, 1
    parts: list[str] = []
    kept = checked = place = 0
    while checked < most and (found := _CANDIDATE.search(run, place)) is not None:
        checked += 1
        end = found.end() if _is_spaced_card(found[0]) else 0
        if not end and found[3] and _is_spaced_card(run[found.start() : found.start(3)]):
            end = found.start(3)
        if end:
            parts += run[kept : found.start()], MASKED
            kept = end
        place = end or found.end(1)
    parts.append(run[kept:] if checked < most else MASKED)
    return "".join(parts), checked


def _is_spaced_card(text: str) -> bool:
    digits = text.replace(" ", "").replace("-", "")
    return 13 <= len(digits) <= 19 and is_card_number(digits)


_DOUBLED = bytes.maketrans(b"0123456789", bytes(digit * 2 - 9 * (digit > 4) for digit in range(10)))


def is_card_number(digits: str) -> bool:
    """Issuer prefix and length as the networks publish them, and the checksum of ISO/IEC 7812-1 (Luhn)."""
    if not _has_issuer(digits):
        return False
    raw = digits.encode("ascii")
    plain = raw[-1::-2]
    return (sum(plain) - 48 * len(plain) + sum(raw[-2::-2].translate(_DOUBLED))) % 10 == 0


def _has_issuer(digits: str) -> bool:
    length, two = len(digits), digits[:2]
    match digits[0]:
        case "4":
            return length in (13, 16, 19)  # Visa
        case "3":
            if two in ("34", "37"):
                return length == 15  # American Express
            return two in ("36", "38", "39", "30", "35") and 14 <= length <= 19  # Diners Club, JCB
        case "5":
            return (length == 16 and two <= "55") or two in ("50", "56", "57", "58")  # Mastercard, Maestro
        case "2":
            return length == 16 and "2221" <= digits[:4] <= "2720"  # Mastercard
        case "6":
            return two in ("60", "62", "63", "64", "65", "67") and length >= 16  # Discover, UnionPay, Maestro
        case _:
            return False
