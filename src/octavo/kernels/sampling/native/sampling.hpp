// Interface of token sampling: one row of logits, temperature, top-k, then min-p, then top-p, drawn by a given random number.
#pragma once

#include "../../native/kernel_table.hpp"

namespace octavo {

struct SamplingRow {
    double uniform;     // in [0, 1)
    double top_p;       // 1: off
    float temperature;  // > 0
    float min_p;        // 0: off
    int32_t top_k;      // the vocabulary's size or more: off
    int32_t row;        // of the logits
};

// Floats that choose_token needs for a vocabulary of n.
size_t sampling_scratch(int n);

// The token, or -1 if the row holds NaN or +inf, or nothing above -inf. Reads logits[n]; `peak` is their largest. The cumulative
// distribution is inverted in the order of token ids, so rounding noise in the logits moves its borders by as little.
int choose_token(const KernelTable& table, const float* logits, int n, float peak, const SamplingRow& how, float* scratch);

}  // namespace octavo
