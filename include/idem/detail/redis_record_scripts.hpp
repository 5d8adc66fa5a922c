// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_REDIS_RECORD_SCRIPTS_HPP
#define IDEM_DETAIL_REDIS_RECORD_SCRIPTS_HPP

// The transitions of a record, each one atomic step on the server. Offsets are those of
// redis_record.hpp, counted from 1 as Lua does.

#include <idem/detail/redis_script.hpp>

namespace idem::inline v0::detail {

/// Claims what a plain SET NX did not: another's record, and tokens.
/// KEYS k · ARGV: record of the claim, px = lease + grace, max_attempts (0: none), whether the
/// record may be new (1, 0). Answers: an integer: claimed fresh, the key's expiry · T record
/// expiry: claimed (expiry where the fence is 0) · P left: in progress · C record expiry: completed
/// · X: conflict · D attempts: dead · K: parked · U, S, E: token unknown, spent, expired · a
/// string: no record of this format. Invariants: one nonce owns the key, and only an ended lease,
/// or a free key, changes that; the fence grows; attempts never shrink here; a fingerprint once
/// bound stays; a record of another format is never written. Not allowed out of memory: it may make
/// a key.
inline constexpr RedisScript redis_claim_script{R"(#!lua
local k, a = KEYS[1], ARGV[1]
local function holder(r)
  if string.byte(r, 4) % 2 == 1 then return string.sub(r, 58, 73) end
  return ''
end
local v
if ARGV[4] == '1' then
  v = redis.call('SET', k, a, 'NX', 'GET', 'PX', ARGV[2])
  if not v then return redis.call('PEXPIRETIME', k) end
else
  v = redis.call('GET', k)
  if not v then return {'U'} end
end
local s = string.sub(v, 3, 3)
if string.sub(v, 1, 2) ~= 'I1' then return v end
if s == 'C' then return {'C', v, redis.call('PEXPIRETIME', k)} end
if #v < 57 or not string.find('PFKDLT', s, 1, true) then return v end
if s == 'P' and string.sub(v, 5, 20) == string.sub(a, 5, 20) then
  return {'T', v, redis.call('PEXPIRETIME', k)}
end
local mine = holder(a)
if mine == '' then
  mine = holder(v)
elseif s ~= 'T' and holder(v) ~= mine then
  return {'S'}
end
if s == 'P' or s == 'T' then
  local left = redis.call('PTTL', k) - struct.unpack('>I5', v, 41)
  if s == 'P' and left > 0 then return {'P', left} end
  if s == 'T' and left <= 0 then return {'E'} end
end
local bound, asked = string.sub(v, 21, 40), string.sub(a, 21, 40)
local algorithm = string.sub(bound, 1, 4)
if algorithm == '\0\0\0\0' then
  bound = asked
elseif algorithm == string.sub(asked, 1, 4) and bound ~= asked then
  return {'X'}
end
if s == 'K' then return {'K'} end
local attempts, limit = struct.unpack('>I4', v, 46), tonumber(ARGV[3])
if limit > 0 and attempts >= limit then
  if s == 'P' then redis.call('SETRANGE', k, 2, 'L') end
  if s == 'F' then redis.call('SETRANGE', k, 2, 'D') end
  return {'D', attempts}
end
local time = redis.call('TIME')
local fence, last = time[1] * 1000000 + time[2], struct.unpack('>I8', v, 50)
if fence <= last then fence = last + 1 end
local form = 48
if mine ~= '' then form = form + 1 end
if s == 'P' or s == 'L' then form = form + 2 end
local r = 'I1P' .. string.char(form) .. string.sub(a, 5, 20) .. bound .. string.sub(a, 41, 45)
  .. struct.pack('>I4I8', attempts + 1, fence) .. mine
redis.call('SET', k, r, 'PX', ARGV[2])
return {'T', r, 0}
)"};

/// The owner's way out: complete, abandon, refund, park.
/// KEYS k · ARGV: ticket, the record that follows, its px. Answers: 1 valid, 0 outdated.
/// Invariant: nothing but the exact record of the claim is replaced, so a repeat, and a ticket that
/// was overtaken, change nothing. L is the claim's record too: only a lapsed owner was in the way.
/// Allowed out of memory: it ends what a claim began.
inline constexpr RedisScript redis_replace_script{R"(#!lua flags=allow-oom
local call, k, ticket, record = redis.call, KEYS[1], ARGV[1], ARGV[2]
local v = call('GET', k)
if v == ticket or v == 'I1L' .. string.sub(ticket, 4) then
  call('SET', k, record, 'PX', ARGV[3])
  return 1
end
return v == record and 1 or 0
)"};

/// The same for many keys in one call, which costs as much as the two commands that it runs: half
/// of the server's time in a batch.
/// KEYS any number · ARGV for each: ticket, record, px. Answers for each: 1, 0, or its key's error.
inline constexpr RedisScript redis_replace_each_script{R"(#!lua flags=allow-oom
local call, keys, args, states = redis.pcall, KEYS, ARGV, {}
local at = 1
for i = 1, #keys do
  local k, ticket, record = keys[i], args[at], args[at + 1]
  local v, state = call('GET', k), 0
  if v == ticket or v == 'I1L' .. string.sub(ticket, 4) then
    local done = call('SET', k, record, 'PX', args[at + 2])
    state = done.err and done or 1
  elseif v == record then
    state = 1
  elseif type(v) == 'table' then
    state = v
  end
  states[i] = state
  at = at + 3
end
return states
)",
                                                       1,
                                                       4};

/// KEYS k · ARGV: ticket, px = lease + grace. Answers: 1 valid, 0 outdated.
/// Invariant: moves the expiry of the exact record of the claim, and of nothing else.
inline constexpr RedisScript redis_renew_script{R"(#!lua flags=allow-oom
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
)"};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_REDIS_RECORD_SCRIPTS_HPP
