// The whole step, and the making of what it works in.
#pragma once

#include "../sampling/native/sampling.hpp"
#include "session.hpp"

namespace octavo {

// null if there is not enough memory. `model` and what it points to must outlive the session.
Session* new_session(const Model* model, const Table* table, int num_threads, int max_rows, int max_logit_rows);
void delete_session(Session* session);

// Writes the keys and values of every row, and the logits of the wanted ones. One step of a session at a time.
StepError run_step(Session& session, const Batch& batch, const StepOutput& output);

// Draws tokens[i] for rows[i] of the last step's output (rows[i].row of its logits); -1 where a row is not sound.
void run_sampling(Session& session, const StepOutput& output, const SamplingRow* rows, int n, int32_t* tokens);

}  // namespace octavo
