// Transformer weights, step output and error codes as plain structs that Python fills in (structs.py).
#pragma once

#include "kernel_table.hpp"

namespace octavo {

enum class GateActivation : int32_t { SILU = 0, GELU_TANH = 1 };

// Vectors are float32; null where the architecture has no such weight.
struct Layer {
    Matrix q, k, v, output, gate, up, down;
    const float* input_norm;
    const float* mlp_norm;
    const float* post_attention_norm;
    const float* post_mlp_norm;
    const float* q_norm;  // [head_dim], over each head before the rotation
    const float* k_norm;
    int32_t window;
    int32_t unused;
};

struct Model {
    int32_t vocab_size, hidden_size, intermediate_size, num_layers, num_heads, num_kv_heads, head_dim;
    GateActivation gate;
    float rms_norm_eps, attention_scale, soft_cap, embedding_scale;
    Matrix embedding, head;  // the same one where they are tied
    const float* norm;
    const float* inv_freq;  // [head_dim / 2], radians per position
    const float* windowed_inv_freq;
    const Layer* layers;
    KvShape kv;
    const KvLayer* kv_layers;
};

// What one step yields: for each logit row its logits (rows padded to whole tiles) and the id of the largest.
struct StepOutput {
    float* logits;   // [num_logit_rows][num_tiles * 16]
    int32_t* tokens; // [num_logit_rows]; -1 where the largest is not finite
};

enum StepError : int32_t { STEP_OK = 0, STEP_TOO_LARGE = 1, STEP_BAD_TOKEN = 2, STEP_BAD_BATCH = 3 };

}  // namespace octavo
