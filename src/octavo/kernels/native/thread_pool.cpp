// Thread pool on POSIX threads: spinning barriers, workers that sleep when no run comes.
//
// POSIX threads and atomics only: no C++ runtime, see storage.hpp.
#include "thread_pool.hpp"
#include "storage.hpp"

#include <pthread.h>
#include <sched.h>
#include <time.h>

// glibc 2.34 gave these two a new version, which nothing here needs; by the first one the library loads with older ones too.
#if defined(__GLIBC__) && defined(__x86_64__)
__asm__(".symver pthread_create, pthread_create@GLIBC_2.2.5");
__asm__(".symver pthread_join, pthread_join@GLIBC_2.2.5");
#elif defined(__GLIBC__) && defined(__aarch64__)
__asm__(".symver pthread_create, pthread_create@GLIBC_2.17");
__asm__(".symver pthread_join, pthread_join@GLIBC_2.17");
#endif

namespace octavo {
namespace {

constexpr int64_t PAUSE_NS = 20'000;  // a wait this long is no longer a barrier's microsecond: somebody may need this core
constexpr int64_t SPIN_NS = 100'000;  // between two steps of a busy server; after it a worker sleeps
constexpr int PAUSES = 32;            // between two looks at the clock

int64_t now_ns() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return int64_t(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb" ::: "memory");  // `yield` does nothing on most ARM cores; this waits some ten nanoseconds
#endif
}

// Waits until `word` is no longer `old`. Gives the core away after PAUSE_NS, gives up after `limit_ns` (0: never).
bool wait_for_change(const std::atomic<uint32_t>& word, uint32_t old, int64_t limit_ns) {
    for (int i = 0; i < PAUSES; i++) {
        if (word.load(std::memory_order_acquire) != old) return true;
        pause();
    }
    for (const int64_t start = now_ns();;) {
        const int64_t waited = now_ns() - start;
        if (limit_ns && waited > limit_ns) return false;
        if (waited > PAUSE_NS) sched_yield();
        for (int i = 0; i < PAUSES; i++) {
            if (word.load(std::memory_order_acquire) != old) return true;
            pause();
        }
    }
}

}  // namespace

struct ThreadPool::Impl {
    struct Worker {
        Impl* impl;
        int thread;
        pthread_t handle;
    };

    // What the waiters spin on lies in cache lines of its own: an arrival must not disturb them.
    alignas(64) std::atomic<uint32_t> arrived{0};  // threads that have come to the present barrier
    alignas(64) std::atomic<uint32_t> passed{0};   // barriers that all have reached
    alignas(64) std::atomic<uint32_t> runs{0};     // calls of run(); function and context belong to the last
    void (*function)(void*, int) = nullptr;        // null: the workers end
    void* context = nullptr;
    alignas(64) std::atomic<int> sleeping{0};
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
    int num_threads = 1;
    Worker workers[ThreadPool::MAX_THREADS];

    void barrier() {
        const uint32_t before = passed.load(std::memory_order_relaxed);
        if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == uint32_t(num_threads)) {
            arrived.store(0, std::memory_order_relaxed);  // nobody comes again before `passed` has moved
            passed.store(before + 1, std::memory_order_release);
        } else {
            wait_for_change(passed, before, 0);
        }
    }

    void start(void (*f)(void*, int), void* c) {
        function = f;
        context = c;
        // Sequentially consistent on both sides: either the caller sees the sleeper, or the sleeper sees the new run.
        runs.fetch_add(1, std::memory_order_seq_cst);
        if (sleeping.load(std::memory_order_seq_cst) == 0) return;
        pthread_mutex_lock(&mutex);
        pthread_cond_broadcast(&wake);
        pthread_mutex_unlock(&mutex);
    }

    void sleep_until_run(uint32_t seen) {
        pthread_mutex_lock(&mutex);
        sleeping.fetch_add(1, std::memory_order_seq_cst);
        while (runs.load(std::memory_order_seq_cst) == seen) pthread_cond_wait(&wake, &mutex);
        sleeping.fetch_sub(1, std::memory_order_relaxed);
        pthread_mutex_unlock(&mutex);
    }

    void work(int thread) {
        // Runs are counted from 0 and none is missed: the barrier at the end of each waits for this thread.
        for (uint32_t seen = 0;; seen++) {
            if (!wait_for_change(runs, seen, SPIN_NS)) sleep_until_run(seen);
            if (!function) return;
            function(context, thread);
            barrier();
        }
    }

    static void* enter(void* worker) {
        static_cast<Worker*>(worker)->impl->work(static_cast<Worker*>(worker)->thread);
        return nullptr;
    }
};

ThreadPool::ThreadPool(int num_threads) : impl_(nullptr), num_threads_(1) {
    if (num_threads > MAX_THREADS) num_threads = MAX_THREADS;
    if (num_threads <= 1) return;
    impl_ = create<Impl>(1);
    if (!impl_) return;  // the caller's thread alone
    while (num_threads_ < num_threads) {
        Impl::Worker& worker = impl_->workers[num_threads_];
        worker.impl = impl_;
        worker.thread = num_threads_;
        if (pthread_create(&worker.handle, nullptr, Impl::enter, &worker)) break;  // the limit of processes: a smaller pool
        num_threads_++;
    }
    impl_->num_threads = num_threads_;  // published to the workers by the first run
}

ThreadPool::~ThreadPool() {
    if (!impl_) return;
    impl_->start(nullptr, nullptr);
    for (int i = 1; i < num_threads_; i++) pthread_join(impl_->workers[i].handle, nullptr);
    pthread_mutex_destroy(&impl_->mutex);
    pthread_cond_destroy(&impl_->wake);
    destroy(impl_);
}

void ThreadPool::run(void (*function)(void*, int), void* context) {
    if (num_threads_ == 1) return function(context, 0);
    impl_->start(function, context);
    function(context, 0);
    impl_->barrier();
}

void ThreadPool::barrier() {
    if (num_threads_ > 1) impl_->barrier();
}

}  // namespace octavo
