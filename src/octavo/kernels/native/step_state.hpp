// State of the native step, shared by its threads: model, thread pool, workspace, counters of work taken, current batch.
#pragma once

#include "model.hpp"
#include "thread_pool.hpp"

namespace octavo {

constexpr int ROW_CHUNK = 64;      // rows of the gated MLP that a thread works on at a time: its scratch stays in its L2
constexpr int ATTENTION_ROWS = 64; // rows of one request that are one unit of attention work
constexpr int FEW_ROWS = 4;        // so few rows every thread norms and quantizes for itself: dearer to wait for than to repeat
// Scheduling of a phase: of its share a thread keeps STATIC_EIGHTHS eighths; the rest is cut into DYNAMIC_UNITS work units, each
// taken by whoever is free. A unit costs an atomic operation on a line that other cores hold: with few rows that is soon dearer
// than the wait it saves.
constexpr int STATIC_EIGHTHS = 6, DYNAMIC_UNITS = 4, FEW_ROWS_STATIC_EIGHTHS = 7, FEW_ROWS_DYNAMIC_UNITS = 1;
// Attention of few requests with long contexts is split over the context (split-KV), chunk by chunk: with these limits, which
// bound the memory for the chunks' partial results.
constexpr int SPLIT_ROWS = 8, SPLIT_CHUNKS = 512, SPLIT_PAIRS = 64;

// The phases of a layer whose work is taken unit by unit: each has an atomic counter of the units taken.
enum Phase { INPUT_NORM, QKV, STORE_KV, ATTENTION, QUANTIZE, OUTPUT, MLP_NORM, GATE_UP, DOWN, PHASES };
static inline int num_work_counters(const Model& m) { return (m.num_layers + 1) * PHASES; }  // one row more for the LM head

// Activations with memory of their own.
struct OwnedActivations {
    Activations view = {};
    bool allocate(int rows, int k, bool floats);
    void release();
};

struct StepState {
    const Model* model;
    const KernelTable* table;
    ThreadPool* pool;
    int max_rows, max_logit_rows;

    float* x;       // [T][hidden]: the residual stream
    float* qkv;     // [T][q | k | v], each padded to whole tiles
    float* branch;  // [T][num_heads * head_dim]: attention's output; [T][hidden]: a branch's output before its post-norm
    float* angles;  // [2 kinds][T][cos | sin], head_dim / 2 each
    OwnedActivations hidden, attended, gated;
    OwnedActivations *own_hidden, *own_attended;  // [threads], of FEW_ROWS
    float* scratch;  // [threads][scratch_floats]
    size_t scratch_floats;
    int q_width, k_width;  // padded columns of q, and of k and v
    int branch_width;

    std::atomic<int>* work_counters;  // [num_layers + 1][PHASES]: the next work unit
    int* unit_starts;  // [B + 1]: units of attention work before each request
    float* partials;   // [pairs of request and kv head][chunks][rows * group][head_dim + PARTIAL_EXTRA]
    size_t pair_floats;
    bool split_kv;        // this step's attention is split over the context
    bool whole_requests;  // a unit of attention work is all rows of a request
    bool few_rows;

    // of the step that runs
    const Batch* batch;
    const StepOutput* output;
};

}  // namespace octavo
