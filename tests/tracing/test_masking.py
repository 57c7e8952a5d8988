"""Secrets are taken out by name and by value, before anything else sees them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial

import pytest

from asynctrace import _errors
from asynctrace.tracing._masking import MASKED, MASKER_FAILED, Masker

SECRET_NAMES = """
password passwd pwd db_password userPassword DBPassword PASSWORD_HASH dbpassword pass smtp_pass
secret client_secret clientSecret AWS_SECRET_ACCESS_KEY
token access_token accessToken refresh-token session_token x-csrf-token authtoken api_tokens
api_key apikey api-key X-Api-Key APIKey openaiApiKey private_key privateKey access_key access_key_id
authorization Authorization Proxy-Authorization auth x-auth
cookie Cookie set-cookie Set-Cookie credential credentials user_credentials
jwt otp cvv ssn card_number connection_string
"""

HARMLESS_NAMES = """
input_tokens max_tokens token_count tokens total_tokens completion_tokens tokens_per_second token_type
token_limit cost_per_token time_to_first_token eos_token pad_token next_page_token
author authors authority authored_at author_key auth_type auth_method authorization_endpoint
key keys primary_key cache_key foreign_key keyboard monkey bypass passed passenger compass pass_rate
secretary session_id user_id name q path url
"""

# Built from halves, so that no scanner of repositories takes these for real.
SECRETS = {
    "bearer": ("Bearer " + "abcdef123456", "abcdef123456"),
    "bearer in lower case": ("authorization: bearer abc-DEF_12.34~x", "abc-DEF_12.34~x"),
    "basic": ("Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    "URL with a password": ("postgres://bob:hunter2@db.example:5432/shop", "hunter2"),
    "URL with only a password": ("redis://:hunter2@cache.example", "hunter2"),
    "password with an at sign": ("https://bob:hun@ter2@h.example/", "ter2"),
    "AWS": ("AKIA" + "IOSFODNN7EXAMPLE", "IOSFODNN7EXAMPLE"),
    "AWS session": ("ASIA" + "IOSFODNN7EXAMPLE", "IOSFODNN7EXAMPLE"),
    "GCP": ("AIza" + "SyA-1234567890abcdefghijklmnopqrstu", "SyA-12345"),
    "GCP OAuth": ("ya29." + "a0AfH6SMBx1234567890abcd", "a0AfH6SMB"),
    "Azure storage": ("AccountName=a;AccountKey=" + "Zm9vYmFyYmF6cXV4" + "==;", "Zm9vYmFyYmF6cXV4"),
    "Azure client": ("abc8Q~" + "d" * 34, "d" * 34),
    "Azure signature": ("https://x.example/c?sv=1&sig=" + "abcDEF123%3D&se=2", "abcDEF123"),
    "GitHub": ("ghp_" + "abcdefghijklmnopqrstuvwxyz0123456789", "abcdefghijklm"),
    "GitHub fine-grained": ("github_pat_" + "11ABCDEFG0123456789_abcdefgh", "11ABCDEFG0"),
    "GitLab": ("glpat-" + "abcdefghij0123456789", "abcdefghij01"),
    "Slack": ("xoxb-" + "123456789012-abcdefABCDEF", "abcdefABCDEF"),
    "Slack hook": ("https://hooks.slack.com/services/" + "T00000000/B00000000/XXXXXXXXXXXXXXXX", "XXXXXXXX"),
    "OpenAI": ("sk-" + "proj-abcdefghijklmnop0123456789", "abcdefghijklmnop"),
    "Anthropic": ("sk-ant-" + "api03-abcdefghijklmnop-0123456789", "abcdefghijklmnop"),
    "Stripe": ("sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc", "4eC39HqLyjWD"),
    "Stripe restricted": ("rk_test_" + "4eC39HqLyjWDarjtT1zdp7dc", "4eC39HqLyjWD"),
    "JWT": ("eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN", "dozjgNryP4J3"),
    "PEM": ("-----BEGIN RSA PRIVATE KEY-----\nMIIEabc\n-----END RSA PRIVATE KEY-----", "MIIEabc"),
    "PEM cut short": ("-----BEGIN PRIVATE KEY-----\nMIIEabc\nxyz", "MIIEabc"),
    "card": ("4111111111111111", "4111111111111111"),
    "card with spaces": ("4111 1111 1111 1111", "1111 1111"),
    "card with dashes": ("5500-0055-5555-5559", "0055"),
    "card of 15": ("3782-822463-10005", "822463"),
    "card of 19": ("6304 0000 0000 0000 000", "0000 0000"),
    "card behind other digits": ("1234 4111 1111 1111 1111", "4111 1111"),
    "two cards": ("4111 1111 1111 1111 4111 1111 1111 1111", "1111"),
    "query": ("https://x.example/?token=abc9&q=tea", "abc9"),
    "keyword": ("connect(password=hunter2)", "hunter2"),
    "JSON in a text": ('{"password": "hunter two", "q": "tea"}', "hunter two"),
    "JSON in JSON": ('{\\"api_key\\": \\"hunter2\\"}', "hunter2"),
    "repr": ("{'client_secret': 'hunter2'}", "hunter2"),
    "YAML": ("password: hunter2", "hunter2"),
    "cookies": ("Cookie: theme=dark; sid=hunter2", "hunter2"),
    "other scheme": ("Authorization: Token hunter2", "hunter2"),
}

HARMLESS = [
    "retrieve documents",
    "tea",
    "Basic understanding of the bearer of bad news",
    "bearer authentication is required",
    "task-management-for-software-teams",
    "https://example.com/a/b?q=tea&page=2",
    "mail bob@example.com: hello",
    "2024-01-02T03:04:05.123456789Z",
    "550e8400-e29b-41d4-a716-446655440000",
    "order 4111111111111112",  # wrong checksum
    "9999999999999995",  # right checksum, no issuer
    "0.4111111111111111",
    "1700000000000 1700000000000000000",
    "def f(token: str) -> None",
    "Unexpected token: end of input",
    "input_tokens=12 max_tokens: 300",
    "eyJhIjoxfQ",
    "-----BEGIN",
]


def leaks(masker: Masker) -> list[str]:
    return [name for name, (text, core) in SECRETS.items() if core in masker.mask_text(f"before {text} after")]


@pytest.mark.parametrize("name", SECRET_NAMES.split())
def test_a_name_of_a_secret_masks_its_value(name: str) -> None:
    assert Masker().is_secret_key(name)
    assert Masker().mask_value(name, "tea") == MASKED


@pytest.mark.parametrize("name", ["", "ключ", *HARMLESS_NAMES.split()])
def test_a_name_that_only_resembles_one_does_not(name: str) -> None:
    assert not Masker().is_secret_key(name)
    assert Masker().mask_value(name, "tea") == "tea"


def test_no_known_kind_of_secret_is_left_in_a_text() -> None:
    assert leaks(Masker()) == []


def test_a_masker_of_names_only_would_be_caught() -> None:
    assert len(leaks(Masker(enabled=False))) == len(SECRETS)


@pytest.mark.parametrize("text", HARMLESS)
def test_an_ordinary_text_is_returned_as_it_is(text: str) -> None:
    assert Masker().mask_text(text) is text


def test_what_stands_around_a_secret_stays() -> None:
    masker = Masker()
    assert masker.mask_text("postgres://bob:hunter2@db.example/shop") == f"postgres://{MASKED}@db.example/shop"
    assert masker.mask_text("?token=abc9&q=tea") == f"?token={MASKED}&q=tea"
    assert masker.mask_text("pay 4111 1111 1111 1111 now") == f"pay {MASKED} now"
    assert masker.mask_text('{"password": "a b", "q": "tea"}') == f'{{"password": "{MASKED}", "q": "tea"}}'


def test_masking_twice_changes_nothing_more() -> None:
    masker = Masker()
    for text, _ in SECRETS.values():
        once = masker.mask_text(text)
        assert masker.mask_text(once) == once


def test_a_card_number_is_masked_as_an_integer_too() -> None:
    masker = Masker()
    assert masker.mask_int(4111111111111111) == MASKED
    assert masker.mask_int(4111111111111112) == 4111111111111112
    assert masker.mask_int(1700000000000000000) == 1700000000000000000
    assert Masker(enabled=False).mask_int(4111111111111111) == 4111111111111111


HOSTILE = [
    "bearer ",
    "Basic aaaa ",
    "eyJ",
    "eyJabcdef.",
    "4",
    "4 ",
    "4444 ",
    "4111111111111112 ",
    "4-",
    "sk-",
    "gl-gla-",
    "://",
    "://a:b",
    "://a:b@",
    "-----BEGIN A-----",
    "-----BEGIN ",
    "-----",
    "password=",
    "password: ",
    'token":"',
    "token        ",
    "secret='a",
    "AKIA",
    "1.1",
    "ghp_",
    "Q~",
    "api_key",
    ":=@",
    "hooks.slack.com/a",
    "Cookie: a",
    "Cookie: a=",
    "Authorization: a ",
    "token:" + "a" * 60 + " ",
    "SG.aaaaaaaaaaaaaaaaaaaaa",
    "xox",
    "?sig",
    "\\",
]


@pytest.mark.parametrize("part", HOSTILE)
def test_a_hostile_text_of_256_kb_costs_no_more_than_looking_at_each_character_twenty_times(part: str) -> None:
    check_cost(Masker().mask_text, part, 256 * 1024)


def check_cost(mask: Callable[[str], object], part: str, size: int, attempts: int = 5) -> None:
    for text in ((part * (size // len(part) + 1))[:size], "x@ ://y: = " + part + "a" * size):
        rounds = [(seconds(mask, text), seconds(look_at_each, text)) for _ in range(attempts)]
        ours, plain = map(min, zip(*rounds, strict=True))
        assert ours < 20 * plain


def test_an_expression_that_looks_back_from_each_place_is_noticed() -> None:
    with pytest.raises(AssertionError):
        check_cost(partial(re.sub, r"(\w+\s?)+=", "="), "a", 24, attempts=1)


def look_at_each(text: str) -> int:
    return sum(character == "a" for character in text)


def seconds(work: Callable[[str], object], text: str) -> float:
    start = time.thread_time()
    work(text)
    return time.thread_time() - start


def test_what_is_remembered_is_bounded_and_holds_no_secret() -> None:
    masker = Masker()
    for text, _ in SECRETS.values():
        masker.is_secret_key(text)
    for number in range(20_000):
        masker.is_secret_key(f"field_{number}")
    masker.is_secret_key("x" * 100_000)
    remembered = masker._decisions
    assert len(remembered) <= 4096
    assert not any(core in name for name in remembered for _, core in SECRETS.values())
    assert all(len(name) <= 128 for name in remembered)


def test_further_names_and_values_can_be_given() -> None:
    masker = Masker(keys=["^iban$"], values=[r"EMP-\d+"])
    assert masker.mask_value("IBAN", "x") == MASKED
    assert masker.mask_value("note", "see EMP-1234 please") == f"see {MASKED} please"


@pytest.mark.parametrize("options", [{"keys": ["("]}, {"values": ["("]}, {"custom": 3}])
def test_a_setting_that_cannot_work_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(_errors.ConfigurationError):
        Masker(**options)  # type: ignore[arg-type]


def test_false_turns_masking_off_and_none_means_the_built_in_rules() -> None:
    off = Masker.from_option(False)
    assert off.mask_value("password", "Bearer abcdef123456") == "Bearer abcdef123456"
    assert Masker.from_option(None).mask_value("password", "x") == MASKED


def test_a_custom_masker_comes_after_the_built_in_rules() -> None:
    seen: list[tuple[str, str]] = []

    def custom(key: str, text: str) -> str:
        seen.append((key, text))
        return text.replace("Bob", "B.")

    masker = Masker.from_option(custom)
    assert masker.mask_value("note", "Bob: Bearer abcdef123456") == f"B.: Bearer {MASKED}"
    assert seen == [("note", f"Bob: Bearer {MASKED}")]


@pytest.mark.parametrize("answer", [None, 3, b"x", ZeroDivisionError()])
def test_a_custom_masker_that_fails_redacts_its_field_and_only_that(answer: object) -> None:
    errors: list[BaseException] = []

    def custom(key: str, text: str) -> str:
        if key != "bad":
            return text
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]

    masker = Masker.from_option(custom, errors.append)
    assert masker.mask_value("bad", "raw") == MASKER_FAILED
    assert masker.mask_value("good", "tea") == "tea"
    assert len(errors) == 1


def test_an_interrupt_inside_a_custom_masker_passes() -> None:
    def custom(key: str, text: str) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Masker.from_option(custom).mask_value("a", "b")
