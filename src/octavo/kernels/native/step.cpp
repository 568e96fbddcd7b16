// A whole step in one call: every thread walks the layers, doing its share of each phase and meeting the others at barriers.
//
// Phases of a layer (| is a barrier):
//   norm + quantise rows | q, k, v products | norm, rotate, store keys and values | attention | quantise rows | output product |
//   norms, residual, quantise rows | gate and up products, activation, quantise | down product |
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
    Range rows(int n) const { return share(n, threads, thread); }
    void barrier() const { s.pool->barrier(); }

    void run() {
        embed();
        for (int i = 0; i < m.num_layers; i++) layer(m.layers[i], m.kv_layers[i], s.tickets[i]);
        head();
    }

    void embed() {
        const Range mine = rows(b.num_rows);
        for (int r = mine.begin; r < mine.end; r++) {
            t.unpack_row(m.embedding, b.token_ids[r], residual(r));
            if (m.embedding_scale != 1.0f) t.scale(residual(r), m.embedding_scale, m.hidden_size);
            turn(r, m.inv_freq, false);
            turn(r, m.windowed_inv_freq, true);
        }
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

    void layer(const Layer& l, const KvLayer& kv, std::atomic<int>& ticket) {
        const Range mine = rows(b.num_rows);
        for (int r = mine.begin; r < mine.end; r++) normed(residual(r), l.input_norm, s.hidden.view, r);
        barrier();
        project(l);
        barrier();
        for (int r = mine.begin; r < mine.end; r++) store(l, kv, r);
        barrier();
        if (s.split) attend_split(l, kv, ticket);
        else attend(l, kv, ticket);
        barrier();
        for (int r = mine.begin; r < mine.end; r++) t.quantize(mixed(r), m.num_heads * m.head_dim, s.attended.view, r);
        barrier();
        back(l.output, s.attended.view, l.post_attention_norm);
        barrier();
        for (int r = mine.begin; r < mine.end; r++) {
            if (l.post_attention_norm) rejoin(r, l.post_attention_norm);
            normed(residual(r), l.mlp_norm, s.hidden.view, r);
        }
        barrier();
        gate(l);
        barrier();
        back(l.down, s.gated.view, l.post_mlp_norm);
        barrier();
        if (l.post_mlp_norm)
            for (int r = mine.begin; r < mine.end; r++) rejoin(r, l.post_mlp_norm);
    }

    void normed(const float* x, const float* weight, const Activations& to, int row) {
        t.rms_norm(x, weight, m.hidden_size, m.rms_norm_eps, row_scratch);
        t.quantize(row_scratch, m.hidden_size, to, row);
    }

    // This thread's tiles of q, k and v, counted as one row of tiles.
    void project(const Layer& l) {
        const Matrix* parts[3] = {&l.q, &l.k, &l.v};
        const int columns[3] = {0, s.q_width, s.q_width + s.k_width};
        const Range mine = share(l.q.num_tiles + l.k.num_tiles + l.v.num_tiles, threads, thread);
        for (int i = 0, first = 0; i < 3; first += parts[i]->num_tiles, i++) {
            const int n = parts[i]->num_tiles;
            const int begin = mine.begin > first ? mine.begin - first : 0, end = mine.end - first < n ? mine.end - first : n;
            if (begin >= end) continue;
            const Output out = {s.qkv + columns[i] + begin * TILE, int64_t(qkv_stride()), false};
            t.linear(*parts[i], s.hidden.view, 0, b.num_rows, begin, end, out);
        }
    }

    void store(const Layer& l, const KvLayer& kv, int row) {
        float* q = s.qkv + size_t(row) * qkv_stride();
        float *k = q + s.q_width, *v = k + s.k_width;
        heads(q, m.num_heads, l.q_norm, row, l.window != 0);
        heads(k, m.num_kv_heads, l.k_norm, row, l.window != 0);
        const int request = request_of(row), position = b.positions[row];
        const int block = b.block_tables[size_t(request) * b.max_blocks + position / m.kv.block_size];
        t.write_kv(m.kv, kv, block, position % m.kv.block_size, k, v);
    }

    void heads(float* x, int n, const float* norm, int row, bool windowed) {
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
    void back(const Matrix& w, const Activations& x, const float* norm) {
        const Range mine = share(w.num_tiles, threads, thread);
        if (mine.begin >= mine.end) return;
        float* to = norm ? s.mixed : s.x;
        const Output out = {to + mine.begin * TILE, norm ? int64_t(s.mixed_width) : int64_t(row_stride()), !norm};
        t.linear(w, x, 0, b.num_rows, mine.begin, mine.end, out);
    }

    void rejoin(int row, const float* norm) {
        t.rms_norm(mixed(row), norm, m.hidden_size, m.rms_norm_eps, row_scratch);
        t.add(residual(row), row_scratch, m.hidden_size);
    }

    // act(gate) * up for two tiles of columns at a time: one group of what the down product reads.
    void gate(const Layer& l) {
        const int tiles_per_group = GROUP / TILE;
        const Range mine = share(l.gate.num_tiles, threads, thread, tiles_per_group);
        float* up = scratch + size_t(ROW_CHUNK) * GROUP;
        for (int row0 = 0; row0 < b.num_rows; row0 += ROW_CHUNK) {
            const int row1 = row0 + ROW_CHUNK < b.num_rows ? row0 + ROW_CHUNK : b.num_rows;
            for (int tile = mine.begin; tile < mine.end; tile += tiles_per_group) {
                const int end = tile + tiles_per_group < l.gate.num_tiles ? tile + tiles_per_group : l.gate.num_tiles;
                t.linear(l.gate, s.hidden.view, row0, row1, tile, end, {scratch, GROUP, false});
                t.linear(l.up, s.hidden.view, row0, row1, tile, end, {up, GROUP, false});
                group(row0, row1, tile / tiles_per_group, (end - tile) * TILE, up);
            }
        }
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
        const Range mine = rows(n);
        barrier();  // the last norms were done row by row, and the wanted rows may be another thread's
        for (int i = mine.begin; i < mine.end; i++) normed(residual(b.logit_rows[i]), m.norm, s.hidden.view, i);
        barrier();
        const Range tiles = share(m.head.num_tiles, threads, thread);
        const int64_t stride = int64_t(m.head.num_tiles) * TILE;
        if (n && tiles.begin < tiles.end)
            t.linear(m.head, s.hidden.view, 0, n, tiles.begin, tiles.end, {s.output->logits + tiles.begin * TILE, stride, false});
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
    for (int i = 0; i < batch.num_requests; i++) {
        const int n = batch.query_starts[i + 1] - batch.query_starts[i];
        s.work_starts[i + 1] = s.work_starts[i] + (n + ATTENTION_ROWS - 1) / ATTENTION_ROWS;
    }
    for (int i = 0; i < s.model->num_layers; i++) s.tickets[i].store(0, std::memory_order_relaxed);
    s.batch = &batch, s.output = &output, s.split = splits(s, batch);
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
