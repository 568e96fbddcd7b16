// Checksum of packed weights, 64 bits: finds bit rot and torn writes at each start, at the speed of memory. Not cryptographic.
#include <cstdint>
#include <cstring>

namespace {

constexpr int LANES = 8;

inline uint64_t mix(uint64_t state, uint64_t word) {  // a bijection of either argument: a changed word changes the state for good
    const uint64_t x = state ^ word;
    return (x << 29 | x >> 35) * 0x9E3779B97F4A7C15u;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) uint64_t octavo_checksum(const uint8_t* bytes, int64_t num_bytes) {
    uint64_t lanes[LANES];
    for (int i = 0; i < LANES; ++i) lanes[i] = uint64_t(i) + 1;
    for (int64_t at = 0; at < num_bytes; at += 8 * LANES) {
        uint64_t words[LANES] = {};
        if (num_bytes - at >= 8 * LANES) std::memcpy(words, bytes + at, 8 * LANES);
        else std::memcpy(words, bytes + at, size_t(num_bytes - at));
        for (int i = 0; i < LANES; ++i) lanes[i] = mix(lanes[i], words[i]);
    }
    uint64_t sum = mix(0, uint64_t(num_bytes));
    for (const uint64_t lane : lanes) sum = mix(sum, lane);
    return sum;
}
