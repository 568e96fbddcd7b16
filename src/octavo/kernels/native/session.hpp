// What the threads of a step share: the workspace, the batch, the pool.
#pragma once

#include "model.hpp"

namespace octavo {

constexpr int ROW_CHUNK = 64;      // rows of the gated MLP that a thread works on at a time: its scratch stays in its L2
constexpr int ATTENTION_ROWS = 64; // rows of one request that are one piece of attention work
constexpr int NARROW_ROWS = 4;     // so few rows every thread norms and quantises for itself: dearer to wait for than to repeat
// Of its share of a phase a thread keeps KEPT eighths; the rest goes in PIECES to whoever is free. Each piece costs an atomic
// operation on a line that other cores hold: with few rows that is soon dearer than the wait it saves.
constexpr int KEPT = 6, PIECES = 4, NARROW_KEPT = 7, NARROW_PIECES = 1;
// Few requests with long contexts are split over the context instead, chunk by chunk: with these limits, which bound the room
// for what the chunks yield.
constexpr int SPLIT_ROWS = 8, SPLIT_CHUNKS = 512, SPLIT_PAIRS = 64;

// The phases of a layer that are divided piece by piece: each has a counter of the pieces taken.
enum Phase { ENTER, PROJECT, STORE, ATTEND, MIXED, OUTPUT, ENTER_MLP, GATE, DOWN, PHASES };
static inline int num_tickets(const Model& m) { return (m.num_layers + 1) * PHASES; }  // one row more for the head

// Activations with memory of their own.
struct OwnedActivations {
    Activations view = {};
    bool allocate(int rows, int k, bool floats);
    void release();
};

struct Session {
    const Model* model;
    const Table* table;
    Pool* pool;
    int max_rows, max_logit_rows;

    float* x;       // [T][hidden]: the residual stream
    float* qkv;     // [T][q | k | v], each padded to whole tiles
    float* mixed;   // [T][num_heads * head_dim]: what attention gives; [T][hidden]: a product before its norm
    float* angles;  // [2 kinds][T][cos | sin], head_dim / 2 each
    OwnedActivations hidden, attended, gated;
    OwnedActivations *own_hidden, *own_attended;  // [threads], of NARROW_ROWS
    float* scratch;  // [threads][scratch_floats]
    size_t scratch_floats;
    int q_width, k_width;  // padded columns of q, and of k and v
    int mixed_width;

    std::atomic<int>* tickets;  // [num_layers + 1][PHASES]: the next piece of work
    int* work_starts;           // [B + 1]: pieces of attention work before each request
    float* partials;            // [pairs of request and kv head][chunks][rows * group][head_dim + PARTIAL_EXTRA]
    size_t pair_floats;
    bool split;   // this step's attention over the context
    bool whole;   // a piece of attention work is all rows of a request
    bool narrow;  // few rows

    // of the step that runs
    const Batch* batch;
    const StepOutput* output;
};

}  // namespace octavo
