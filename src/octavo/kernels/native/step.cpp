// Forward pass of a batch in one call: every thread walks the layers, does its share of each phase, meets the others at barriers.
//
// Phases of a layer (| is a barrier):
//   norm + quantize rows | q, k, v products | norm, rotate, store keys and values | attention | quantize rows | output product |
//   norms, residual, quantize rows | gate and up products, activation, quantize | down product |
// Some barriers fall away: a few rows are normed and quantized by every thread for itself (`few_rows`), and where a unit of
// attention work is all of a request, it stores its keys and values first (`whole_requests`).
// Which thread computes what never changes a bit: products are split over columns, the rest over rows or heads, and each
// element is always computed in the same order of operations.
#include "step.hpp"

#include <cmath>

namespace octavo {
namespace {

struct Worker {
    StepState& s;
    const Model& m;
    const KernelTable& t;
    const Batch& b;
    int thread, threads;
    float* scratch;
    float* row_scratch;  // [hidden]

    explicit Worker(StepState& state, int index)
        : s(state), m(*state.model), t(*state.table), b(*state.batch), thread(index), threads(state.pool->size()) {
        scratch = s.scratch + size_t(thread) * s.scratch_floats;
        row_scratch = scratch + s.scratch_floats - row_stride() - 32;
    }

    size_t row_stride() const { return size_t((m.hidden_size + GROUP - 1) / GROUP * GROUP); }
    float* residual(int row) const { return s.x + size_t(row) * row_stride(); }
    size_t qkv_stride() const { return size_t(s.q_width + 2 * s.k_width); }
    float* branch(int row) const { return s.branch + size_t(row) * s.branch_width; }
    float* angles(int row, bool windowed) const {
        return s.angles + (size_t(windowed ? s.max_rows : 0) + size_t(row)) * m.head_dim;
    }
    void barrier() const { s.pool->barrier(); }
    std::atomic<int>& counter(int layer, Phase phase) const { return s.work_counters[layer * PHASES + phase]; }

    // work(begin, end) over n items in steps of `unit`: most of this thread's fair share first, then what is left of all shares in
    // work units, by whoever is free. A core that somebody else uses as well would otherwise hold up all the others at the barrier.
    template <class Work>
    void parallel_for(int n, int unit, std::atomic<int>& next, const Work& work) const {
        const Range mine = share(n, threads, thread, unit);
        const int own_end = static_end(mine, unit);
        if (mine.begin < own_end) work(mine.begin, own_end);
        for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < dynamic_units() * threads;) {
            const Range theirs = share(n, threads, i % threads, unit);
            const int first = static_end(theirs, unit);
            const Range part = share(theirs.end - first, dynamic_units(), i / threads, unit);
            if (part.begin < part.end) work(first + part.begin, first + part.end);
        }
    }
    int dynamic_units() const { return s.few_rows ? FEW_ROWS_DYNAMIC_UNITS : DYNAMIC_UNITS; }
    int static_end(Range own, int unit) const {
        const int eighths = s.few_rows ? FEW_ROWS_STATIC_EIGHTHS : STATIC_EIGHTHS;
        return threads == 1 ? own.end : own.begin + (own.end - own.begin) * eighths / 8 / unit * unit;
    }

    void run() {
        embed();
        for (int i = 0; i < m.num_layers; i++) layer(m.layers[i], m.kv_layers[i], i);
        head();
    }

    void embed() {
        const Range mine = share(b.num_rows, threads, thread);
        for (int r = mine.begin; r < mine.end; r++) {
            t.unpack_row(m.embedding, b.token_ids[r], residual(r));
            if (m.embedding_scale != 1.0f) t.scale(residual(r), m.embedding_scale, m.hidden_size);
            rotary_angles(r, m.inv_freq, false);
            rotary_angles(r, m.windowed_inv_freq, true);
        }
        barrier();
    }

    // cos and sin of a row's position, for all layers of one kind.
    void rotary_angles(int row, const float* inv_freq, bool windowed) {
        float* to = angles(row, windowed);
        const int half = m.head_dim / 2;
        for (int i = 0; i < half; i++) {
            const float angle = float(b.positions[row]) * inv_freq[i];
            to[i] = std::cos(angle);
            to[half + i] = std::sin(angle);
        }
    }

    void layer(const Layer& l, const KvLayer& kv, int i) {
        norm_and_quantize(l.input_norm, counter(i, INPUT_NORM));
        qkv(l, counter(i, QKV));
        barrier();
        if (!s.whole_requests) {
            parallel_for(b.num_rows, 1, counter(i, STORE_KV), [&](int begin, int end) {
                for (int r = begin; r < end; r++) store_kv(l, kv, r, 0, m.num_kv_heads);
            });
            barrier();
        }
        if (s.split_kv) attention_split_kv(l, kv, counter(i, ATTENTION));
        else attention(l, kv, counter(i, ATTENTION));
        barrier();
        quantize_rows(counter(i, QUANTIZE), s.attended, [&](int r, const Activations& to) {
            t.quantize(branch(r), m.num_heads * m.head_dim, to, r);
        });
        if (s.few_rows && l.post_attention_norm) barrier();  // its product goes where others may still be reading
        output_product(l.output, attended().view, l.post_attention_norm, counter(i, OUTPUT));
        barrier();
        add_post_normed(l.post_attention_norm);
        norm_and_quantize(l.mlp_norm, counter(i, MLP_NORM));
        gated_mlp(l, counter(i, GATE_UP));
        barrier();
        output_product(l.down, s.gated.view, l.post_mlp_norm, counter(i, DOWN));
        barrier();
        add_post_normed(l.post_mlp_norm);
    }

    // What products read: shared rows, or where there are few this thread's own copy.
    const OwnedActivations& hidden() const { return s.few_rows ? s.own_hidden[thread] : s.hidden; }
    const OwnedActivations& attended() const { return s.few_rows ? s.own_attended[thread] : s.attended; }

    // work(row, to) for every row; on return all of them are in what `hidden` or `attended` gives this thread.
    template <class Work>
    void quantize_rows(std::atomic<int>& next, const OwnedActivations& shared, const Work& work) const {
        if (s.few_rows) {
            const Activations& own = &shared == &s.hidden ? s.own_hidden[thread].view : s.own_attended[thread].view;
            for (int r = 0; r < b.num_rows; r++) work(r, own);
            return;
        }
        parallel_for(b.num_rows, 1, next, [&](int begin, int end) {
            for (int r = begin; r < end; r++) work(r, shared.view);
        });
        barrier();
    }

    void norm_and_quantize(const float* weight, std::atomic<int>& next) {
        quantize_rows(next, s.hidden, [&](int r, const Activations& to) { normed(residual(r), weight, to, r); });
    }

    void normed(const float* x, const float* weight, const Activations& to, int row) const {
        t.rms_norm(x, weight, m.hidden_size, m.rms_norm_eps, row_scratch);
        t.quantize(row_scratch, m.hidden_size, to, row);
    }

    // The tiles of q, k and v, counted as one row of tiles.
    void qkv(const Layer& l, std::atomic<int>& next) {
        parallel_for(l.q.num_tiles + l.k.num_tiles + l.v.num_tiles, 1, next, [&](int first, int last) {
            const Matrix* parts[3] = {&l.q, &l.k, &l.v};
            const int columns[3] = {0, s.q_width, s.q_width + s.k_width};
            for (int i = 0; i < 3; first -= parts[i]->num_tiles, last -= parts[i]->num_tiles, i++) {
                const int begin = first > 0 ? first : 0, end = last < parts[i]->num_tiles ? last : parts[i]->num_tiles;
                if (begin >= end) continue;
                const Output out = {s.qkv + columns[i] + begin * TILE, int64_t(qkv_stride()), false};
                t.linear(*parts[i], hidden().view, 0, b.num_rows, begin, end, out);
            }
        });
    }

    // A row's keys and values of some kv heads, and the queries that look at them.
    void store_kv(const Layer& l, const KvLayer& kv, int row, int first, int last) const {
        float* q = s.qkv + size_t(row) * qkv_stride();
        float *k = q + s.q_width + first * m.head_dim, *v = k + s.k_width;
        const int group = m.num_heads / m.num_kv_heads;
        norm_and_rotate(q + size_t(first) * group * m.head_dim, (last - first) * group, l.q_norm, row, l.window != 0);
        norm_and_rotate(k, last - first, l.k_norm, row, l.window != 0);
        const int request = request_of(row), position = b.positions[row];
        const int block = b.block_tables[size_t(request) * b.max_blocks + position / m.kv.block_size];
        t.write_kv(m.kv, kv, block, position % m.kv.block_size, first, last, k, v);
    }

    void norm_and_rotate(float* x, int n, const float* norm, int row, bool windowed) const {
        const float* cos = angles(row, windowed);
        for (int h = 0; h < n; h++, x += m.head_dim) {
            if (norm) t.rms_norm(x, norm, m.head_dim, m.rms_norm_eps, x);
            t.rotary(x, cos, cos + m.head_dim / 2, m.head_dim);
        }
    }

    int request_of(int row) const {  // the last request that starts at or before the row
        int low = 0, high = b.num_requests - 1;
        while (low < high) {
            const int middle = (low + high + 1) / 2;
            if (b.query_starts[middle] <= row) low = middle;
            else high = middle - 1;
        }
        return low;
    }

    // Work units, taken as threads become free: lengths differ too much for fixed shares.
    void attention(const Layer& l, const KvLayer& kv, std::atomic<int>& counter) {
        const AttentionShape shape = {m.num_heads, m.num_kv_heads, m.head_dim, l.window, m.attention_scale, m.soft_cap};
        const int num_units = s.unit_starts[b.num_requests] * m.num_kv_heads;
        for (int i = counter.fetch_add(1, std::memory_order_relaxed); i < num_units; i = counter.fetch_add(1, std::memory_order_relaxed)) {
            const int kv_head = i % m.num_kv_heads, unit = i / m.num_kv_heads;
            int request = 0, high = b.num_requests - 1;
            while (request < high) {
                const int middle = (request + high + 1) / 2;
                if (s.unit_starts[middle] <= unit) request = middle;
                else high = middle - 1;
            }
            const int row = b.query_starts[request] + (unit - s.unit_starts[request]) * ATTENTION_ROWS;
            const int last = b.query_starts[request + 1], n = last - row < ATTENTION_ROWS ? last - row : ATTENTION_ROWS;
            for (int r = row; s.whole_requests && r < last; r++) store_kv(l, kv, r, kv_head, kv_head + 1);
            t.attention(shape, m.kv, kv, b.block_tables + size_t(request) * b.max_blocks, b.positions[row], n, kv_head,
                        s.qkv + size_t(row) * qkv_stride(), int64_t(qkv_stride()), branch(row), s.branch_width, scratch);
        }
    }

    // The same bits from chunks of the context, each by whatever thread is free, put together in their order.
    void attention_split_kv(const Layer& l, const KvLayer& kv, std::atomic<int>& counter) {
        const AttentionShape shape = {m.num_heads, m.num_kv_heads, m.head_dim, l.window, m.attention_scale, m.soft_cap};
        const int pairs = b.num_requests * m.num_kv_heads;
        for (int item; (item = counter.fetch_add(1, std::memory_order_relaxed)) >= 0;) {
            int pair = 0;
            for (; pair < pairs && item >= num_chunks(shape, pair); pair++) item -= num_chunks(shape, pair);
            if (pair == pairs) break;
            const Pair p = pair_of(pair);
            t.attention_chunk(shape, m.kv, kv, p.blocks, b.positions[p.row], p.num_rows, p.kv_head, chunks(shape, p).begin + item,
                              s.qkv + size_t(p.row) * qkv_stride(), int64_t(qkv_stride()), partial(pair, item, p.num_rows), scratch);
        }
        barrier();
        for (int pair = thread; pair < pairs; pair += threads) {
            const Pair p = pair_of(pair);
            t.attention_merge(shape, num_chunks(shape, pair), p.num_rows, p.kv_head, partial(pair, 0, p.num_rows), branch(p.row),
                              s.branch_width);
        }
    }

    struct Pair {
        int row, num_rows, kv_head;
        const int32_t* blocks;
    };
    Pair pair_of(int pair) const {
        const int request = pair / m.num_kv_heads, row = b.query_starts[request];
        return {row, b.query_starts[request + 1] - row, pair % m.num_kv_heads, b.block_tables + size_t(request) * b.max_blocks};
    }
    Chunks chunks(const AttentionShape& shape, const Pair& p) const {
        return attention_chunks(shape, b.positions[p.row], p.num_rows);
    }
    int num_chunks(const AttentionShape& shape, int pair) const {
        const Chunks c = chunks(shape, pair_of(pair));
        return c.end - c.begin;
    }
    float* partial(int pair, int chunk, int num_rows) const {
        const size_t vectors = size_t(num_rows) * (m.num_heads / m.num_kv_heads);
        return s.partials + size_t(pair) * s.pair_floats + size_t(chunk) * vectors * (m.head_dim + PARTIAL_EXTRA);
    }

    // A product on its way back to the residual: added to it at once, or kept for the norm in between.
    void output_product(const Matrix& w, const Activations& x, const float* norm, std::atomic<int>& next) {
        float* to = norm ? s.branch : s.x;
        const int64_t stride = norm ? int64_t(s.branch_width) : int64_t(row_stride());
        parallel_for(w.num_tiles, 1, next, [&](int begin, int end) {
            t.linear(w, x, 0, b.num_rows, begin, end, {to + begin * TILE, stride, !norm});
        });
    }

    void add_post_normed(const float* norm) {
        if (!norm) return;
        const Range mine = share(b.num_rows, threads, thread);
        for (int r = mine.begin; r < mine.end; r++) {
            t.rms_norm(branch(r), norm, m.hidden_size, m.rms_norm_eps, row_scratch);
            t.add(residual(r), row_scratch, m.hidden_size);
        }
        barrier();
    }

    // act(gate) * up for two tiles of columns at a time: one group of what the down product reads.
    void gated_mlp(const Layer& l, std::atomic<int>& next) {
        const int tiles_per_group = GROUP / TILE;
        float* up = scratch + size_t(ROW_CHUNK) * GROUP;
        parallel_for(l.gate.num_tiles, tiles_per_group, next, [&](int first, int last) {
            for (int row0 = 0; row0 < b.num_rows; row0 += ROW_CHUNK) {
                const int row1 = row0 + ROW_CHUNK < b.num_rows ? row0 + ROW_CHUNK : b.num_rows;
                for (int tile = first; tile < last; tile += tiles_per_group) {
                    const int end = tile + tiles_per_group < last ? tile + tiles_per_group : last;
                    t.linear(l.gate, hidden().view, row0, row1, tile, end, {scratch, GROUP, false});
                    t.linear(l.up, hidden().view, row0, row1, tile, end, {up, GROUP, false});
                    gated_group(row0, row1, tile / tiles_per_group, (end - tile) * TILE, up);
                }
            }
        });
    }

    void gated_group(int row0, int row1, int index, int width, const float* up) {
        const int left = m.intermediate_size - index * GROUP, n = width < left ? width : left;
        Activations part = s.gated.view;
        part.q += index * GROUP, part.scales += index, part.sums += index, part.sums_of_16 += index * 2, part.offsets += index;
        if (part.floats) part.floats += index * GROUP;
        for (int r = row0; r < row1; r++) {
            float* g = scratch + size_t(r - row0) * GROUP;
            (m.gate == GateActivation::SILU ? t.silu_mul : t.gelu_mul)(g, up + size_t(r - row0) * GROUP, n, g);
            t.quantize(g, n, part, r);
        }
    }

    void head() {
        const int n = b.num_logit_rows;
        const Range mine = share(n, threads, thread);
        const Activations& rows = hidden().view;
        for (int i = s.few_rows ? 0 : mine.begin; i < (s.few_rows ? n : mine.end); i++) normed(residual(b.logit_rows[i]), m.norm, rows, i);
        if (!s.few_rows) barrier();
        const int64_t stride = int64_t(m.head.num_tiles) * TILE;
        parallel_for(n ? m.head.num_tiles : 0, 1, counter(m.num_layers, INPUT_NORM), [&](int begin, int end) {
            t.linear(m.head, rows, 0, n, begin, end, {s.output->logits + begin * TILE, stride, false});
        });
        barrier();
        for (int i = mine.begin; i < mine.end; i++) {
            const float* logits = s.output->logits + i * stride;
            const int token = t.argmax(logits, m.vocab_size);
            s.output->tokens[i] = std::isfinite(logits[token]) ? token : -1;
        }
    }
};

}  // namespace

StepError run_step(StepState& s, const Batch& batch, const StepOutput& output) {
    if (const StepError error = check_batch(s, batch)) return error;
    plan_attention(s, batch);
    for (int i = 0; i < num_work_counters(*s.model); i++) s.work_counters[i].store(0, std::memory_order_relaxed);
    s.batch = &batch, s.output = &output;
    s.pool->run([](void* context, int thread) { Worker(*static_cast<StepState*>(context), thread).run(); }, &s);
    return STEP_OK;
}

void run_sampling(StepState& s, const StepOutput& output, const SamplingRow* rows, int n, int32_t* tokens) {
    struct Draws {
        StepState& s;
        const StepOutput& output;
        const SamplingRow* rows;
        int n;
        int32_t* tokens;
    } draws = {s, output, rows, n, tokens};
    s.work_counters[0].store(0, std::memory_order_relaxed);
    s.pool->run(
        [](void* context, int thread) {
            const Draws& d = *static_cast<Draws*>(context);
            const Model& m = *d.s.model;
            for (int i; (i = d.s.work_counters[0].fetch_add(1, std::memory_order_relaxed)) < d.n;) {
                const int row = d.rows[i].row;
                const float* logits = d.output.logits + int64_t(row) * m.head.num_tiles * TILE;
                const int likeliest = d.output.tokens[row];
                const float peak = likeliest < 0 ? -INFINITY : logits[likeliest];
                float* scratch = d.s.scratch + size_t(thread) * d.s.scratch_floats;
                d.tokens[i] = choose_token(*d.s.table, logits, m.vocab_size, peak, d.rows[i], scratch);
            }
        },
        &draws);
}

}  // namespace octavo
