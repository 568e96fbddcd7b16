// Truncated sampling without sorting the vocabulary: a histogram of the weights by their leading bits finds the bucket in which
// a cut falls, and only that bucket is put in order.
#include "sampling.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace octavo {
namespace {

struct Weights {
    const float* w;
    int n;
};

struct Histogram {
    double mass[SAMPLING_BUCKETS];
    int32_t count[SAMPLING_BUCKETS];
};

int bucket_of(float w) {
    uint32_t bits;
    std::memcpy(&bits, &w, sizeof bits);
    return int(bits >> 17);  // weights are in [0, 1]: their order is the order of their bits
}

void fill(Histogram& h, Weights all) {
    std::memset(&h, 0, sizeof h);
    for (int i = 0; i < all.n; i++) {
        const int b = bucket_of(all.w[i]);
        h.mass[b] += all.w[i];
        h.count[b]++;
    }
}

// The weights of one bucket, largest first.
int gather(Weights all, int bucket, float* to) {
    int m = 0;
    for (int i = 0; i < all.n; i++)
        if (bucket_of(all.w[i]) == bucket) to[m++] = all.w[i];
    std::sort(to, to + m, [](float a, float b) { return a > b; });
    return m;
}

// The k-th largest weight.
float kth_largest(Weights all, const Histogram& h, int k, float* room) {
    int b = SAMPLING_BUCKETS - 1, above = 0;
    while (b > 0 && above + h.count[b] < k) above += h.count[b--];
    const int m = gather(all, b, room);
    return room[std::min(k - above, m) - 1];
}

double mass_from(Weights all, float threshold) {
    double sum = 0;
    for (int i = 0; i < all.n; i++)
        if (all.w[i] >= threshold) sum += all.w[i];
    return sum;
}

// The smallest weight that is needed, largest first, for a share top_p of the mass of the weights from `threshold` on.
float nucleus(Weights all, const Histogram& h, float threshold, double top_p, float* room) {
    const double target = top_p * mass_from(all, threshold);
    int b = SAMPLING_BUCKETS - 1;
    double above = 0;
    for (const int last = bucket_of(threshold); b > last && above + h.mass[b] < target; b--) above += h.mass[b];
    const int m = gather(all, b, room);
    int i = 0;
    for (; i < m - 1; i++)
        if ((above += room[i]) >= target) break;
    return std::max(threshold, room[i]);
}

float threshold_of(Weights all, const SamplingRow& how, float* scratch) {
    float threshold = how.min_p;
    if (how.top_k >= all.n && how.top_p >= 1) return threshold;
    Histogram& h = *reinterpret_cast<Histogram*>(scratch);
    float* room = scratch + sizeof(Histogram) / sizeof(float);
    fill(h, all);
    if (how.top_k < all.n) threshold = std::max(threshold, kth_largest(all, h, how.top_k, room));
    if (how.top_p < 1) threshold = nucleus(all, h, threshold, how.top_p, room);
    return threshold;
}

// The first index up to which the weights from `threshold` on sum to more than the share `uniform` of their whole.
int draw(Weights all, float threshold, double uniform) {
    const double target = uniform * mass_from(all, threshold);
    double running = 0;
    int last = 0;
    for (int i = 0; i < all.n; i++) {
        if (all.w[i] < threshold || all.w[i] == 0) continue;
        running += all.w[i];
        last = i;
        if (running > target) return i;
    }
    return last;  // rounding left nothing above the target
}

}  // namespace

size_t sampling_scratch(int n) { return sizeof(Histogram) / sizeof(float) + 2 * size_t(n) + 64; }

int choose_token(const Table& table, const float* logits, int n, float peak, const SamplingRow& how, float* scratch) {
    if (!std::isfinite(peak)) return -1;
    float* w = scratch + (sampling_scratch(n) - size_t(n) - 16);
    const double total = table.weights(logits, n, peak, 1.0f / how.temperature, w);
    if (!std::isfinite(total)) return -1;
    const Weights all = {w, n};
    return draw(all, threshold_of(all, how, scratch), how.uniform);
}

}  // namespace octavo
