// Quantization of activations to int8 in groups of 32, with the scales and sums that a matmul with quantized weights takes.
#pragma once

namespace octavo::OCTAVO_ISA {
namespace {
namespace micro_kernel {

constexpr float SMALLEST_GROUP = 1e-30f;  // a group below counts as zeros: its 127 / max|x| would soon be infinite

// Group `g` of row `row`, GROUP floats at x. max|x| is taken over the floats' bits as integers, where NaN ranks above all: a
// group with a NaN or an infinity gets a NaN for a scale, so that it shows in every result that depends on it.
inline void quantize_group(const float* x, const Activations& to, int row, int g) {
    const size_t at = size_t(row) * to.groups + g;
    const Group group = load_group(x);
    if (to.floats) store(to.floats + at * GROUP, group);
    const float most = largest(group);
    const bool usable = most >= SMALLEST_GROUP && most <= 0x1.fffffep127f;
    const float scale = usable ? most / 127 : most < SMALLEST_GROUP ? 0 : float_of_bits(0x7fc00000);
    int32_t sums[2] = {};
    if (usable)
        round_group(group, 127 / most, to.q + at * GROUP, sums);
    else
        std::memset(to.q + at * GROUP, 0, GROUP);
    to.scales[at] = scale;
    to.offsets[at] = -128 * (sums[0] + sums[1]);
    to.sums[at] = scale * float(sums[0] + sums[1]);
    to.sums_of_16[2 * at] = scale * float(sums[0]);
    to.sums_of_16[2 * at + 1] = scale * float(sums[1]);
}

}  // namespace micro_kernel

// Writes ceil(k / GROUP) groups and nothing else: `to` may be a part of a row that others fill the rest of.
void quantize(const float* x, int k, const Activations& to, int row) {
    OCTAVO_CHECK(0 <= row && 0 <= k && k <= to.groups * GROUP);
    const int whole = k / GROUP, rest = k % GROUP;
    for (int g = 0; g < whole; ++g) micro_kernel::quantize_group(x + g * GROUP, to, row, g);
    if (!rest) return;
    alignas(32) float last[GROUP] = {};
    std::memcpy(last, x + whole * GROUP, rest * sizeof(float));
    micro_kernel::quantize_group(last, to, row, whole);
}

}  // namespace
}  // namespace octavo::OCTAVO_ISA
