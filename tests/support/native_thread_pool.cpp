// Stress test of octavo::ThreadPool: barriers, runs, sleep and wake-up, destruction; exits 0 if every guarantee held.
//
// Arguments: threads, rounds. Built by test_native_thread_pool.py, also under the thread sanitizer, which sees what a lucky run
// does not.
#include <cstdio>
#include <cstdlib>
#include <time.h>

#include "thread_pool.hpp"

using octavo::ThreadPool;

namespace {

#define MUST(condition)                                                                 \
    if (!(condition)) {                                                                 \
        std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
        std::exit(1);                                                                   \
    }

struct Meeting {
    ThreadPool* pool;
    int rounds;
    long long slots[ThreadPool::MAX_THREADS];  // plain on purpose: only the barrier orders the accesses
    long long runs[ThreadPool::MAX_THREADS];
};

// Every thread's writes before a barrier are seen by all after it, and nobody runs ahead of the second one.
void meet(void* context, int thread) {
    Meeting& m = *static_cast<Meeting*>(context);
    for (int round = 1; round <= m.rounds; round++) {
        m.slots[thread] = 1000LL * round + thread;
        m.pool->barrier();
        for (int other = 0; other < m.pool->size(); other++) MUST(m.slots[other] == 1000LL * round + other);
        m.pool->barrier();
    }
    m.runs[thread]++;
}

void sleep_us(int us) {
    const timespec t = {0, us * 1000L};
    nanosleep(&t, nullptr);
}

double cpu_seconds() {
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

void run_often(ThreadPool& pool, int runs, int rounds, int pause_us) {
    Meeting m = {};
    m.pool = &pool;
    m.rounds = rounds;
    for (int i = 1; i <= runs; i++) {
        pool.run(meet, &m);
        // run() has returned: all have finished, and this thread sees what they wrote
        for (int thread = 0; thread < pool.size(); thread++) MUST(m.runs[thread] == i);
        if (pause_us) sleep_us((i * 37) % pause_us);  // around the moment at which the workers fall asleep
    }
}

}  // namespace

int main(int argc, char** argv) {
    const int threads = argc > 1 ? std::atoi(argv[1]) : 2, rounds = argc > 2 ? std::atoi(argv[2]) : 1000;
    ThreadPool pool(threads);
    MUST(pool.size() == (threads < 1 ? 1 : threads));
    run_often(pool, 1, rounds, 0);       // barriers
    run_often(pool, rounds, 0, 0);       // runs one after the other
    run_often(pool, rounds, 1, 0);
    run_often(pool, rounds / 4, 1, 250);  // sleep and wake
    sleep_us(20'000);
    const double before = cpu_seconds();
    sleep_us(300'000);
    MUST(cpu_seconds() - before < 0.1);  // an idle pool costs nothing
    for (int i = 0; i < rounds / 20; i++) {
        ThreadPool other(1 + i % 5);  // one that never runs, one that has run, one that sleeps
        if (i % 3) run_often(other, i % 4, 2, 0);
        if (i % 7 == 0) sleep_us(200);
    }
    std::puts("thread pool: all held");
    return 0;
}
