"""What is done to a shard, as scripts that the server runs whole or not at all.

    append        room?  entry and counter                     acknowledge   entries, counter, manifest and lease away
    look          is there a batch to claim?                    dead_letter   one message aside, the rest under its manifest
    claim         lease, batch, manifest                        release       the lease away
    extend        the lease for longer                          depth, count  what there is

Each begins with `#!lua`, so that a cluster refuses a key that is not declared, and builds no key. They are sent whole every
time (a few hundred bytes, beside a message of thousands): a server that was restarted or promoted has forgotten scripts.

A batch is claimed once at a time: the lease is a key with a time to live and the holder's name; the manifest is the list of
its entry ids, and stays until they are acknowledged. A shard with a manifest and without a lease has lost its worker: the
next one gets exactly the entries of the manifest.

All entries are delivered to one consumer of one group, since the lease says who that is at the moment: nothing is left
behind for each worker that ever lived.

Sources: Redis command reference; "Redis Lua API reference" (its flags: acknowledging must be possible when memory is full).
"""

from __future__ import annotations

from typing import Final

import msgspec

from ._slots import ShardKeys

__all__ = [
    "ACKNOWLEDGE",
    "APPEND",
    "CLAIM",
    "COUNT",
    "DEAD_LETTER",
    "DEPTH",
    "EXTEND",
    "LOOK",
    "OVERHEAD",
    "RELEASE",
    "Script",
    "size_of",
]

OVERHEAD: Final = 128
"""Bytes that an entry is counted with beyond its fields: its id, its node in the stream, its place among those claimed."""


class Script(msgspec.Struct, frozen=True):
    """The text, and which keys of a shard it is given, by their names in `ShardKeys`."""

    text: str
    keys: tuple[str, ...]

    def command(self, keys: ShardKeys, *words: bytes | str | int) -> tuple[bytes | str | int, ...]:
        """It as a command on a shard's keys."""
        return ("EVAL", self.text, len(self.keys), *(getattr(keys, name) for name in self.keys), *words)


def size_of(fields: dict[bytes, bytes]) -> int:
    """Bytes that an entry is counted with. The scripts count the same."""
    return OVERHEAD + sum(len(name) + len(value) for name, value in fields.items())


APPEND: Final = Script(
    """#!lua
-- ARGV: bytes the shard may hold, size, field, value, ... An empty shard takes any one message.
local held = tonumber(redis.call('GET', KEYS[2]) or '0')
local size = tonumber(ARGV[2])
if held > 0 and held + size > tonumber(ARGV[1]) then
  if redis.call('XLEN', KEYS[1]) > 0 then return {0, held} end
  redis.call('SET', KEYS[2], 0)  -- somebody else emptied it: nobody is left whose acknowledgement would count it down
end
redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3))
return {1, redis.call('INCRBY', KEYS[2], size)}
""",
    ("entries", "bytes"),
)

_READY = """
-- Whether there is a batch for whoever comes: one that lost its worker, one that is large enough, or one that waited enough.
-- A holder that has the lease already did not get the answer, and asks again.
local function ready(enough_entries, enough_bytes, enough_ms, holder)
  local owner = redis.call('GET', KEYS[3])
  if owner then return owner == holder end
  if redis.call('EXISTS', KEYS[4]) == 1 then return true end
  local entries = redis.call('XLEN', KEYS[1])
  if entries == 0 then return false end
  if entries >= enough_entries or tonumber(redis.call('GET', KEYS[2]) or '0') >= enough_bytes then return true end
  local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1][1]
  local now = redis.call('TIME')
  local age = now[1] * 1000 + math.floor(now[2] / 1000) - tonumber(string.match(first, '^%d+'))
  return age >= enough_ms or age < 0  -- below 0: written by a server whose clock was ahead
end
"""

LOOK: Final = Script(
    f"""#!lua flags=no-writes
-- ARGV: entries, bytes, milliseconds that make a batch.
{_READY}
return ready(tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), '') and 1 or 0
""",
    ("entries", "bytes", "lease", "manifest"),
)

CLAIM: Final = Script(
    f"""#!lua flags=allow-oom
-- ARGV: entries, bytes, milliseconds that make a batch; holder, milliseconds of the lease; attempts after which an entry
-- is tried alone. Returns {{}} or {{{{{{id, fields}}, ...}}, {{attempts, ...}}, how many vanished}}.
{_READY}
local most, bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
if not ready(most, bytes, tonumber(ARGV[3]), ARGV[4]) then return {{}} end
local again = redis.call('GET', KEYS[3]) == ARGV[4]  -- nobody worked on it since: no attempt of its entries
redis.call('SET', KEYS[3], ARGV[4], 'PX', ARGV[5])

local function attempts(first, last, count)  -- of claimed entries, by id
  local found = {{}}
  for _, each in ipairs(redis.call('XPENDING', KEYS[1], 'workers', first, last, count)) do found[each[1]] = each[4] end
  return found
end

local claimed = redis.pcall('XPENDING', KEYS[1], 'workers')
if claimed.err then
  if not string.find(claimed.err, 'NOGROUP') then redis.call('DEL', KEYS[3]); return claimed end
  redis.call('XGROUP', 'CREATE', KEYS[1], 'workers', '0', 'MKSTREAM')
  redis.call('DEL', KEYS[4])
  claimed = {{0}}
end

local entries, vanished = {{}}, 0
local manifest = redis.call('GET', KEYS[4])
if manifest then  -- its worker is gone, or the answer was: the same batch again
  local ids = {{}}
  for id in string.gmatch(manifest, '%S+') do ids[#ids + 1] = id end
  local tried = attempts(ids[1], ids[1], 1)[ids[1]] or 1
  if #ids > 1 and tried >= tonumber(ARGV[6]) and not again then ids = {{ids[1]}} end
  local wanted = #ids
  if again then ids[#ids + 1] = 'RETRYCOUNT'; ids[#ids + 1] = tried end
  entries = redis.call('XCLAIM', KEYS[1], 'workers', 'worker', 0, unpack(ids))
  vanished = wanted - #entries
elseif claimed[1] > 0 then  -- claimed, and in nobody's manifest
  local tried = attempts('-', '+', 1)
  local _, times = next(tried)
  local taken = redis.call('XAUTOCLAIM', KEYS[1], 'workers', 'worker', 0, '0-0',
    'COUNT', times >= tonumber(ARGV[6]) and 1 or most)
  entries, vanished = taken[2], #taken[3]
end
if #entries == 0 then
  local held = tonumber(redis.call('GET', KEYS[2]) or '0')
  local count = math.floor(bytes * redis.call('XLEN', KEYS[1]) / math.max(held, 1))
  local read = redis.call('XREADGROUP', 'GROUP', 'workers', 'worker', 'COUNT', math.max(1, math.min(most, count)),
    'STREAMS', KEYS[1], '>')
  entries = read and read[1][2] or {{}}
end
if vanished > 0 then redis.call('INCRBY', KEYS[5], vanished) end
if #entries == 0 then
  redis.call('DEL', KEYS[3], KEYS[4])
  return {{entries, {{}}, vanished}}
end

local ids, times = {{}}, {{}}
for place, entry in ipairs(entries) do ids[place] = entry[1] end
local tried = attempts(ids[1], ids[#ids], #ids + claimed[1])
for place, id in ipairs(ids) do times[place] = tried[id] or 1 end
redis.call('SET', KEYS[4], table.concat(ids, ' '))
return {{entries, times, vanished}}
""",
    ("entries", "bytes", "lease", "manifest", "lost"),
)

EXTEND: Final = Script(
    """#!lua flags=allow-oom
-- ARGV: holder, milliseconds.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""",
    ("lease",),
)

RELEASE: Final = Script(
    """#!lua flags=allow-oom
-- ARGV: holder.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""",
    ("lease",),
)

_REMOVE = """
-- Takes an entry out; the bytes that are free then. Whoever comes second frees none.
local function remove(id, size)
  redis.call('XACK', KEYS[1], 'workers', id)
  return redis.call('XDEL', KEYS[1], id) == 1 and tonumber(size) or 0
end

-- An empty shard holds nothing, whatever somebody else deleted; its counter stays a key, which a slot on its way to
-- another node must have.
local function free(bytes)
  if redis.call('XLEN', KEYS[1]) == 0 then redis.call('SET', KEYS[2], 0)
  elseif bytes > 0 then redis.call('DECRBY', KEYS[2], bytes) end
end
"""

ACKNOWLEDGE: Final = Script(
    f"""#!lua flags=allow-oom
-- ARGV: holder, id, size, id, size, ... Stored is stored, whoever holds the lease by now.
{_REMOVE}
local ids, freed = {{}}, 0
for place = 2, #ARGV, 2 do
  ids[#ids + 1] = ARGV[place]
  freed = freed + remove(ARGV[place], ARGV[place + 1])
end
free(freed)
if redis.call('GET', KEYS[4]) == table.concat(ids, ' ') then redis.call('DEL', KEYS[4]) end
if redis.call('GET', KEYS[3]) == ARGV[1] then redis.call('DEL', KEYS[3]) end
return freed
""",
    ("entries", "bytes", "lease", "manifest"),
)

DEAD_LETTER: Final = Script(
    f"""#!lua flags=allow-oom
-- ARGV: holder, the rest of its manifest or '', most dead letters, id, size, field, value, ...
-- Returns {{whether the claim is still the holder's, dead letters that made room}}.
{_REMOVE}
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return {{0, 0}} end
redis.call('XLEN', KEYS[6])  -- a key of somebody else ends it here, before anything is done
local made_room = 0
local freed = remove(ARGV[4], ARGV[5])
if freed > 0 then
  redis.call('XADD', KEYS[6], '*', unpack(ARGV, 6))
  local over = redis.call('XLEN', KEYS[6]) - tonumber(ARGV[3])
  if over > 0 then
    for _, oldest in ipairs(redis.call('XRANGE', KEYS[6], '-', '+', 'COUNT', over)) do
      made_room = made_room + redis.call('XDEL', KEYS[6], oldest[1])
    end
    redis.call('INCRBY', KEYS[5], made_room)
  end
end
free(freed)
if ARGV[2] == '' then redis.call('DEL', KEYS[3], KEYS[4]) else redis.call('SET', KEYS[4], ARGV[2]) end
return {{1, made_room}}
""",
    ("entries", "bytes", "lease", "manifest", "lost", "dead"),
)

DEPTH: Final = Script(
    """#!lua flags=no-writes
-- Returns entries, bytes, claimed, dead, lost, milliseconds since the oldest.
local entries = redis.call('XLEN', KEYS[1])
local claimed = redis.pcall('XPENDING', KEYS[1], 'workers')
local age = 0
if entries > 0 then
  local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1][1]
  local now = redis.call('TIME')
  age = now[1] * 1000 + math.floor(now[2] / 1000) - tonumber(string.match(first, '^%d+'))
end
return {entries, tonumber(redis.call('GET', KEYS[2]) or '0'), claimed.err and 0 or claimed[1],
  redis.call('XLEN', KEYS[4]), tonumber(redis.call('GET', KEYS[3]) or '0'), math.max(age, 0)}
""",
    ("entries", "bytes", "lost", "dead"),
)

COUNT: Final = """#!lua flags=allow-oom
-- ARGV: how many shards this side uses. Returns the most that anybody ever used.
local known = tonumber(redis.call('GET', KEYS[1]) or '0')
local mine = tonumber(ARGV[1])
if mine <= known then return known end
redis.call('SET', KEYS[1], mine)
return mine
"""
