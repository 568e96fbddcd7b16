// Test program of the NEON linear kernels under qemu: reads cases from the standard input, writes their results.
//
// A case, as test_native_neon.py writes it: nine sizes, the weight's three parts with their lengths, the rows. Its result: the
// quantized rows, the product, the weight's unpacked rows.
#define OCTAVO_ISA neon
#define OCTAVO_NEON 1
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "native/kernel_table.hpp"
#include "linear/native/linear.hpp"

using namespace octavo;

namespace {

template <class T>
std::vector<T> take(size_t count) {
    std::vector<T> room(count + 64);  // vectors may read past the end
    if (count && std::fread(room.data(), sizeof(T), count, stdin) != count) std::exit(2);
    return room;
}
template <class T>
void put(const std::vector<T>& from, size_t count) {
    if (std::fwrite(from.data(), sizeof(T), count, stdout) != count) std::exit(3);
}
std::vector<uint8_t> take_part() { return take<uint8_t>(size_t(take<int64_t>(1)[0])); }

void one_case(const int32_t* size) {
    const std::vector<uint8_t> elements = take_part(), scales = take_part(), mins = take_part();
    Matrix w = {};
    w.format = Format(size[0]), w.scale_type = ScaleType(size[1]), w.n = size[2], w.k = size[3];
    w.num_tiles = size[4], w.num_groups = size[5], w.scales_per_group = size[6];
    w.elements = const_cast<uint8_t*>(elements.data());
    w.scales = size[7] ? const_cast<uint8_t*>(scales.data()) : nullptr;
    w.mins = mins.size() > 64 ? const_cast<uint8_t*>(mins.data()) : nullptr;
    const int rows = size[8], width = w.num_tiles * TILE;
    const std::vector<float> x = take<float>(size_t(rows) * w.k);

    const size_t groups = size_t(rows) * w.num_groups;
    std::vector<int8_t> q(groups * GROUP + 64);
    std::vector<float> row_scales(groups), sums(groups), sums_of_16(2 * groups), floats(groups * GROUP + 64);
    std::vector<int32_t> offsets(groups);
    const Activations to = {q.data(), row_scales.data(), sums.data(), sums_of_16.data(), offsets.data(), floats.data(), w.num_groups};
    for (int r = 0; r < rows; ++r) neon::quantize(x.data() + size_t(r) * w.k, w.k, to, r);

    std::vector<float> out(size_t(rows) * width), alone(width), unpacked(size_t(w.n) * w.k);
    neon::linear(w, to, 0, rows, 0, w.num_tiles, {out.data(), width, false});
    for (int r = 0; r < rows; ++r) {  // a row is the same bits in any batch
        neon::linear(w, to, r, r + 1, 0, w.num_tiles, {alone.data(), width, false});
        if (std::memcmp(alone.data(), out.data() + size_t(r) * width, width * sizeof(float))) std::exit(4);
    }
    for (int n = 0; n < w.n; ++n) neon::unpack_row(w, n, unpacked.data() + size_t(n) * w.k);
    put(q, groups * GROUP), put(row_scales, groups), put(sums, groups), put(sums_of_16, 2 * groups), put(offsets, groups);
    put(floats, groups * GROUP), put(out, out.size()), put(unpacked, unpacked.size());
}

}  // namespace

int main() {
    for (int32_t size[9]; std::fread(size, sizeof size, 1, stdin) == 1;) one_case(size);
    return 0;
}
