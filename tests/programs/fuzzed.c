// SPDX-License-Identifier: MIT
// fuzzed SCRIPTS: executes generated scripts (tests/support/fuzz_scripts.py says what is in them), each in a child of its own,
// and prints what was seen of each: results, memory, what pages shown to a witness hold, and how the child ended.
//
// The same script prints the same whenever it is run, whatever addresses the kernel chooses: so two runs, one of them
// under a supervisor, can be compared. All that is printed lies in shared memory until the child is gone.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define ARENA 0x100000000000UL // the generator's own addresses; nothing else is ever mapped there
#define ARENA_END (ARENA + (1UL << 32))
#define SCRATCH (ARENA_END + PAGE) // structures that calls are given the address of
#define THREADS 4
#define LINES 400
#define WORDS 10
#define TEXT 65536
#define SHOWN 128 // pages before one witness
#define SEGMENT 8 // pages
#define LIMIT 20 // seconds for one script: only a hang takes so long

enum { FILE_FD = 200, MEMFD, PIPE_R, PIPE_W, SOCKET_A, SOCKET_B, EVENT, EPOLL, SELF, WITNESS };

typedef struct {
    char kind; // of its value: a number, B the first program break, S a segment of shared memory, T a thread's id,
    long value; // $ the result of a line
    long offset;
} Word;

typedef struct {
    int thread, words;
    char op[12];
    Word word[WORDS];
} Line;

typedef struct {
    uint64_t tag;
    int sensitive, unsure, alive;
} Page;

typedef struct {
    Page page[SHOWN];
    int count;
} Shown;

// What outlives the child that executes a script.
typedef struct {
    long result[LINES];
    Shown shown[THREADS];
    size_t used[THREADS];
    int paused[THREADS];
    char text[THREADS][TEXT];
} Seen;

static Line lines[LINES];
static int count, race;
static int alone; // what the other threads have shown is none of ours
static Seen *seen;
static char *first_break;
static int segment;
static char file_path[4096];

static pid_t tids[THREADS];
static sem_t go[THREADS], done[THREADS];
static int order[THREADS], finished[THREADS];
static volatile int handled[65], handles[65];
static pthread_t pthreads[THREADS];

static __thread sigjmp_buf *volatile landing;
static __thread int me;
static __thread struct timespec began;
// Whether plain pages may be wiped: after a fork, for what was inherited may be known by its place, and after MREMAP_DONTUNMAP, by which all of
// the old mapping is unlocked, also what was not moved (dontunmap_complete in mm/mremap.c, Linux 6.18).
static int unsure[THREADS];
static unsigned char inherited[LINES * 64]; // of each tag: sensitive in the parent at the fork
static char stack_of_clone[THREADS][65536] __attribute__((aligned(16)));

static void die(const char *what) {
    dprintf(2, "fuzzed: %s: %s\n", what, strerror(errno));
    _exit(99);
}

static void check(int holds, const char *what) {
    if (!holds)
        die(what);
}

static void say(const char *format, ...) {
    va_list arguments;
    size_t room = TEXT - seen->used[me];
    va_start(arguments, format);
    int length = vsnprintf(seen->text[me] + seen->used[me], room, format, arguments);
    va_end(arguments);
    if (length > 0 && (size_t)length < room)
        seen->used[me] += length;
}

// -- memory -----------------------------------------------------------------------------------------------------------

static void on_fault(int number) {
    if (landing)
        siglongjmp(*landing, number);
    signal(number, SIG_DFL);
}

// A tag says by which line, and as which of its pages, a page was written.
static uint64_t tag_of(int line, unsigned long page) {
    return 0x5EC7000000000000UL | (uint64_t)line << 6 | (page & 63);
}

static int is_tag(uint64_t tag) {
    return tag >> 32 == 0x5EC70000UL && (tag & 0xFFFFFFFF) < sizeof inherited;
}

static unsigned char *inherits(uint64_t tag) {
    return &inherited[tag & 0xFFFFFFFF];
}

// What a page holds: its tag, 0, or 1 for anything else.
static uint64_t content(const uint64_t *words) {
    for (size_t i = 1; i < PAGE / 8; i++)
        if (words[i] != words[0])
            return 1;
    return words[0] == 0 || is_tag(words[0]) ? words[0] : 1;
}

static void print_content(uint64_t tag) {
    if (is_tag(tag))
        say(" %lu.%lu", (tag & 0xFFFFFFFF) >> 6, tag & 63);
    else
        say(" %s", tag ? "other" : "zero");
}

// Of each page that is present: its address, whether it is private and locked, and what it holds.
typedef void Visit(unsigned long page, int private_locked, uint64_t tag, void *context);

static size_t read_all(const char *path, char *buffer, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t used = 0;
    ssize_t got;
    if (fd < 0)
        return 0;
    while (used < size - 1 && (got = read(fd, buffer + used, size - 1 - used)) > 0)
        used += got;
    buffer[used] = 0;
    close(fd);
    return used;
}

#define SMAPS (1UL << 18)
static char *smaps_buffers; // one for each thread

static void visit(unsigned long low, unsigned long high, Visit *each, void *context) {
    char *text = smaps_buffers + me * SMAPS;
    read_all("/proc/thread-self/smaps", text, SMAPS);
    int memory = open("/proc/thread-self/mem", O_RDONLY | O_CLOEXEC);
    int pagemap = open("/proc/thread-self/pagemap", O_RDONLY | O_CLOEXEC);
    unsigned long start = 0, end = 0;
    int private = 0, ours = 0;
    for (char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        unsigned long from, to, inode;
        char permissions[5];
        if (sscanf(line, "%lx-%lx %4s %*s %*s %lu", &from, &to, permissions, &inode) == 4) {
            start = from;
            end = to;
            private = permissions[3] == 'p';
            ours = (start >= ARENA && start < ARENA_END) || (!inode && private && end - start < 1UL << 28);
            continue;
        }
        if (!ours || strncmp(line, "VmFlags:", 8) || start >= high || end <= low)
            continue;
        char *next = strchr(line, '\n');
        char *flag = strstr(line, " lo ");
        int locked = flag && next && flag < next;
        for (unsigned long at = start; at < end; at += PAGE) {
            uint64_t entry = 0, words[PAGE / 8];
            if (pread(pagemap, &entry, 8, at / PAGE * 8) != 8 || !(entry >> 63))
                continue;
            if (at < low || at >= high || pread(memory, words, PAGE, at) != (ssize_t)PAGE)
                continue;
            each(at, private && locked, content(words), context);
        }
    }
    close(memory);
    close(pagemap);
}

static void be_unsure(void) {
    for (int i = 0; i < THREADS; i++)
        if (i == me || !alone)
            unsure[i] = 1;
}

static void visit_all(Visit *each, void *context) {
    visit(0, ~0UL, each, context);
}

static void note_page(unsigned long page, int locked, uint64_t tag, void *context) {
    Shown *shown = context;
    (void)page;
    for (int i = 0; i < shown->count; i++)
        if (shown->page[i].tag == tag) {
            shown->page[i].alive = 1;
            shown->page[i].sensitive = locked || *inherits(tag);
        }
}

// Which of the shown pages are still mapped, and are those sensitive? What is gone remains what it was.
static void update(Shown *shown) {
    if (!shown->count)
        return;
    for (int i = 0; i < shown->count; i++) {
        shown->page[i].alive = 0;
        shown->page[i].unsure = unsure[shown - seen->shown];
    }
    visit_all(note_page, shown);
}

// What the shown pages hold. `all_gone`: the process that showed them is no more.
static void look_at(int thread, int all_gone) {
    Shown *shown = &seen->shown[thread];
    uint64_t words[PAGE / 8];
    if (all_gone)
        for (int i = 0; i < shown->count; i++)
            shown->page[i].alive = 0;
    else
        update(shown);
    for (int i = 0; i < shown->count; i++) {
        Page *page = &shown->page[i];
        size_t used = 0;
        ssize_t got;
        while (used < PAGE && (got = read(WITNESS + 2 * thread, (char *)words + used, PAGE - used)) > 0)
            used += got;
        say(" |");
        print_content(page->tag);
        say(" %s %s:", page->sensitive ? "sensitive" : page->unsure ? "unsure" : "plain",
            page->alive ? "alive" : "gone");
        if (used == PAGE)
            print_content(content(words));
        else
            say(" missing");
    }
    shown->count = 0;
}

static void look(int all_gone) {
    look_at(me, all_gone);
}

// Each answers with the signal that it met, or 0.
static __attribute__((noinline)) int write_page(uint64_t tag, volatile uint64_t *words) {
    sigjmp_buf here;
    int met = sigsetjmp(here, 1);
    landing = met ? NULL : &here;
    if (met)
        return met;
    uint64_t before = words[0];
    if (is_tag(before) && *inherits(before))
        *inherits(tag) = 1;
    for (size_t i = 0; i < PAGE / 8; i++)
        words[i] = tag;
    landing = NULL;
    return 0;
}

static __attribute__((noinline)) int read_page(uint64_t *tag, const uint64_t *words) {
    sigjmp_buf here;
    int met = sigsetjmp(here, 1);
    landing = met ? NULL : &here;
    if (met)
        return met;
    *tag = content(words);
    landing = NULL;
    return 0;
}

static const char *signal_name(int met) {
    return met == SIGBUS ? "BUS" : "SEGV";
}

static void fill(int line, unsigned long address, unsigned long pages, int show) {
    Shown *shown = &seen->shown[me];
    for (unsigned long i = 0; i < pages && i < 64; i++) {
        struct iovec page = {(void *)(address + i * PAGE), PAGE};
        int met = write_page(tag_of(line, i), page.iov_base);
        if (met)
            say(" %s", signal_name(met));
        else if (show && shown->count < SHOWN && vmsplice(WITNESS + 2 * me + 1, &page, 1, SPLICE_F_NONBLOCK) > 0)
            shown->page[shown->count++] = (Page){.tag = tag_of(line, i), };
    }
    update(shown);
}

static void print_memory(unsigned long address, unsigned long pages) {
    for (unsigned long i = 0; i < pages && i < 64; i++) {
        uint64_t found = 0;
        int met = read_page(&found, (const uint64_t *)(address + i * PAGE));
        if (met)
            say(" %s", signal_name(met));
        else
            print_content(found);
    }
}

static void print_flags(unsigned long page, int locked, uint64_t tag, void *context) {
    (void)context;
    say(" %lx%s", (page - ARENA) / PAGE, locked ? "L" : "");
    print_content(tag);
}

static void forget_page(unsigned long page, int locked, uint64_t tag, void *context) {
    (void)page, (void)locked, (void)context;
    if (is_tag(tag))
        *inherits(tag) = 0;
}

static void inherit_page(unsigned long page, int locked, uint64_t tag, void *context) {
    (void)page;
    if (is_tag(tag) && locked)
        ((unsigned char *)context)[tag & 0xFFFFFFFF] = 1;
}

// -- calls ------------------------------------------------------------------------------------------------------------

static long value_of(const Word *word) {
    switch (word->kind) {
    case 'B':
        return (long)first_break + word->offset;
    case 'S':
        return segment;
    case 'T':
        return tids[word->value & (THREADS - 1)];
    case '$':
        return seen->result[word->value] + word->offset;
    default:
        return word->value;
    }
}

static void print_result(long result) {
    unsigned long address = result;
    if (result > -4096 && result < 1L << 32)
        say(" = %ld", result);
    else if (address >= ARENA && address < ARENA_END + (1UL << 20))
        say(" = arena+%lx", address - ARENA);
    else if (address >= (unsigned long)first_break && address < (unsigned long)first_break + (1UL << 30))
        say(" = break+%lx", address - (unsigned long)first_break);
    else
        say(" = somewhere");
}

static long raw_call(const Line *line) {
    long argument[7] = {0};
    for (int i = 0; i < line->words && i < 7; i++)
        argument[i] = value_of(&line->word[i]);
    long result = syscall(argument[0], argument[1], argument[2], argument[3], argument[4], argument[5], argument[6]);
    if (result == -1)
        result = -errno;
    // A child's copies of what it has unlocked are its own affair.
    if (result == 0 && argument[0] == SYS_munlock)
        visit(argument[1] & -PAGE, argument[1] + argument[2], forget_page, NULL);
    if (result == 0 && argument[0] == SYS_munlockall)
        memset(inherited, 0, sizeof inherited);
    if (result >= 0 && argument[0] == SYS_mremap && argument[4] & MREMAP_DONTUNMAP)
        be_unsure();
    return result;
}

static long milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - began.tv_sec) * 1000 + (now.tv_nsec - began.tv_nsec) / 1000000;
}

// io_uring: one request and its completion. The ring is gone again afterwards.
static long uring(int opcode, int fd, unsigned long address, unsigned length, unsigned long offset, int advice) {
    struct io_uring_params params = {0};
    int ring = syscall(SYS_io_uring_setup, 2, &params);
    if (ring < 0)
        return -errno;
    size_t size = params.sq_off.array + params.sq_entries * 4;
    size_t completions = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    size = size > completions ? size : completions;
    char *rings = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    struct io_uring_sqe *entry = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
    long result = -1000;
    if (rings != MAP_FAILED && entry != MAP_FAILED) {
        *entry = (struct io_uring_sqe){.opcode = opcode, .fd = fd, .addr = address, .len = length, .off = offset};
        entry->fadvise_advice = advice;
        ((unsigned *)(rings + params.sq_off.array))[0] = 0;
        __atomic_store_n((unsigned *)(rings + params.sq_off.tail), 1, __ATOMIC_RELEASE);
        unsigned *tail = (unsigned *)(rings + params.cq_off.tail);
        int entered = 0;
        for (int first = 1; !__atomic_load_n(tail, __ATOMIC_ACQUIRE) && entered >= 0; first = first && entered < 1) {
            entered = syscall(SYS_io_uring_enter, ring, first, 1, IORING_ENTER_GETEVENTS, NULL, 0);
            if (entered < 0 && errno == EINTR)
                entered = 0;
        }
        result = entered < 0 ? -errno : ((struct io_uring_cqe *)(rings + params.cq_off.cqes))[0].res;
    }
    if (rings != MAP_FAILED)
        munmap(rings, size);
    if (entry != MAP_FAILED)
        munmap(entry, PAGE);
    close(ring);
    return result;
}

// Native AIO: one request and its completion.
static long aio(int opcode, int fd, unsigned long address, unsigned length, unsigned long offset) {
    aio_context_t context = 0;
    struct iocb block = {.aio_lio_opcode = opcode, .aio_fildes = fd, .aio_buf = address, .aio_nbytes = length};
    struct iocb *blocks[] = {&block};
    struct io_event event = {0};
    block.aio_offset = offset;
    if (syscall(SYS_io_setup, 1, &context))
        return -errno;
    long result = syscall(SYS_io_submit, context, 1, blocks) == 1 ? 0 : -errno;
    if (result == 0) {
        while (syscall(SYS_io_getevents, context, 1, 1, &event, NULL) < 0 && errno == EINTR)
            ;
        result = event.res;
    }
    syscall(SYS_io_destroy, context);
    return result;
}

static void drain(int fd) {
    static char buffer[4 * PAGE];
    struct pollfd pending = {fd, POLLIN, 0};
    while (poll(&pending, 1, 0) == 1 && pending.revents & POLLIN && read(fd, buffer, sizeof buffer) > 0)
        ;
}

static void on_signal(int number) {
    __atomic_add_fetch(&handled[number], 1, __ATOMIC_SEQ_CST);
}

static void set_action(int number, int kind, int flags) {
    struct sigaction action = {.sa_flags = flags};
    action.sa_handler = kind == 0 ? SIG_DFL : kind == 1 ? SIG_IGN : on_signal;
    handles[number] = kind == 2;
    say(" = %d", sigaction(number, &action, NULL));
}

// A signal to a thread, and the end of its handler, if it has one.
static void send_signal(int thread, int number) {
    int before = handled[number];
    say(" = %ld", syscall(SYS_tgkill, getpid(), tids[thread], number));
    for (int i = 0; handles[number] && handled[number] == before; i++) {
        if (i > 20000) {
            say(" not handled");
            return;
        }
        usleep(100);
    }
}

// -- ends -------------------------------------------------------------------------------------------------------------

static void end(const char *kind) {
    static char *arguments[] = {"/proc/self/exe", "--exit", "7", NULL}, *environment[] = {NULL};
    say(" ends\n");
    if (!strcmp(kind, "exit"))
        syscall(SYS_exit_group, 3);
    else if (!strcmp(kind, "kill"))
        syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    else if (!strcmp(kind, "term")) {
        signal(SIGTERM, SIG_DFL);
        syscall(SYS_kill, syscall(SYS_getpid), SIGTERM);
        for (;;) // another thread may take it, and a traced one takes its time
            pause();
    } else if (!strcmp(kind, "segv")) {
        signal(SIGSEGV, SIG_DFL);
        syscall(SYS_tgkill, syscall(SYS_getpid), syscall(SYS_gettid), SIGSEGV);
    } else if (!strcmp(kind, "exec"))
        execve(arguments[0], arguments, environment);
    else if (!strcmp(kind, "thread"))
        syscall(SYS_exit, 0);
    else if (!strcmp(kind, "pause"))
        for (__atomic_store_n(&seen->paused[me], 1, __ATOMIC_SEQ_CST);;)
            pause();
    _exit(98);
}

// -- lines ------------------------------------------------------------------------------------------------------------

static int run(int number);

typedef struct {
    int from, to;
} Part;

static int run_part(void *argument) {
    Part *part = argument;
    for (int i = part->from; i < part->to;)
        i = run(i);
    update(&seen->shown[me]);
    say(" ends\n");
    syscall(SYS_exit, 0);
    return 0;
}

// The lines behind are a child's, which is awaited.
static void make_child(int number, const char *kind, int length, int killed) {
    Part part = {number + 1, number + 1 + length};
    int status = -1, flags = SIGCHLD;
    pid_t child, waited;
    for (int i = 0; i < THREADS; i++) // what is written to after a fork may be copied before
        if (i == me || !alone)
            look_at(i, 0);
    say("\n");
    seen->paused[me] = 0;
    if (!strcmp(kind, "fork")) {
        static unsigned char childs[THREADS][sizeof inherited];
        memcpy(childs[me], inherited, sizeof inherited);
        visit_all(inherit_page, childs[me]);
        child = syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);
        if (child == 0) {
            memcpy(inherited, childs[me], sizeof inherited);
            alone = 1;
            be_unsure();
            run_part(&part);
        }
    } else {
        flags |= CLONE_VM | (!strcmp(kind, "vfork") ? CLONE_VFORK : 0);
        child = clone(run_part, stack_of_clone[me] + sizeof stack_of_clone[me], flags, &part);
    }
    if (child > 0 && killed) {
        siginfo_t gone = {0};
        while (!__atomic_load_n(&seen->paused[me], __ATOMIC_SEQ_CST) && gone.si_pid == 0 &&
               waitid(P_PID, child, &gone, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0)
            usleep(50);
        kill(child, SIGKILL);
    }
    while ((waited = waitpid(child, &status, __WALL)) == -1 && errno == EINTR)
        ;
    say("%d: %s %s %x", number, kind, waited == child ? "waited for" : "not there", waited == child ? status : errno);
    look(strcmp(kind, "fork") == 0);
}

static int is(const Line *line, const char *name) {
    return !strcmp(line->op, name);
}

// Executes a line. Returns the number of the next one.
static int run(int number) {
    const Line *line = &lines[number];
    long v[WORDS] = {0};
    int next = number + 1;
    for (int i = 0; i < line->words; i++)
        v[i] = value_of(&line->word[i]);
    if (alone)
        update(&seen->shown[me]);
    else
        for (int i = 0; i < THREADS; i++)
            update(&seen->shown[i]);
    say("%d:", number);
    clock_gettime(CLOCK_MONOTONIC, &began);
    if (is(line, "call") || is(line, "quiet")) {
        seen->result[number] = raw_call(line);
        if (is(line, "call"))
            print_result(seen->result[number]);
        else if (seen->result[number] == -EINTR || seen->result[number] == -ENOSYS)
            say(" = %ld", seen->result[number]);
    } else if (is(line, "start")) { // a call that may take a while: v[7] ms, if it is to time out
        seen->result[number] = raw_call(line);
        print_result(seen->result[number]);
        if (v[7] && seen->result[number] != -EINTR && milliseconds() < v[7] - 2)
            say(" early");
        if (v[7] && milliseconds() > v[7] * 4 + 3000)
            say(" late");
    } else if (is(line, "fill") || is(line, "show"))
        fill(number, v[0], v[1], is(line, "show"));
    else if (is(line, "print"))
        print_memory(v[0], v[1]);
    else if (is(line, "flags"))
        visit(v[0], v[0] + v[1] * PAGE, print_flags, NULL);
    else if (is(line, "look"))
        look(0);
    else if (is(line, "drain"))
        drain(v[0]);
    else if (is(line, "poke"))
        *(long *)(SCRATCH + v[0]) = v[1];
    else if (is(line, "action"))
        set_action(v[0], v[1], v[2]);
    else if (is(line, "signal"))
        send_signal(v[0], v[1]);
    else if (is(line, "itimer")) {
        struct itimerval timer = {{0, v[0]}, {0, v[0]}};
        say(" = %d", setitimer(ITIMER_REAL, &timer, NULL));
    } else if (is(line, "uring"))
        say(" = %ld", uring(v[0], v[1], v[2], v[3], v[4], v[5]));
    else if (is(line, "aio"))
        say(" = %ld", aio(v[0], v[1], v[2], v[3], v[4]));
    else if (is(line, "noexec")) {
        char *arguments[] = {"x", NULL}, *environment[] = {NULL};
        const char *paths[] = {"/nowhere/at/all", "/proc", file_path};
        int result = execve(paths[v[0] % 3], arguments, environment);
        say(" = %d %d", result, errno);
    } else if (is(line, "fork") || is(line, "vfork") || is(line, "clonevm")) {
        make_child(number, line->op, v[0], v[1]);
        next += v[0];
    } else if (!strncmp(line->op, "end-", 4))
        end(line->op + 4);
    else
        die(line->op);
    say("\n");
    return next;
}

static int after(int number) {
    const Line *line = &lines[number];
    int part = is(line, "fork") || is(line, "vfork") || is(line, "clonevm");
    return number + 1 + (part ? line->word[0].value : 0);
}

static void await(sem_t *what) {
    while (sem_wait(what))
        ;
}

static void *work(void *argument) {
    me = (int)(long)argument;
    tids[me] = gettid();
    sem_post(&done[me]);
    for (;;) {
        await(&go[me]);
        if (order[me] < 0)
            for (int i = 0; i < count; i = after(i)) {
                if (lines[i].thread == me)
                    run(i);
            }
        else
            run(order[me]);
        __atomic_store_n(&finished[me], 1, __ATOMIC_SEQ_CST);
        sem_post(&done[me]);
    }
    return NULL;
}

static void await_blocked(int thread, long call) {
    char path[64], text[256], wanted[16];
    int length = snprintf(wanted, sizeof wanted, "%ld ", call);
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", tids[thread]);
    for (int i = 0; i < 50000 && !__atomic_load_n(&finished[thread], __ATOMIC_SEQ_CST); i++) {
        if (read_all(path, text, sizeof text) && !strncmp(text, wanted, length))
            return;
        usleep(100);
    }
}

static void hand_out(int thread, int what) {
    finished[thread] = 0;
    order[thread] = what;
    sem_post(&go[thread]);
}

// In turns: a line at a time, in the order of the script, but that a thread which has started a call is not awaited
// before it is given another line or the script says so.
static void in_turns(void) {
    int busy[THREADS] = {0};
    for (int i = 0; i < count; i = after(i)) {
        int thread = lines[i].thread;
        if (busy[thread]) {
            await(&done[thread]);
            busy[thread] = 0;
        }
        if (is(&lines[i], "join"))
            continue;
        if (thread == 0)
            run(i);
        else {
            hand_out(thread, i);
            if (is(&lines[i], "start")) {
                busy[thread] = 1;
                await_blocked(thread, lines[i].word[0].value);
            } else if (strncmp(lines[i].op, "end-", 4))
                await(&done[thread]);
            else
                for (;;)
                    pause();
        }
    }
}

// In a race: the lines of the other threads all at once, between those of the first.
static void in_a_race(void) {
    int i = 0, others = 0;
    for (; i < count && lines[i].thread == 0; i = after(i))
        run(i);
    for (int thread = 1; thread < THREADS; thread++)
        hand_out(thread, -1);
    for (int thread = 1; thread < THREADS; thread++)
        await(&done[thread]);
    alone = 0;
    for (int thread = 1; thread < THREADS; thread++)
        if (unsure[thread])
            be_unsure();
    for (i = 0; i < count; i = after(i)) {
        others |= lines[i].thread;
        if (others && lines[i].thread == 0)
            run(i);
    }
}

static void act(void) {
    struct sigaction faults = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};
    sigaction(SIGSEGV, &faults, NULL);
    sigaction(SIGBUS, &faults, NULL);
    first_break = sbrk(0);
    first_break += -(unsigned long)first_break & (PAGE - 1);
    check(brk(first_break) == 0, "brk");
    tids[0] = getpid();
    for (int i = 0; i < THREADS; i++) {
        sem_init(&go[i], 0, 0);
        sem_init(&done[i], 0, 0);
    }
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 1UL << 17); // mlockall makes all of it resident
    for (long i = 1; i < THREADS; i++) {
        check(pthread_create(&pthreads[i], &small, work, (void *)i) == 0, "pthread_create");
        await(&done[i]);
    }
    alone = race;
    if (race)
        in_a_race();
    else
        in_turns();
    for (int i = 0; i < THREADS; i++)
        update(&seen->shown[i]);
    _exit(0);
}

// -- scripts ----------------------------------------------------------------------------------------------------------

static const struct {
    const char *name;
    long value;
} names[] = {
#define CALL(name) {#name, SYS_##name},
    CALL(brk) CALL(clock_nanosleep) CALL(close) CALL(dup) CALL(epoll_pwait) CALL(epoll_wait) CALL(fsync)
    CALL(ftruncate) CALL(futex) CALL(getpid) CALL(getppid) CALL(ioctl) CALL(kcmp) CALL(madvise) CALL(mincore)
    CALL(mlock) CALL(mlock2) CALL(mlockall) CALL(mmap) CALL(mprotect) CALL(mremap) CALL(msync) CALL(munlock)
    CALL(munlockall) CALL(munmap) CALL(nanosleep) CALL(pidfd_send_signal) CALL(pkey_mprotect) CALL(poll)
    CALL(ppoll) CALL(prctl) CALL(pread64) CALL(process_madvise) CALL(process_vm_readv) CALL(process_vm_writev)
    CALL(pselect6) CALL(pwrite64) CALL(read) CALL(readv) CALL(recvfrom) CALL(remap_file_pages) CALL(rt_sigprocmask)
    CALL(rt_sigtimedwait) CALL(select) CALL(sendfile) CALL(sendto) CALL(setsockopt) CALL(shmat) CALL(shmdt)
    CALL(splice) CALL(tee) CALL(tgkill) CALL(tkill) CALL(vmsplice) CALL(wait4) CALL(write) CALL(writev)
    {"mseal", 462},
    {"file", FILE_FD}, {"memfd", MEMFD}, {"pipe_r", PIPE_R}, {"pipe_w", PIPE_W}, {"socket_a", SOCKET_A},
    {"socket_b", SOCKET_B}, {"event", EVENT}, {"epoll", EPOLL}, {"self", SELF},
};

static long named(const char *name) {
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i].name, name))
            return names[i].value;
    die(name);
    return 0;
}

static void parse_word(char *text, Word *word) {
    char *rest = text;
    word->kind = 0;
    if (*text >= 'a') {
        word->value = named(text);
        return;
    }
    if (strchr("BST$", *text))
        word->kind = *rest++;
    word->value = word->kind == 'B' ? 0 : strtol(rest, &rest, 0);
    if (!word->kind && errno == ERANGE)
        word->value = strtoul(text, &rest, 0);
    word->offset = strtol(rest, NULL, 0);
}

static void parse(char *text) {
    char *rest, *word;
    Line *line = &lines[count];
    check(count < LINES, "too many lines");
    memset(line, 0, sizeof *line);
    line->thread = atoi(strtok_r(text, " ", &rest)) & (THREADS - 1);
    snprintf(line->op, sizeof line->op, "%s", strtok_r(NULL, " ", &rest));
    while (line->words < WORDS && (word = strtok_r(NULL, " ", &rest))) {
        errno = 0;
        parse_word(word, &line->word[line->words++]);
    }
    count++;
}

static void place(int fd, int number) {
    check(fd >= 0 && dup2(fd, number) == number, "dup2");
    close(fd);
}

static void open_all(void) {
    int pair[2];
    snprintf(file_path, sizeof file_path, "%s/fuzzed-XXXXXX", getenv("TMPDIR") ?: "/tmp");
    place(mkstemp(file_path), FILE_FD);
    check(ftruncate(FILE_FD, 16 * PAGE) == 0, "ftruncate");
    place(memfd_create("fuzzed", 0), MEMFD);
    check(ftruncate(MEMFD, 16 * PAGE) == 0, "ftruncate");
    check(pipe(pair) == 0, "pipe");
    place(pair[0], PIPE_R);
    place(pair[1], PIPE_W);
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
    place(pair[0], SOCKET_A);
    place(pair[1], SOCKET_B);
    place(eventfd(0, 0), EVENT);
    place(epoll_create1(0), EPOLL);
    struct epoll_event event = {.events = EPOLLIN};
    check(epoll_ctl(EPOLL, EPOLL_CTL_ADD, EVENT, &event) == 0, "epoll_ctl");
    for (int i = 0; i < THREADS; i++) {
        check(pipe(pair) == 0, "pipe");
        place(pair[0], WITNESS + 2 * i);
        place(pair[1], WITNESS + 2 * i + 1);
        fcntl(WITNESS + 2 * i, F_SETFL, O_NONBLOCK);
        fcntl(WITNESS + 2 * i + 1, F_SETPIPE_SZ, SHOWN * PAGE);
    }
    segment = shmget(IPC_PRIVATE, SEGMENT * PAGE, 0600);
    check(segment >= 0, "shmget");
}

static void print_file(int fd) {
    uint64_t words[PAGE / 8];
    for (int i = 0; pread(fd, words, PAGE, i * PAGE) == (ssize_t)PAGE; i++)
        print_content(content(words));
    say("\n");
}

static pid_t actor;

static void on_alarm(int number) {
    (void)number;
    kill(actor, SIGKILL);
    static const char text[] = "hang\n";
    memcpy(seen->text[0] + TEXT - 1 - sizeof text, text, sizeof text);
    seen->used[0] = TEXT;
}

static void judge(const char *name) {
    int status;
    memset(seen, 0, sizeof *seen);
    open_all();
    uint64_t *attached = shmat(segment, NULL, 0);
    check(attached != (void *)-1, "shmat");
    shmctl(segment, IPC_RMID, NULL);
    fflush(stdout);
    actor = fork();
    check(actor >= 0, "fork");
    if (actor == 0) {
        signal(SIGALRM, SIG_DFL);
        place(syscall(SYS_pidfd_open, getpid(), 0), SELF);
        act();
    }
    alarm(LIMIT);
    while (waitpid(actor, &status, 0) != actor)
        ;
    alarm(0);
    printf("script %s\n", name);
    int hung = seen->used[0] >= TEXT;
    for (me = 0; me < THREADS; me++) {
        seen->used[me] = strlen(seen->text[me]);
        say("end:");
        look(1);
        say("\n");
        printf("thread %d\n%s", me, seen->text[me]);
    }
    me = 0;
    seen->used[0] = 0;
    print_file(FILE_FD);
    print_file(MEMFD);
    for (int i = 0; i < SEGMENT; i++)
        print_content(content(attached + i * PAGE / 8));
    seen->text[0][seen->used[0]] = 0;
    printf("files%s\nstatus %x%s\n", seen->text[0], status, hung ? " hang" : "");
    shmdt(attached);
    unlink(file_path);
    for (int fd = FILE_FD; fd < WITNESS + 2 * THREADS; fd++)
        close(fd);
}

int main(int argc, char **argv) {
    static char text[1024], name[1024];
    if (argc == 3 && !strcmp(argv[1], "--exit"))
        return atoi(argv[2]);
    check(argc == 2, "usage: fuzzed SCRIPTS");
    FILE *scripts = fopen(argv[1], "re");
    check(scripts != NULL, argv[1]);
    int shared = MAP_SHARED | MAP_ANONYMOUS, both = PROT_READ | PROT_WRITE;
    seen = mmap(NULL, sizeof *seen, both, shared, -1, 0);
    smaps_buffers = mmap(NULL, THREADS * SMAPS, both, shared, -1, 0);
    check(seen != MAP_FAILED && smaps_buffers != MAP_FAILED, "mmap");
    check(mmap((void *)SCRATCH, PAGE, both, shared | MAP_FIXED, -1, 0) == (void *)SCRATCH, "mmap");
    signal(SIGALRM, on_alarm);
    signal(SIGPIPE, SIG_IGN);
    while (fgets(text, sizeof text, scripts)) {
        text[strcspn(text, "\n")] = 0;
        if (!strncmp(text, "script ", 7)) {
            count = 0;
            memset((void *)SCRATCH, 0, PAGE);
            race = strstr(text, " race") != NULL;
            snprintf(name, sizeof name, "%s", text + 7);
        } else if (!strcmp(text, "done"))
            judge(name);
        else
            parse(text);
    }
    return 0;
}
