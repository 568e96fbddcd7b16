// Quantization of float weights in groups of 32: symmetric 8-bit (scale), asymmetric 4-bit (scale and min by least squares).
//
// Scales are chosen as they will be stored, float16 or float32. Included by pack_weights.cpp alone.
#pragma once

#include "ggml_blocks.hpp"

namespace octavo {
namespace {

enum Result : int { OK = 0, UNSUPPORTED = 1, WRONG_SIZE = 2, NOT_FINITE = 3, SCALE_RANGE = 4 };

// The value that the matrix will hold for a scale or min; float16 is rounded to nearest.
bool as_stored(ScaleType type, float* x) {
    if (type == ScaleType::F32) return true;
    uint16_t h;
    const bool fits = nearest_f16(*x, &h);
    *x = f16_to_float(h);
    return fits;
}

// The same for a scale >= 0: where float16 has few bits left (subnormals) it is rounded up, so that the grid still reaches
// every weight.
bool scale_as_stored(ScaleType type, float* x) {
    if (type == ScaleType::F16 && *x < 0x1p-14f) *x = std::ceil(*x * 0x1p24f) * 0x1p-24f;
    return as_stored(type, x);
}

float nearest(float x) {  // |x| < 2^22; ties to even, without a call into the C library
    return (x + 0x1.8p23f) - 0x1.8p23f;
}

float clamp(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

void set_byte(Group* group, int index, int value) { group->words[index / 4] |= uint32_t(value & 0xFF) << 8 * (index % 4); }

// Symmetric: scale = max|x| / 127.
Result quantize_q8(const float* x, int count, ScaleType type, Group* out) {
    float largest = 0;
    for (int i = 0; i < count; ++i) largest = std::fabs(x[i]) > largest ? std::fabs(x[i]) : largest;
    float scale = largest / 127.f;
    if (!scale_as_stored(type, &scale)) return SCALE_RANGE;
    *out = {};
    out->scale[0] = scale;
    if (scale == 0) return OK;
    for (int i = 0; i < count; ++i) set_byte(out, i, int(clamp(nearest(x[i] / scale), -127.f, 127.f)));
    return OK;
}

// 32 elements, of which the first `count` are real; the others have weight 0 in every sum.
constexpr int VECTORS = GROUP / 4;
typedef float f32x4 __attribute__((vector_size(16)));

struct Elements {
    f32x4 x[VECTORS], weight[VECTORS];
    float count;
};

struct Fit {
    float scale, min, error;
    f32x4 q[VECTORS];
};

float total(f32x4 v) { return (v[0] + v[1]) + (v[2] + v[3]); }

// q for this scale and min, and the squared error.
void assign(const Elements& e, Fit* fit) {
    const float inverse = fit->scale > 1e-37f ? 1 / fit->scale : 0;  // of a smaller one it would be infinite
    f32x4 error = {};
    for (int i = 0; i < VECTORS; ++i) {
        f32x4 q = (e.x[i] - fit->min) * inverse;
        q = q < 0.f ? f32x4{} : q > 15.f ? f32x4{} + 15.f : q;
        q = (q + 0x1.8p23f) - 0x1.8p23f;
        const f32x4 miss = (fit->scale * q + fit->min - e.x[i]) * e.weight[i];
        fit->q[i] = q;
        error += miss * miss;
    }
    fit->error = total(error);
}

// Scale and min of least squared error for the q that `fit` has.
void refit(const Elements& e, Fit* fit) {
    f32x4 q_sum = {}, qq_sum = {}, x_sum = {}, xq_sum = {};
    for (int i = 0; i < VECTORS; ++i) {
        const f32x4 q = fit->q[i] * e.weight[i], x = e.x[i] * e.weight[i];
        q_sum += q, qq_sum += q * q, x_sum += x, xq_sum += x * q;
    }
    const float sum_q = total(q_sum), sum_x = total(x_sum);
    const float determinant = e.count * total(qq_sum) - sum_q * sum_q;
    if (determinant <= 0) return;
    const float scale = (e.count * total(xq_sum) - sum_x * sum_q) / determinant;
    fit->scale = scale > 0 ? scale : 0;
    fit->min = (sum_x - fit->scale * sum_q) / e.count;
}

// Asymmetric, 4 bits: from lowest to highest, and some grids a little wider or narrower, each refitted by least squares; the one
// of least squared error as it will be stored.
Result quantize_u4(const float* x, int count, ScaleType type, Group* out) {
    constexpr float STEPS[] = {15.f, 13.6f, 14.2f, 14.6f, 15.4f, 15.8f, 16.4f};
    float low = x[0], high = x[0];
    Elements elements = {};
    elements.count = float(count);
    for (int i = 0; i < count; ++i) {
        low = x[i] < low ? x[i] : low, high = x[i] > high ? x[i] : high;
        elements.x[i / 4][i % 4] = x[i];
        elements.weight[i / 4][i % 4] = 1;
    }
    Fit best = {};
    best.error = INFINITY;
    for (int round = 0; round < 8; ++round) {  // round 0: the plain grid; then every grid refitted
        Fit fit = {};
        fit.scale = (high - low) / STEPS[round > 0 ? round - 1 : 0];
        fit.min = low;
        if (round > 0) {
            assign(elements, &fit);
            refit(elements, &fit);
        }
        if (!scale_as_stored(type, &fit.scale) || !as_stored(type, &fit.min)) continue;
        assign(elements, &fit);
        if (fit.error < best.error) best = fit;
    }
    if (!(best.error < INFINITY)) return SCALE_RANGE;
    *out = {};
    out->scale[0] = best.scale;
    out->min[0] = best.min;
    for (int i = 0; i < count; ++i) set_byte(out, i, int(best.q[i / 4][i % 4]));
    return OK;
}

}  // namespace
}  // namespace octavo
