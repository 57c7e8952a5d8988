"""All keys of a shard lie in one slot, whatever the prefix; no two prefixes share a key; shards spread over masters."""

from __future__ import annotations

import random
from fnmatch import fnmatchcase

import msgspec
import pytest
from redis.crc import key_slot

from asynctrace._errors import ConfigurationError
from asynctrace.stream import _slots
from asynctrace.stream._slots import SLOTS, ShardKeys, count_key, shard_keys, slot_of

_ALPHABET = "ab{}%:*?[]\\ \n\0é€\ud800" + "0123456789"


def _prefixes(count: int) -> list[str]:
    chance = random.Random(20)
    return ["".join(chance.choices(_ALPHABET, k=chance.randint(1, 12))) for _ in range(count)]


def _names(keys: ShardKeys) -> list[str]:
    return [name for name in msgspec.structs.astuple(keys) if isinstance(name, str)]


def _breaks(prefixes: list[str]) -> list[str]:
    """Prefixes whose keys are not as promised. The slots are those that redis-py computes."""
    wrong = []
    for prefix in prefixes:
        for shard in (7, 100):
            keys = shard_keys(prefix, shard)
            names = _names(keys)
            slots = {key_slot(name.encode()) for name in names}
            good = (
                slots == {keys.slot} == {key_slot(f"{shard:02d}".encode())}
                and len(set(names)) == 6
                and all(name.count("{") == name.count("}") == 1 for name in names)
                and fnmatchcase(keys.entries, keys.entries)
            )
            wrong += [] if good else [prefix]
    return wrong


def test_ten_thousand_prefixes_keep_each_shard_in_one_slot() -> None:
    assert _breaks(_prefixes(10_000)) == []


def test_no_two_prefixes_share_a_key() -> None:
    prefixes = sorted({*_prefixes(10_000), "a{b", "a%7Bb", "a%257Bb"})
    names = [name for prefix in prefixes for name in (*_names(shard_keys(prefix, 7)), count_key(prefix))]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("escape", ["a prefix that stands as it is", "braces that are taken out"])
def test_a_wrong_escape_is_caught(escape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(prefix: str) -> str:
        return prefix if escape.startswith("a prefix") else prefix.replace("{", "").replace("}", "")

    monkeypatch.setattr(_slots, "escape_prefix", broken)
    prefixes = ["a{b}", "ab"]
    same = shard_keys("a{b}", 7).entries == shard_keys("ab", 7).entries
    assert _breaks(prefixes) or same


def test_slots_are_those_of_redis() -> None:
    chance = random.Random(21)
    keys = ["".join(chance.choices("{}ab", k=chance.randint(0, 8))) for _ in range(2_000)]
    assert [slot_of(key) for key in keys] == [key_slot(key.encode()) for key in keys]
    assert slot_of("{}x") == key_slot(b"{}x") != slot_of("")


def test_shards_spread_over_masters() -> None:
    for masters in (3, 4, 6):
        homes = [shard_keys("at", shard).slot * masters // SLOTS for shard in range(64)]
        counts = [homes.count(home) for home in range(masters)]
        assert max(counts) / min(counts) < 2, counts


def test_an_empty_prefix_is_refused_with_a_correct_one() -> None:
    with pytest.raises(ConfigurationError, match='prefix="at"'):
        shard_keys("", 0)
