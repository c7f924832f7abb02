// SPDX-License-Identifier: GPL-2.0-only
/*
 * init_mlocked_on_free: zero mlocked anonymous memory when it is released
 *
 * As a module, for kernels that don't know the boot option. What a VMA decides,
 * not a page: an anonymous page that is unmapped from a VMA with VM_LOCKED, or
 * from a fork's copy of one (VM_LOCKEDCOPY), is zeroed before it can be used
 * again.
 *
 * The functions in which the kernel releases pages are hooked by ftrace, as live
 * patches are: where there may be something to wipe, a wrapper is called instead.
 * It may sleep where the function may, and it calls the original behind its
 * ftrace call. All else goes on as if nothing was there.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/ftrace.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/utsname.h>

#include "wipe.h"

#if IS_ENABLED(CONFIG_PREEMPT_RT) || !defined(CONFIG_X86_64)
#error "init_mlocked_on_free is for x86-64 without PREEMPT_RT"
#endif

static bool enabled;
module_param(enabled, bool, 0644);
MODULE_PARM_DESC(enabled, "zero mlocked memory when it is released");

bool mlocked_inherit = true;
module_param_named(inherit, mlocked_inherit, bool, 0644);
MODULE_PARM_DESC(inherit, "and the copies of it that fork made");

static bool stopping = true; /* not all is hooked, yet or any more */

bool mlocked_is_on(void)
{
	return READ_ONCE(enabled) && !READ_ONCE(stopping);
}

static int counter_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%ld\n", atomic_long_read(kp->arg));
}

static const struct kernel_param_ops counter_ops = { .get = counter_get };

module_param_cb(calls, &counter_ops, &mlocked_counters[MLOCKED_CALLS], 0444);
module_param_cb(wiped, &counter_ops, &mlocked_counters[MLOCKED_WIPED], 0444);
module_param_cb(deferred, &counter_ops, &mlocked_counters[MLOCKED_DEFERRED],
		0444);
module_param_cb(shared, &counter_ops, &mlocked_counters[MLOCKED_SHARED], 0444);
module_param_cb(failed, &counter_ops, &mlocked_counters[MLOCKED_FAILED], 0444);

/* What the kernel does not export */

struct address_space **mlocked_swap_spaces;
void *mlocked_migrated_one;

DEFINE_STATIC_CALL_NULL(mlocked_tlb_flush_mmu, tlb_flush_mmu);
DEFINE_STATIC_CALL_NULL(mlocked_lru_add_drain, lru_add_drain);
DEFINE_STATIC_CALL_NULL(mlocked_lru_add_drain_all, lru_add_drain_all);
DEFINE_STATIC_CALL_NULL(mlocked_folio_free_swap, folio_free_swap);
DEFINE_STATIC_CALL_NULL(mlocked_swap_count, __swap_count);
DEFINE_STATIC_CALL_NULL(mlocked_ftrace_location, ftrace_location);

typedef unsigned long lookup_name_fn(const char *name);
DEFINE_STATIC_CALL_NULL(mlocked_lookup_name, lookup_name_fn);

static const struct mlocked_symbol symbols[] = {
	{ "ftrace_location", &STATIC_CALL_KEY(mlocked_ftrace_location),
	  STATIC_CALL_TRAMP_ADDR(mlocked_ftrace_location) },
	{ "tlb_flush_mmu", &STATIC_CALL_KEY(mlocked_tlb_flush_mmu),
	  STATIC_CALL_TRAMP_ADDR(mlocked_tlb_flush_mmu) },
	{ "lru_add_drain", &STATIC_CALL_KEY(mlocked_lru_add_drain),
	  STATIC_CALL_TRAMP_ADDR(mlocked_lru_add_drain) },
	{ "lru_add_drain_all", &STATIC_CALL_KEY(mlocked_lru_add_drain_all),
	  STATIC_CALL_TRAMP_ADDR(mlocked_lru_add_drain_all) },
	{ "folio_free_swap", &STATIC_CALL_KEY(mlocked_folio_free_swap),
	  STATIC_CALL_TRAMP_ADDR(mlocked_folio_free_swap) },
	{ "__swap_count", &STATIC_CALL_KEY(mlocked_swap_count),
	  STATIC_CALL_TRAMP_ADDR(mlocked_swap_count) },
	{}
};

/*
 * The wrappers that run, or are about to: counted from the handler on, so that
 * the module stays until the last of them has left.
 */
static atomic_long_t users;

void mlocked_leave(void)
{
	VM_WARN_ON_ONCE(atomic_long_read(&users) <= 0);
	atomic_long_dec(&users);
}

static void notrace entered(unsigned long ip, unsigned long parent_ip,
			    struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	struct pt_regs *regs = linux_ftrace_regs(fregs);
	int bit = ftrace_test_recursion_trylock(ip, parent_ip);
	struct mlocked_hook *hook = mlocked_hooks;

	if (bit < 0)
		return;
	cant_sleep();
	while (hook->location != ip)
		hook++;
	if (hook->wants(regs)) {
		atomic_long_inc(&users);
		regs->ip = (unsigned long)hook->wrapper;
	}
	ftrace_test_recursion_unlock(bit);
}

/* One for all: either every function is hooked, or none. */
static struct ftrace_ops ops = {
	.func = entered,
	.flags = FTRACE_OPS_FL_IPMODIFY | FTRACE_OPS_FL_PERMANENT,
};

static int hook_locate(struct mlocked_hook *hook)
{
	unsigned long function;
	int error;

	if (hook->own)
		hook->function = *hook->own;
	function = static_call(mlocked_lookup_name)(hook->function.name);
	if (function)
		hook->location = static_call(mlocked_ftrace_location)(function);
	if (!hook->location) {
		pr_err("not loaded: this kernel, %s, has no %s that can be hooked\n",
		       init_utsname()->release, hook->function.name);
		return -ENOENT;
	}
	error = mlocked_check_prototype(hook->function.name,
					hook->function.prototype);
	if (error)
		return error;
	if (hook->wrapper)
		__static_call_update(hook->key, hook->tramp,
				     (void *)hook->location + MCOUNT_INSN_SIZE);
	return ftrace_set_filter_ip(&ops, hook->location, 0, 0);
}

static int hooks_register(void)
{
	int error = 0;

	for (int i = 0; i < nr_mlocked_hooks && !error; i++)
		error = hook_locate(&mlocked_hooks[i]);
	if (!error) {
		error = register_ftrace_function(&ops);
		if (error == -EBUSY)
			pr_err("not loaded: a live patch has what it hooks, or kernel.ftrace_enabled is 0\n");
		else if (error)
			pr_err("not loaded: ftrace fails (%d)\n", error);
	}
	if (error)
		ftrace_free_filter(&ops);
	return error;
}

static void hooks_unregister(void)
{
	/* After a fault of ftrace's own the calls stay: so must the module. */
	while (WARN_ON_ONCE(unregister_ftrace_function(&ops)))
		msleep(1000);
	ftrace_free_filter(&ops);
	while (atomic_long_read(&users))
		msleep(20);
	/* The last wrappers have returned from here too. */
	synchronize_rcu_tasks();
}

static int find_lookup_name(void)
{
	/* It is only to be located: disabled, no text is patched for it. */
	struct kprobe probe = {
		.symbol_name = "kallsyms_lookup_name",
		.flags = KPROBE_FLAG_DISABLED,
	};
	int error = register_kprobe(&probe);

	if (error) {
		pr_err("not loaded: no kprobe can be set to find the kernel's symbols (%d)\n",
		       error);
		return error;
	}
	static_call_update(mlocked_lookup_name, (void *)probe.addr);
	unregister_kprobe(&probe);
	return 0;
}

static void *find_address(const char *name)
{
	void *found = (void *)static_call(mlocked_lookup_name)(name);

	if (!found)
		pr_err("not loaded: this kernel, %s, has no %s\n",
		       init_utsname()->release, name);
	return found;
}

static int find(const struct mlocked_symbol *symbol)
{
	for (; symbol->name; symbol++) {
		void *found = find_address(symbol->name);

		if (!found)
			return -ENOENT;
		if (symbol->prototype) {
			int error = mlocked_check_prototype(symbol->name,
							    symbol->prototype);

			if (error)
				return error;
		}
		__static_call_update(symbol->key, symbol->tramp, found);
	}
	return 0;
}

static int __init init_mlocked_init(void)
{
	int error = find_lookup_name();

	if (!error)
		error = find(symbols);
	if (!error)
		error = find(mlocked_btf_symbols);
	if (!error)
		error = find(linux_symbols);
	if (error)
		return error;
	mlocked_swap_spaces = find_address("swapper_spaces");
	mlocked_migrated_one = find_address("remove_migration_pte");
	if (!mlocked_swap_spaces || !mlocked_migrated_one)
		return -ENOENT;

	error = mlocked_start();
	if (error)
		return error;
	error = hooks_register();
	if (error) {
		mlocked_stop();
		return error;
	}
	WRITE_ONCE(stopping, false);
	pr_info("loaded, %s\n", enabled ? "on" : "off");
	return 0;
}
module_init(init_mlocked_init);

static void __exit init_mlocked_exit(void)
{
	/* What depends on a scope stays hooked until nobody is in one. */
	WRITE_ONCE(stopping, true);
	synchronize_rcu();
	while (atomic_long_read(&users))
		msleep(20);
	hooks_unregister();
	mlocked_stop();
}
module_exit(init_mlocked_exit);

MODULE_DESCRIPTION("Zero mlocked anonymous memory when it is released");
MODULE_AUTHOR("mlockwipe maintainers");
MODULE_VERSION("0.1.0");
MODULE_LICENSE("GPL");
