// Unnormalised probabilities of a row of logits at a temperature.
#pragma once

namespace octavo::OCTAVO_ISA {
namespace {

double weights(const float* x, int n, float peak, float factor, float* to) {
    double sum = 0;
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        const f32x8 w = exp8((load8(x + i) - peak) * factor);
        store8(to + i, w);
        sum += sum8(w);
    }
    if (i < n) {
        float rest[8], out[8];
        for (int j = 0; j < 8; j++) rest[j] = i + j < n ? x[i + j] : -__builtin_inff();
        const f32x8 w = exp8((load8(rest) - peak) * factor);
        store8(out, w);
        for (int j = 0; i + j < n; j++) to[i + j] = out[j];
        sum += sum8(w);
    }
    return sum;
}

}  // namespace
}  // namespace octavo::OCTAVO_ISA
