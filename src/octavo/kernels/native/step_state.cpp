// Allocation and release of the native step's state: all memory that steps need is taken here, none while they run.
#include "step.hpp"
#include "storage.hpp"

#include <cstdlib>

namespace octavo {
namespace {

int padded(int n, int unit) { return (n + unit - 1) / unit * unit; }

template <typename T>
bool take(T*& pointer, size_t count) {
    const size_t bytes = (count * sizeof(T) + 127) / 64 * 64;  // one line more than asked: vectors may read past the end
    pointer = static_cast<T*>(std::aligned_alloc(64, bytes));
    return pointer != nullptr;
}

bool reads_floats(const Matrix& w) { return w.format == Format::F32 || w.format == Format::BF16; }

size_t scratch_size(const Model& m, const KernelTable& table) {
    const AttentionShape shape = {m.num_heads, m.num_kv_heads, m.head_dim, 0, m.attention_scale, m.soft_cap};
    const size_t attention = table.attention_scratch(shape, ATTENTION_ROWS);
    const size_t gated = 2 * size_t(ROW_CHUNK) * GROUP, row = size_t(padded(m.hidden_size, GROUP));
    const size_t sampling = sampling_scratch(m.vocab_size);
    const size_t most = attention > gated ? attention : gated;
    return size_t(padded(int((most > sampling ? most : sampling) + row + 64), TILE));
}

size_t split_pairs(const StepState& s) { return size_t(4 * s.pool->size() < SPLIT_PAIRS ? 4 * s.pool->size() : SPLIT_PAIRS); }

bool allocate(StepState& s) {
    const Model& m = *s.model;
    s.pair_floats = size_t(SPLIT_CHUNKS) * SPLIT_ROWS * (m.num_heads / m.num_kv_heads) * (m.head_dim + PARTIAL_EXTRA);
    const size_t rows = size_t(s.max_rows), threads = size_t(s.pool->size());
    const int hidden = padded(m.hidden_size, GROUP), heads = m.num_heads * m.head_dim;
    s.q_width = padded(heads, TILE);
    s.k_width = padded(m.num_kv_heads * m.head_dim, TILE);
    s.branch_width = padded(heads > hidden ? heads : hidden, GROUP);
    bool hidden_floats = reads_floats(m.head), attended_floats = false, gated_floats = false;
    for (int i = 0; i < m.num_layers; i++) {
        const Layer& l = m.layers[i];
        hidden_floats |= reads_floats(l.q) || reads_floats(l.k) || reads_floats(l.v) || reads_floats(l.gate) || reads_floats(l.up);
        attended_floats |= reads_floats(l.output);
        gated_floats |= reads_floats(l.down);
    }
    s.scratch_floats = scratch_size(m, *s.table);
    s.work_counters = create<std::atomic<int>>(size_t(num_work_counters(m)));
    s.own_hidden = create<OwnedActivations>(threads);
    s.own_attended = create<OwnedActivations>(threads);
    if (!s.own_hidden || !s.own_attended) return false;
    for (size_t i = 0; i < threads; i++)
        if (!s.own_hidden[i].allocate(FEW_ROWS, m.hidden_size, hidden_floats) ||
            !s.own_attended[i].allocate(FEW_ROWS, heads, attended_floats))
            return false;
    return s.work_counters && take(s.x, rows * hidden) && take(s.qkv, rows * (s.q_width + 2 * s.k_width)) &&
           take(s.branch, rows * s.branch_width) && take(s.angles, 2 * rows * m.head_dim) &&
           s.hidden.allocate(s.max_rows, m.hidden_size, hidden_floats) &&
           s.attended.allocate(s.max_rows, heads, attended_floats) &&
           s.gated.allocate(s.max_rows, m.intermediate_size, gated_floats) && take(s.scratch, threads * s.scratch_floats) &&
           take(s.unit_starts, size_t(s.max_rows) + 1) && take(s.partials, split_pairs(s) * s.pair_floats);
}

}  // namespace

bool OwnedActivations::allocate(int rows, int k, bool floats) {
    const size_t groups = size_t((k + GROUP - 1) / GROUP), n = size_t(rows) * groups;
    view.groups = int32_t(groups);
    return take(view.q, n * GROUP) && take(view.scales, n) && take(view.sums, n) && take(view.sums_of_16, n * 2) &&
           take(view.offsets, n) && (!floats || take(view.floats, n * GROUP));
}

void OwnedActivations::release() {
    for (void* p : {(void*)view.q, (void*)view.scales, (void*)view.sums, (void*)view.sums_of_16, (void*)view.offsets,
                    (void*)view.floats})
        std::free(p);
}

void delete_step_state(StepState* s) {
    if (!s) return;
    for (int i = 0; s->pool && i < s->pool->size(); i++) {
        if (s->own_hidden) s->own_hidden[i].release();
        if (s->own_attended) s->own_attended[i].release();
    }
    destroy(s->pool);
    for (void* p : {(void*)s->work_counters, (void*)s->own_hidden, (void*)s->own_attended, (void*)s->x, (void*)s->qkv,
                    (void*)s->branch, (void*)s->angles, (void*)s->scratch, (void*)s->unit_starts, (void*)s->partials})
        std::free(p);
    for (OwnedActivations* a : {&s->hidden, &s->attended, &s->gated}) a->release();
    destroy(s);
}

StepState* new_step_state(const Model* model, const KernelTable* table, int num_threads, int max_rows, int max_logit_rows) {
    StepState* s = create<StepState>(1);
    if (!s) return nullptr;
    s->model = model, s->table = table, s->max_rows = max_rows, s->max_logit_rows = max_logit_rows;
    s->pool = create<ThreadPool>(1, num_threads);
    if (s->pool && allocate(*s)) return s;
    delete_step_state(s);
    return nullptr;
}

}  // namespace octavo
