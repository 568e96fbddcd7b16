// Validation of a step's batch, and its plan of attention work: units per request, split-KV or not.
#include "step.hpp"

namespace octavo {
namespace {

// Whether there are too few units of attention work for the threads, and the context is long enough to be worth a barrier.
bool splits_kv(const StepState& s, const Batch& b) {
    const int pairs = b.num_requests * s.model->num_kv_heads, threads = s.pool->size();
    if (threads == 1 || pairs > SPLIT_PAIRS || pairs >= 4 * threads) return false;
    int longest = 0;
    for (int i = 0; i < b.num_requests; i++) {
        if (b.query_starts[i + 1] - b.query_starts[i] > SPLIT_ROWS) return false;
        if (b.context_lens[i] > longest) longest = b.context_lens[i];
    }
    return longest > 2 * ATTENTION_CHUNK && longest <= SPLIT_CHUNKS * ATTENTION_CHUNK;
}

}  // namespace

StepError check_batch(const StepState& s, const Batch& b) {
    const Model& m = *s.model;
    if (b.num_rows < 1 || b.num_rows > s.max_rows || b.num_logit_rows > s.max_logit_rows || b.num_requests > b.num_rows)
        return STEP_TOO_LARGE;
    if (b.num_requests < 1 || b.num_logit_rows < 0 || b.num_logit_rows > b.num_rows || b.query_starts[0] != 0 ||
        b.query_starts[b.num_requests] != b.num_rows)
        return STEP_BAD_BATCH;
    for (int r = 0; r < b.num_rows; r++)
        if (b.token_ids[r] < 0 || b.token_ids[r] >= m.vocab_size) return STEP_BAD_TOKEN;
    for (int i = 0; i < b.num_logit_rows; i++)
        if (b.logit_rows[i] < 0 || b.logit_rows[i] >= b.num_rows) return STEP_BAD_BATCH;
    for (int i = 0; i < b.num_requests; i++) {
        const int first = b.query_starts[i], end = b.query_starts[i + 1], context = b.context_lens[i];
        if (first >= end || end > b.num_rows || context < end - first) return STEP_BAD_BATCH;
        for (int r = first; r < end; r++)
            if (b.positions[r] != context - (end - r)) return STEP_BAD_BATCH;
        const int64_t blocks = (int64_t(context) + m.kv.block_size - 1) / m.kv.block_size;
        if (blocks > b.max_blocks) return STEP_BAD_BATCH;
        for (int64_t j = 0; j < blocks; j++) {
            const int block = b.block_tables[size_t(i) * b.max_blocks + j];
            if (block < 0 || block >= m.kv.num_blocks) return STEP_BAD_BATCH;
        }
    }
    return STEP_OK;
}

void plan_attention(StepState& s, const Batch& batch) {
    s.unit_starts[0] = 0;
    s.split_kv = splits_kv(s, batch), s.whole_requests = !s.split_kv, s.few_rows = batch.num_rows <= FEW_ROWS;
    for (int i = 0; i < batch.num_requests; i++) {
        const int n = batch.query_starts[i + 1] - batch.query_starts[i];
        s.whole_requests &= n <= ATTENTION_ROWS;
        s.unit_starts[i + 1] = s.unit_starts[i] + (n + ATTENTION_ROWS - 1) / ATTENTION_ROWS;
    }
}

}  // namespace octavo
