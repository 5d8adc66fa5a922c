// SPDX-License-Identifier: MIT
#ifndef IDEM_DETAIL_REDIS_STREAM_SCRIPTS_HPP
#define IDEM_DETAIL_REDIS_STREAM_SCRIPTS_HPP

// The scripts of a consumer group. Each looks first whether the entry is pending for this consumer:
// XACK and XCLAIM do not ask, and an old owner would take back what another works on.

#include <idem/detail/redis_script.hpp>

namespace idem::inline v0::detail {

/// KEYS: stream. ARGV: group, consumer, ids. Answers 1 for each id that was acked, 0 for one that
/// was not this consumer's. Frees memory, so it runs in a full server too.
inline constexpr RedisScript redis_stream_ack{R"(#!lua flags=allow-oom
local done = {}
for i = 3, #ARGV do
    local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1)
    if #pending == 1 and pending[1][2] == ARGV[2] then
        redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
        done[i - 2] = 1
    else
        done[i - 2] = 0
    end
end
return done
)"};

/// KEYS: stream. ARGV: group, consumer, id, idle time from now on in ms. 0: not this consumer's,
/// and nothing changed. The delivery count stays (JUSTID). An entry that was trimmed is not
/// claimed: XCLAIM would drop it from the pending list without a word (Redis 7.0), and nobody could
/// dead-letter it.
inline constexpr RedisScript redis_stream_keep{R"(#!lua flags=allow-oom
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)
if #pending == 0 or pending[1][2] ~= ARGV[2] then
    return 0
end
if #redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3]) == 1 then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'IDLE', ARGV[4], 'JUSTID')
end
return 1
)"};

/// KEYS: stream, dead stream. ARGV: group, consumer, id, the fields of the dead letter. 0: not this
/// consumer's, and nothing changed. XADD comes first: where it fails, the entry stays pending.
inline constexpr RedisScript redis_stream_dead_letter{R"(#!lua
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)
if #pending == 0 or pending[1][2] ~= ARGV[2] then
    return 0
end
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 4))
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
return 1
)",
                                                      2};

/// KEYS: stream, dead stream. ARGV: group, consumer, idle time in ms, at most, then the fields of a
/// dead letter whose last value, the entry's id, is missing. Takes over what nobody kept alive for
/// that long: {id, delivery count, fields}. An entry that was trimmed meanwhile goes to the dead
/// stream in the same step, and comes without fields: were it only reported, a crash of the
/// reporter would lose it. Writes nothing where the dead stream is none.
inline constexpr RedisScript redis_stream_take_over{R"(#!lua
local kind = redis.call('TYPE', KEYS[2])['ok']
if kind ~= 'none' and kind ~= 'stream' then
    return redis.error_reply('WRONGTYPE the dead stream ' .. KEYS[2] .. ' is a ' .. kind)
end
local fields = {unpack(ARGV, 5)}
local taken = {}
for _, one in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[3], '-', '+', ARGV[4])) do
    local id = one[1]
    local entry = redis.call('XRANGE', KEYS[1], id, id)
    if #entry == 0 then
        fields[#ARGV - 3] = id
        redis.call('XADD', KEYS[2], '*', unpack(fields))
        redis.call('XACK', KEYS[1], ARGV[1], id)
        taken[#taken + 1] = {id, one[4]}
    else
        redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], id, 'RETRYCOUNT', one[4] + 1, 'JUSTID')
        taken[#taken + 1] = {id, one[4] + 1, entry[1][2]}
    end
end
return taken
)",
                                                    2};

} // namespace idem::inline v0::detail

#endif // IDEM_DETAIL_REDIS_STREAM_SCRIPTS_HPP
