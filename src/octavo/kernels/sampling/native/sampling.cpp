// Sampling of a token with temperature, top-k, min-p and top-p, without sorting the vocabulary.
//
// The few tokens with a sizeable share of the most likely one's probability are gathered and put in order; only where the cuts
// fall below them is the bound lowered.
#include "sampling.hpp"

#include <algorithm>
#include <cmath>

namespace octavo {
namespace {

struct Vocabulary {
    const KernelTable& table;
    const float* w;  // [n], padded with zeros to eight; the largest is 1
    int n;
    double mass;
    double* chunks;  // [n / SAMPLING_CHUNK]
    float* room;     // [n]
};

double sum_of(const float* w, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += w[i];
    return sum;
}

// The largest value for which the w that are at least as large sum to `target`; the smallest of them if they never do. A quickselect
// by mass: w[n] is put into another order.
float value_at_mass(float* w, int n, double target) {
    float *low = w, *high = w + n;
    while (high - low > 16) {
        const float a = low[0], b = low[(high - low) / 2], c = high[-1];
        const float pivot = std::max(std::min(a, b), std::min(std::max(a, b), c));
        float* above = std::partition(low, high, [pivot](float x) { return x > pivot; });
        const double mass = sum_of(low, int(above - low));
        if (mass >= target) {
            high = above;
            continue;
        }
        float* equal = std::partition(above, high, [pivot](float x) { return x == pivot; });
        target -= mass + double(pivot) * double(equal - above);
        if (target <= 0 || equal == high) return pivot;
        low = equal;
    }
    std::sort(low, high, [](float x, float y) { return x > y; });
    while (low < high - 1 && (target -= *low) > 0) low++;
    return *low;
}

// The smallest weight that stays: that of the last token needed, ties included. Weights below `bound` were not gathered;
// -1 if a cut falls below it.
float threshold_among(const Vocabulary& v, const SamplingRow& how, int count, float bound) {
    float threshold = how.min_p;
    if (how.top_k < v.n) {
        if (count < how.top_k) return -1;
        float* kth = v.room + how.top_k - 1;
        std::nth_element(v.room, kth, v.room + count, [](float x, float y) { return x > y; });
        threshold = std::max(threshold, *kth);
    }
    if (how.top_p >= 1) return threshold;
    const int kept = int(std::partition(v.room, v.room + count, [threshold](float x) { return x >= threshold; }) - v.room);
    const double mass = sum_of(v.room, kept);  // of the tokens gathered that the other cuts leave
    const bool all_there = threshold >= bound;
    double whole = mass;
    if (!all_there) whole = threshold > 0 ? v.table.kept_mass(v.w, v.n, threshold, v.chunks) : v.mass;
    if (!all_there && mass < how.top_p * whole) return -1;
    return kept ? value_at_mass(v.room, kept, how.top_p * whole) : threshold;
}

float threshold_of(const Vocabulary& v, const SamplingRow& how) {
    if (how.top_k >= v.n && how.top_p >= 1) return how.min_p;
    for (const float bound : {0x1p-6f, 0x1p-12f}) {
        const int count = v.table.gather(v.w, v.n, bound, v.room);
        const float threshold = threshold_among(v, how, count, bound);
        if (threshold >= 0) return threshold;
    }
    std::copy(v.w, v.w + v.n, v.room);
    return threshold_among(v, how, v.n, 0);
}

// The first index up to which the weights from `threshold` on sum to more than the share `uniform` of their whole.
int draw(const Vocabulary& v, float threshold, double uniform) {
    const double target = uniform * v.table.kept_mass(v.w, v.n, threshold, v.chunks);
    const int num_chunks = (v.n + SAMPLING_CHUNK - 1) / SAMPLING_CHUNK;
    double before = 0;
    int chunk = 0, last = -1;
    for (; chunk < num_chunks && before + v.chunks[chunk] <= target; chunk++) {
        if (v.chunks[chunk] > 0) last = chunk;
        before += v.chunks[chunk];
    }
    if (chunk == num_chunks) chunk = last;  // rounding left nothing above the target: the last entry that added something
    int token = 0;
    for (int i = chunk * SAMPLING_CHUNK; i < v.n && i < (chunk + 1) * SAMPLING_CHUNK; i++) {
        if (v.w[i] < threshold || v.w[i] == 0) continue;
        token = i;
        if ((before += v.w[i]) > target) break;
    }
    return token;
}

size_t padded(int n) { return (size_t(n) + 15) / 16 * 16; }

}  // namespace

size_t sampling_scratch(int n) { return 2 * padded(n) + 2 * padded(n / SAMPLING_CHUNK + 1) + 16; }

int choose_token(const KernelTable& table, const float* logits, int n, float peak, const SamplingRow& how, float* scratch) {
    if (!std::isfinite(peak)) return -1;
    float *w = scratch, *room = w + padded(n);
    const double mass = table.weights(logits, n, peak, 1.0f / how.temperature, w);
    if (!std::isfinite(mass)) return -1;
    const Vocabulary v = {table, w, n, mass, reinterpret_cast<double*>(room + padded(n)), room};
    return draw(v, threshold_of(v, how), how.uniform);
}

}  // namespace octavo
