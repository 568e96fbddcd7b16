// Benchmark of the native thread pool: nanoseconds of a barrier, of an empty run with awake workers, of a run that wakes them.
//
// Argument: threads.
#include <cstdio>
#include <cstdlib>
#include <time.h>

#include "thread_pool.hpp"

namespace {

constexpr int BATCHES = 101, BARRIERS = 100, RUNS = 50, WAKES = 2;

double now_ns() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e9 * double(t.tv_sec) + double(t.tv_nsec);
}

void nothing(void*, int) {}

void barriers(void* pool, int) {
    for (int i = 0; i < BARRIERS; i++) static_cast<octavo::ThreadPool*>(pool)->barrier();
}

int ascending(const void* a, const void* b) {
    const double x = *static_cast<const double*>(a), y = *static_cast<const double*>(b);
    return x < y ? -1 : x > y;
}

void report(const char* what, double* ns) {
    std::qsort(ns, BATCHES, sizeof *ns, ascending);
    std::printf("%-8s %9.0f ns  (fastest %.0f, quartiles %.0f and %.0f)\n", what, ns[BATCHES / 2], ns[0], ns[BATCHES / 4],
                ns[3 * BATCHES / 4]);
}

}  // namespace

int main(int argc, char** argv) {
    octavo::ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : 2);
    double barrier[BATCHES], run[BATCHES], wake[BATCHES];
    for (int i = 0; i < BATCHES; i++) {
        double start = now_ns();
        pool.run(barriers, &pool);
        barrier[i] = (now_ns() - start) / BARRIERS;
        start = now_ns();
        for (int j = 0; j < RUNS; j++) pool.run(nothing, nullptr);
        run[i] = (now_ns() - start) / RUNS;
        wake[i] = 0;
        for (int j = 0; j < WAKES; j++) {
            const timespec asleep = {0, 1'000'000};
            nanosleep(&asleep, nullptr);
            start = now_ns();
            pool.run(nothing, nullptr);
            wake[i] += (now_ns() - start) / WAKES;
        }
    }
    std::printf("%d threads, medians of %d batches\n", pool.size(), BATCHES);
    report("barrier", barrier);
    report("run", run);
    report("wake", wake);
    return 0;
}
