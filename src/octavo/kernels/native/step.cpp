// A whole step in one call: every thread walks the layers, doing its share of each phase and meeting the others at barriers.
//
// Phases of a layer (| is a barrier):
//   norm + quantise rows | q, k, v products | norm, rotate, store keys and values | attention | quantise rows | output product |
//   norms, residual, quantise rows | gate and up products, activation, quantise | down product |
// Two of them are met with fewer: a few rows are normed and quantised by every thread for itself (`narrow`), and where a piece of
// attention work is all of a request, it stores its keys and values first (`whole`).
// Which thread computes what never changes a bit: products are split over columns, the rest over rows or heads, and each
// element is always computed in the same order of operations.
#include "step.hpp"

#include <cmath>

namespace octavo {
namespace {

struct Worker {
    Session& s;
    const Model& m;
    const Table& t;
    const Batch& b;
    int thread, threads;
    float* scratch;
    float* row_scratch;  // [hidden]

    explicit Worker(Session& session, int index)
        : s(session), m(*session.model), t(*session.table), b(*session.batch), thread(index), threads(session.pool->size()) {
        scratch = s.scratch + size_t(thread) * s.scratch_floats;
        row_scratch = scratch + s.scratch_floats - row_stride() - 32;
    }

    size_t row_stride() const { return size_t((m.hidden_size + GROUP - 1) / GROUP * GROUP); }
    float* residual(int row) const { return s.x + size_t(row) * row_stride(); }
    size_t qkv_stride() const { return size_t(s.q_width + 2 * s.k_width); }
    float* mixed(int row) const { return s.mixed + size_t(row) * s.mixed_width; }
    float* angles(int row, bool windowed) const {
        return s.angles + (size_t(windowed ? s.max_rows : 0) + size_t(row)) * m.head_dim;
    }
    void barrier() const { s.pool->barrier(); }
    std::atomic<int>& ticket(int layer, Phase phase) const { return s.tickets[layer * PHASES + phase]; }

    // work(begin, end) over n items in units: most of this thread's fair share first, then what is left of all shares in small
    // pieces, by whoever is free. A core that somebody else uses as well would otherwise hold up all the others at the next barrier.
    template <class Work>
    void divide(int n, int unit, std::atomic<int>& next, const Work& work) const {
        const Range mine = share(n, threads, thread, unit);
        const int kept = kept_end(mine, unit);
        if (mine.begin < kept) work(mine.begin, kept);
        for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < pieces() * threads;) {
            const Range theirs = share(n, threads, i % threads, unit);
            const int first = kept_end(theirs, unit);
            const Range piece = share(theirs.end - first, pieces(), i / threads, unit);
            if (piece.begin < piece.end) work(first + piece.begin, first + piece.end);
        }
    }
    int pieces() const { return s.narrow ? NARROW_PIECES : PIECES; }
    int kept_end(Range own, int unit) const {
        return threads == 1 ? own.end : own.begin + (own.end - own.begin) * (s.narrow ? NARROW_KEPT : KEPT) / 8 / unit * unit;
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
            turn(r, m.inv_freq, false);
            turn(r, m.windowed_inv_freq, true);
        }
        barrier();
    }

    // cos and sin of a row's position, for all layers of one kind.
    void turn(int row, const float* inv_freq, bool windowed) {
        float* to = angles(row, windowed);
        const int half = m.head_dim / 2;
        for (int i = 0; i < half; i++) {
            const float angle = float(b.positions[row]) * inv_freq[i];
            to[i] = std::cos(angle);
            to[half + i] = std::sin(angle);
        }
    }

    void layer(const Layer& l, const KvLayer& kv, int i) {
        enter(l.input_norm, ticket(i, ENTER));
        project(l, ticket(i, PROJECT));
        barrier();
        if (!s.whole) {
            divide(b.num_rows, 1, ticket(i, STORE), [&](int begin, int end) {
                for (int r = begin; r < end; r++) store(l, kv, r, 0, m.num_kv_heads);
            });
            barrier();
        }
        if (s.split) attend_split(l, kv, ticket(i, ATTEND));
        else attend(l, kv, ticket(i, ATTEND));
        barrier();
        quantize_rows(ticket(i, MIXED), s.attended, [&](int r, const Activations& to) {
            t.quantize(mixed(r), m.num_heads * m.head_dim, to, r);
        });
        if (s.narrow && l.post_attention_norm) barrier();  // its product goes where others may still be reading
        back(l.output, attended().view, l.post_attention_norm, ticket(i, OUTPUT));
        barrier();
        rejoin(l.post_attention_norm);
        enter(l.mlp_norm, ticket(i, ENTER_MLP));
        gate(l, ticket(i, GATE));
        barrier();
        back(l.down, s.gated.view, l.post_mlp_norm, ticket(i, DOWN));
        barrier();
        rejoin(l.post_mlp_norm);
    }

    // What products read: shared rows, or where there are few this thread's own copy.
    const OwnedActivations& hidden() const { return s.narrow ? s.own_hidden[thread] : s.hidden; }
    const OwnedActivations& attended() const { return s.narrow ? s.own_attended[thread] : s.attended; }

    // work(row, to) for every row; on return all of them are in what `hidden` or `attended` gives this thread.
    template <class Work>
    void quantize_rows(std::atomic<int>& next, const OwnedActivations& shared, const Work& work) const {
        if (s.narrow) {
            const Activations& own = &shared == &s.hidden ? s.own_hidden[thread].view : s.own_attended[thread].view;
            for (int r = 0; r < b.num_rows; r++) work(r, own);
            return;
        }
        divide(b.num_rows, 1, next, [&](int begin, int end) {
            for (int r = begin; r < end; r++) work(r, shared.view);
        });
        barrier();
    }

    void enter(const float* weight, std::atomic<int>& next) {
        quantize_rows(next, s.hidden, [&](int r, const Activations& to) { normed(residual(r), weight, to, r); });
    }

    void normed(const float* x, const float* weight, const Activations& to, int row) const {
        t.rms_norm(x, weight, m.hidden_size, m.rms_norm_eps, row_scratch);
        t.quantize(row_scratch, m.hidden_size, to, row);
    }

    // The tiles of q, k and v, counted as one row of tiles.
    void project(const Layer& l, std::atomic<int>& next) {
        divide(l.q.num_tiles + l.k.num_tiles + l.v.num_tiles, 1, next, [&](int first, int last) {
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
    void store(const Layer& l, const KvLayer& kv, int row, int first, int last) const {
        float* q = s.qkv + size_t(row) * qkv_stride();
        float *k = q + s.q_width + first * m.head_dim, *v = k + s.k_width;
        const int group = m.num_heads / m.num_kv_heads;
        heads(q + size_t(first) * group * m.head_dim, (last - first) * group, l.q_norm, row, l.window != 0);
        heads(k, last - first, l.k_norm, row, l.window != 0);
        const int request = request_of(row), position = b.positions[row];
        const int block = b.block_tables[size_t(request) * b.max_blocks + position / m.kv.block_size];
        t.write_kv(m.kv, kv, block, position % m.kv.block_size, first, last, k, v);
    }

    void heads(float* x, int n, const float* norm, int row, bool windowed) const {
        const float* turns = angles(row, windowed);
        for (int h = 0; h < n; h++, x += m.head_dim) {
            if (norm) t.rms_norm(x, norm, m.head_dim, m.rms_norm_eps, x);
            t.rotary(x, turns, turns + m.head_dim / 2, m.head_dim);
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

    // Pieces of work, taken as threads become free: lengths differ too much for fixed shares.
    void attend(const Layer& l, const KvLayer& kv, std::atomic<int>& ticket) {
        const AttentionShape shape = {m.num_heads, m.num_kv_heads, m.head_dim, l.window, m.attention_scale, m.soft_cap};
        const int pieces = s.work_starts[b.num_requests] * m.num_kv_heads;
        for (int i = ticket.fetch_add(1, std::memory_order_relaxed); i < pieces; i = ticket.fetch_add(1, std::memory_order_relaxed)) {
            const int kv_head = i % m.num_kv_heads, piece = i / m.num_kv_heads;
            int request = 0, high = b.num_requests - 1;
            while (request < high) {
                const int middle = (request + high + 1) / 2;
                if (s.work_starts[middle] <= piece) request = middle;
                else high = middle - 1;
            }
            const int row = b.query_starts[request] + (piece - s.work_starts[request]) * ATTENTION_ROWS;
            const int last = b.query_starts[request + 1], n = last - row < ATTENTION_ROWS ? last - row : ATTENTION_ROWS;
            for (int r = row; s.whole && r < last; r++) store(l, kv, r, kv_head, kv_head + 1);
            t.attention(shape, m.kv, kv, b.block_tables + size_t(request) * b.max_blocks, b.positions[row], n, kv_head,
                        s.qkv + size_t(row) * qkv_stride(), int64_t(qkv_stride()), mixed(row), s.mixed_width, scratch);
        }
    }

    // The same bits from chunks of the context, each by whatever thread is free, put together in their order.
    void attend_split(const Layer& l, const KvLayer& kv, std::atomic<int>& ticket) {
        const AttentionShape shape = {m.num_heads, m.num_kv_heads, m.head_dim, l.window, m.attention_scale, m.soft_cap};
        const int pairs = b.num_requests * m.num_kv_heads;
        for (int item; (item = ticket.fetch_add(1, std::memory_order_relaxed)) >= 0;) {
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
            t.attention_merge(shape, num_chunks(shape, pair), p.num_rows, p.kv_head, partial(pair, 0, p.num_rows), mixed(p.row),
                              s.mixed_width);
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
    void back(const Matrix& w, const Activations& x, const float* norm, std::atomic<int>& next) {
        float* to = norm ? s.mixed : s.x;
        const int64_t stride = norm ? int64_t(s.mixed_width) : int64_t(row_stride());
        divide(w.num_tiles, 1, next, [&](int begin, int end) {
            t.linear(w, x, 0, b.num_rows, begin, end, {to + begin * TILE, stride, !norm});
        });
    }

    void rejoin(const float* norm) {
        if (!norm) return;
        const Range mine = share(b.num_rows, threads, thread);
        for (int r = mine.begin; r < mine.end; r++) {
            t.rms_norm(mixed(r), norm, m.hidden_size, m.rms_norm_eps, row_scratch);
            t.add(residual(r), row_scratch, m.hidden_size);
        }
        barrier();
    }

    // act(gate) * up for two tiles of columns at a time: one group of what the down product reads.
    void gate(const Layer& l, std::atomic<int>& next) {
        const int tiles_per_group = GROUP / TILE;
        float* up = scratch + size_t(ROW_CHUNK) * GROUP;
        divide(l.gate.num_tiles, tiles_per_group, next, [&](int first, int last) {
            for (int row0 = 0; row0 < b.num_rows; row0 += ROW_CHUNK) {
                const int row1 = row0 + ROW_CHUNK < b.num_rows ? row0 + ROW_CHUNK : b.num_rows;
                for (int tile = first; tile < last; tile += tiles_per_group) {
                    const int end = tile + tiles_per_group < last ? tile + tiles_per_group : last;
                    t.linear(l.gate, hidden().view, row0, row1, tile, end, {scratch, GROUP, false});
                    t.linear(l.up, hidden().view, row0, row1, tile, end, {up, GROUP, false});
                    group(row0, row1, tile / tiles_per_group, (end - tile) * TILE, up);
                }
            }
        });
    }

    void group(int row0, int row1, int index, int width, const float* up) {
        const int left = m.intermediate_size - index * GROUP, n = width < left ? width : left;
        Activations part = s.gated.view;
        part.q += index * GROUP, part.scales += index, part.sums += index, part.half_sums += index * 2, part.offsets += index;
        if (part.floats) part.floats += index * GROUP;
        for (int r = row0; r < row1; r++) {
            float* g = scratch + size_t(r - row0) * GROUP;
            (m.gate == Gate::SILU ? t.silu_mul : t.gelu_mul)(g, up + size_t(r - row0) * GROUP, n, g);
            t.quantize(g, n, part, r);
        }
    }

    void head() {
        const int n = b.num_logit_rows;
        const Range mine = share(n, threads, thread);
        const Activations& rows = hidden().view;
        for (int i = s.narrow ? 0 : mine.begin; i < (s.narrow ? n : mine.end); i++) normed(residual(b.logit_rows[i]), m.norm, rows, i);
        if (!s.narrow) barrier();
        const int64_t stride = int64_t(m.head.num_tiles) * TILE;
        divide(n ? m.head.num_tiles : 0, 1, ticket(m.num_layers, ENTER), [&](int begin, int end) {
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

// Everything a step will index with, checked before a thread starts.
StepError check(const Session& s, const Batch& b) {
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

// Whether there are too few pieces of attention work for the threads, and the context is long enough to be worth a barrier.
bool splits(const Session& s, const Batch& b) {
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

StepError run_step(Session& s, const Batch& batch, const StepOutput& output) {
    if (const StepError error = check(s, batch)) return error;
    s.work_starts[0] = 0;
    s.split = splits(s, batch), s.whole = !s.split, s.narrow = batch.num_rows <= NARROW_ROWS;
    for (int i = 0; i < batch.num_requests; i++) {
        const int n = batch.query_starts[i + 1] - batch.query_starts[i];
        s.whole &= n <= ATTENTION_ROWS;
        s.work_starts[i + 1] = s.work_starts[i] + (n + ATTENTION_ROWS - 1) / ATTENTION_ROWS;
    }
    for (int i = 0; i < num_tickets(*s.model); i++) s.tickets[i].store(0, std::memory_order_relaxed);
    s.batch = &batch, s.output = &output;
    s.pool->run([](void* context, int thread) { Worker(*static_cast<Session*>(context), thread).run(); }, &s);
    return STEP_OK;
}

void run_sampling(Session& s, const StepOutput& output, const SamplingRow* rows, int n, int32_t* tokens) {
    struct Draws {
        Session& s;
        const StepOutput& output;
        const SamplingRow* rows;
        int n;
        int32_t* tokens;
    } draws = {s, output, rows, n, tokens};
    s.tickets[0].store(0, std::memory_order_relaxed);
    s.pool->run(
        [](void* context, int thread) {
            const Draws& d = *static_cast<Draws*>(context);
            const Model& m = *d.s.model;
            for (int i; (i = d.s.tickets[0].fetch_add(1, std::memory_order_relaxed)) < d.n;) {
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
