// SPDX-License-Identifier: MIT
// Preloaded, it makes of any program one that has locked a page, and so is traced by `mlockwipe run`.
#include <sys/mman.h>

__attribute__((constructor)) static void lock_a_page(void) {
    void *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page != MAP_FAILED && mlock(page, 4096) == 0)
        *(volatile int *)page = 1;
}
