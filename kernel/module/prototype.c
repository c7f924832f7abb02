// SPDX-License-Identifier: GPL-2.0-only
/*
 * Is a function of this kernel the one that was written for?
 *
 * Most of what is hooked is static: no header declares it, so the compiler can't
 * tell that a function of its name takes something else. The kernel's BTF, its
 * type information for BPF, can. A prototype is written as "int(page*, size_t)":
 * the types by their names, without struct, union, enum and const.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/err.h>
#include <linux/module.h>
#include <linux/utsname.h>

#include "wipe.h"

DEFINE_STATIC_CALL_NULL(btf_kernel, bpf_get_btf_vmlinux);
DEFINE_STATIC_CALL_NULL(btf_find, btf_find_by_name_kind);
DEFINE_STATIC_CALL_NULL(btf_name, btf_name_by_offset);

const struct mlocked_symbol mlocked_btf_symbols[] = {
	{ "bpf_get_btf_vmlinux", &STATIC_CALL_KEY(btf_kernel),
	  STATIC_CALL_TRAMP_ADDR(btf_kernel) },
	{ "btf_find_by_name_kind", &STATIC_CALL_KEY(btf_find),
	  STATIC_CALL_TRAMP_ADDR(btf_find) },
	{ "btf_name_by_offset", &STATIC_CALL_KEY(btf_name),
	  STATIC_CALL_TRAMP_ADDR(btf_name) },
	{}
};

struct text {
	char is[128];
	int length;
};

static void put(struct text *text, const char *more)
{
	text->length += scnprintf(text->is + text->length,
				  sizeof(text->is) - text->length, "%s", more);
}

static bool is_qualifier(const struct btf_type *type)
{
	switch (BTF_INFO_KIND(type->info)) {
	case BTF_KIND_CONST:
	case BTF_KIND_VOLATILE:
	case BTF_KIND_RESTRICT:
	case BTF_KIND_TYPE_TAG:
		return true;
	default:
		return false;
	}
}

static void put_type(struct text *text, const struct btf *btf, u32 id)
{
	const struct btf_type *type = btf_type_by_id(btf, id);
	int pointers = 0;

	while (btf_type_is_ptr(type) || is_qualifier(type)) {
		pointers += btf_type_is_ptr(type);
		id = type->type;
		type = btf_type_by_id(btf, id);
	}
	put(text, id ? static_call(btf_name)(btf, type->name_off) : "void");
	while (pointers--)
		put(text, "*");
}

static void put_prototype(struct text *text, const struct btf *btf, u32 id)
{
	const struct btf_type *function = btf_type_by_id(btf, id);
	const struct btf_type *type = btf_type_by_id(btf, function->type);

	put_type(text, btf, type->type);
	put(text, "(");
	for (u32 i = 0; i < btf_type_vlen(type); i++) {
		put(text, i ? ", " : "");
		put_type(text, btf, btf_params(type)[i].type);
	}
	put(text, ")");
}

int mlocked_check_prototype(const char *name, const char *prototype)
{
	const struct btf *btf = static_call(btf_kernel)();
	struct text found = {};
	s32 id;

	if (IS_ERR_OR_NULL(btf)) {
		pr_err("not loaded: this kernel, %s, has no BTF by which its functions could be checked\n",
		       init_utsname()->release);
		return -ENOENT;
	}
	id = static_call(btf_find)(btf, name, BTF_KIND_FUNC);
	if (id > 0)
		put_prototype(&found, btf, id);
	else
		put(&found, "not in its BTF");
	if (!strcmp(found.is, prototype))
		return 0;
	pr_err("not loaded: %s of this kernel, %s, is %s instead of %s\n", name,
	       init_utsname()->release, found.is, prototype);
	return -ENOENT;
}
