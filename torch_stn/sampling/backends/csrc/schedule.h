// Threads, scratch memory and pages.
#pragma once
#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <new>

namespace stn {

constexpr int64_t SERIAL_WORK = 8192;  // numbers of a result that one thread makes sooner than two can be woken

// A child of fork() has none of its parent's OpenMP threads, and waiting for them would hang.
inline std::atomic<bool>& forked() {
    static std::atomic<bool> is_child{false};
    return is_child;
}
inline void watch_forks() {
    static const int once = pthread_atfork(nullptr, nullptr, [] { forked() = true; });
    (void)once;
}

// f(begin, end) over all tasks. What a task computes must not depend on who runs it: same bits for any thread count.
template <class F> void parallel(int64_t tasks, int64_t work, int64_t threads, F f) {
    if (threads > tasks) threads = tasks;
    if (threads <= 1 || work < SERIAL_WORK || forked()) return f((int64_t)0, tasks);
    watch_forks();
#pragma omp parallel num_threads((int)threads)
    {
        const int64_t me = omp_get_thread_num(), all = omp_get_num_threads();
        f(tasks * me / all, tasks * (me + 1) / all);
    }
}

// Memory of this thread, kept for the next call; each slot is one array.
template <class T> T* scratch(int slot, int64_t count) {
    struct Memory {
        void* at[3] = {};
        size_t bytes[3] = {};
        ~Memory() {
            for (void* p : at) free(p);
        }
    };
    static thread_local Memory memory;
    const size_t bytes = ((size_t)count * sizeof(T) + 4095) & ~(size_t)4095;
    if (memory.bytes[slot] < bytes) {
        free(memory.at[slot]);
        memory.at[slot] = aligned_alloc(4096, bytes);
        memory.bytes[slot] = memory.at[slot] ? bytes : 0;
        if (!memory.at[slot]) throw std::bad_alloc();
    }
    return (T*)memory.at[slot];
}

inline void ask_huge_pages(void* p, int64_t bytes, int64_t from) {
#ifdef MADV_HUGEPAGE
    if (!p || bytes < from) return;
    const uintptr_t begin = ((uintptr_t)p + 4095) & ~(uintptr_t)4095, end = ((uintptr_t)p + bytes) & ~(uintptr_t)4095;
    if (end > begin) madvise((void*)begin, end - begin, MADV_HUGEPAGE);
#endif
}

}  // namespace stn
