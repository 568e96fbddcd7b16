// Interface of the native step: create its state, run a batch through the model, sample tokens from its logits.
#pragma once

#include "../sampling/native/sampling.hpp"
#include "step_state.hpp"

namespace octavo {

// null if there is not enough memory. `model` and what it points to must outlive the state.
StepState* new_step_state(const Model* model, const KernelTable* table, int num_threads, int max_rows, int max_logit_rows);
void delete_step_state(StepState* state);

// Writes the keys and values of every row, and the logits of the wanted ones. One step of a state at a time.
StepError run_step(StepState& state, const Batch& batch, const StepOutput& output);

// Draws tokens[i] for rows[i] of the last step's output (rows[i].row of its logits); -1 where a row is not sound.
void run_sampling(StepState& state, const StepOutput& output, const SamplingRow* rows, int n, int32_t* tokens);

// Everything a step will index with, checked before a thread starts.
StepError check_batch(const StepState& state, const Batch& batch);
// Sets the state's unit_starts, split_kv, whole_requests and few_rows for a batch that was checked.
void plan_attention(StepState& state, const Batch& batch);

}  // namespace octavo
