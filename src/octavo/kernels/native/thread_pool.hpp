// Thread pool with barriers: every thread runs the same function and meets the others inside it.
//
// A step has some hundred barriers of a microsecond each, so waiting spins; a thread that finds the machine oversubscribed
// yields, and between steps the workers go to sleep after `SPIN_NS`, so an idle server costs nothing.
#pragma once

#include <atomic>
#include <cstdint>

namespace octavo {

class ThreadPool {
   public:
    static constexpr int MAX_THREADS = 256;

    // The caller of run() is thread 0. Fewer threads than asked for where the system gives no more: see size().
    explicit ThreadPool(int num_threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int size() const { return num_threads_; }
    // function(context, thread) on every thread; returns when all have. One run() at a time.
    void run(void (*function)(void*, int), void* context);
    // Inside run(): wait for all threads. Everything written before it is seen by all after it.
    void barrier();

   private:
    struct Impl;
    Impl* impl_;
    int num_threads_;
};

struct Range {
    int begin, end;
};

// Part `index` of `parts` of n items in units of `unit`: contiguous, as even as can be.
static inline Range share(int n, int parts, int index, int unit = 1) {
    const int64_t units = (n + unit - 1) / unit;
    const int begin = int(units * index / parts) * unit, end = int(units * (index + 1) / parts) * unit;
    return {begin < n ? begin : n, end < n ? end : n};
}

}  // namespace octavo
