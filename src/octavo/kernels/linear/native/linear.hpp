// y = W x + b over packed weights: the operation's native back end. See types.hpp for the layouts.
#pragma once

namespace octavo::OCTAVO_ISA {
namespace {

void linear(const Matrix& w, const Activations& x, int row0, int row1, int tile0, int tile1, const Output& out) {
    (void)w, (void)x, (void)row0, (void)row1, (void)tile0, (void)tile1, (void)out;
}
void unpack_row(const Matrix& w, int n, float* out) { (void)w, (void)n, (void)out; }
void quantize(const float* x, int k, const Activations& to, int row) { (void)x, (void)k, (void)to, (void)row; }

}  // namespace
}  // namespace octavo::OCTAVO_ISA
