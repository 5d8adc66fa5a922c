// SPDX-License-Identifier: MIT
// librdkafka starts its threads by C11's thrd_create, which ThreadSanitizer of clang 14 does not
// know, so that it crashes in them. Here they are threads of POSIX, which it knows.

#include <cstdint>
#include <pthread.h>
#include <threads.h>

namespace {

struct Start {
    thrd_start_t run;
    void* with;
};

void* run(void* given) {
    const Start start = *static_cast<Start*>(given);
    delete static_cast<Start*>(given);
    return reinterpret_cast<void*>(static_cast<std::intptr_t>(start.run(start.with)));
}

} // namespace

extern "C" {

int thrd_create(thrd_t* thread, thrd_start_t start, void* with) {
    return pthread_create(thread, nullptr, run, new Start{start, with}) == 0 ? thrd_success
                                                                             : thrd_error;
}
int thrd_join(thrd_t thread, int* result) {
    void* value = nullptr;
    if (pthread_join(thread, &value) != 0) {
        return thrd_error;
    }
    if (result != nullptr) {
        *result = static_cast<int>(reinterpret_cast<std::intptr_t>(value));
    }
    return thrd_success;
}
int thrd_detach(thrd_t thread) {
    return pthread_detach(thread) == 0 ? thrd_success : thrd_error;
}

} // extern "C"
