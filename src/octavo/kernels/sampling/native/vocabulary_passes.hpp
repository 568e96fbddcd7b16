// Vectorized passes of sampling over the whole vocabulary: exp of the logits, sum and gather above a threshold.
#pragma once

namespace octavo::OCTAVO_ISA {
namespace {

double weights(const float* x, int n, float peak, float factor, float* to) {
    double sum = 0;
    const int whole = n / 8 * 8;
    for (int i = 0; i < whole; i += 8) {
        const f32x8 w = exp8((load8(x + i) - peak) * factor);
        store8(to + i, w);
        sum += sum8(w);
    }
    if (whole < n) {
        float rest[8];
        for (int j = 0; j < 8; j++) rest[j] = whole + j < n ? x[whole + j] : MINUS_INFINITY;
        const f32x8 w = exp8((load8(rest) - peak) * factor);
        store8(to + whole, w);
        sum += sum8(w);
    }
    return sum;
}

double kept_mass(const float* w, int n, float threshold, double* chunks) {
    double sum = 0;
    for (int i = 0, c = 0; i < n; i += SAMPLING_CHUNK, c++) {
        f32x8 total = {};
        for (int j = i; j < i + SAMPLING_CHUNK && j < n; j += 8) {
            const f32x8 v = load8(w + j);
            total += v >= threshold ? v : f32x8{};
        }
        sum += chunks[c] = sum8(total);
    }
    return sum;
}

int gather(const float* w, int n, float threshold, float* to) {
    int count = 0;
    for (int i = 0; i < n; i += 8) {
        const i32x8 is_kept = load8(w + i) >= threshold;
        uint64_t lanes[4];
        std::memcpy(lanes, &is_kept, sizeof lanes);
        if (!(lanes[0] | lanes[1] | lanes[2] | lanes[3])) continue;
        for (int j = i; j < i + 8; j++)
            if (w[j] >= threshold) to[count++] = w[j];
    }
    return count;
}

}  // namespace
}  // namespace octavo::OCTAVO_ISA
