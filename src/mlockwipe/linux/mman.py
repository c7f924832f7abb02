# SPDX-License-Identifier: MIT
"""The constants of mmap(2), mlock(2), mremap(2), madvise(2) and clone(2), each once.

Nothing is imported here: every program that locks or traces anything loads this file.
Source: include/uapi/asm-generic/mman-common.h, include/uapi/linux/{mman,sched}.h and
arch/x86/include/uapi/asm/mman.h, Linux 6.18.
"""

PROT_NONE = 0
PROT_READ = 1
PROT_WRITE = 2
PROT_EXEC = 4

MAP_SHARED = 0x01
MAP_PRIVATE = 0x02
MAP_FIXED = 0x10
MAP_ANONYMOUS = 0x20
MAP_32BIT = 0x40
MAP_GROWSDOWN = 0x100
MAP_LOCKED = 0x2000
MAP_NORESERVE = 0x4000
MAP_FIXED_NOREPLACE = 0x100000

MLOCK_ONFAULT = 1

MCL_CURRENT = 1
MCL_FUTURE = 2
MCL_ONFAULT = 4

MREMAP_MAYMOVE = 1
MREMAP_FIXED = 2
MREMAP_DONTUNMAP = 4

MADV_RANDOM = 1
MADV_DONTNEED = 4
MADV_FREE = 8
MADV_REMOVE = 9
MADV_DONTFORK = 10
MADV_MERGEABLE = 12
MADV_HUGEPAGE = 14
MADV_NOHUGEPAGE = 15
MADV_DONTDUMP = 16
MADV_WIPEONFORK = 18
MADV_PAGEOUT = 21
MADV_DONTNEED_LOCKED = 24
MADV_COLLAPSE = 25

CSIGNAL = 0xFF  # the signal at the end, in the flags of clone(2)
CLONE_VM = 0x100
CLONE_FS = 0x200
CLONE_FILES = 0x400
CLONE_VFORK = 0x4000
CLONE_PARENT = 0x8000
CLONE_UNTRACED = 0x00800000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
