// Heap allocation of objects without operator new: the library needs no C++ runtime, so it loads beside any version of it.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

namespace octavo {

constexpr size_t CACHE_LINE = 64;

// `count` objects, aligned to a cache line; null where there is no memory.
template <typename T, typename... Arguments>
T* create(size_t count, Arguments... arguments) {
    static_assert(alignof(T) <= CACHE_LINE);
    const size_t bytes = (count * sizeof(T) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    T* objects = static_cast<T*>(std::aligned_alloc(CACHE_LINE, bytes));
    for (size_t i = 0; objects && i < count; i++) new (objects + i) T(arguments...);
    return objects;
}

// What create() made, or null.
template <typename T>
void destroy(T* objects, size_t count = 1) {
    for (size_t i = 0; objects && i < count; i++) objects[i].~T();
    std::free(objects);
}

}  // namespace octavo
