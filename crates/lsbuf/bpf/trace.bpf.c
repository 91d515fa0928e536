/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Events as they happen, for `lsbuf trace`: a buffer is made, an fd of it is put into a table, it
 * is mapped, attached to a device, detached, renamed, freed.
 *
 * Each program runs when a function of the kernel begins or returns, and writes one record to a
 * ring buffer. What has no room there is counted. The numbers of the program's calls in the kernel
 * are addresses, and an iterator gives them the names that the kernel itself prints.
 *
 * As with the flight recorder, a program is not run while it is interrupted on the same processor.
 * So each is attached several times, and the first copy that runs writes the record. The copies
 * know that from a ticket that each task has: which event it was that a copy has written last.
 *
 * passing.h tells from whom an fd is received. It is told with the event that puts the fd into the
 * table.
 */
#include "trace.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ipc_params {
	s32 key;
};

struct mm_struct___start {
	u64 start_code;
	u64 start_stack;
};

struct task_struct___stack {
	void *stack;
};

#pragma clang attribute pop

struct {
	/* BPF_MAP_TYPE_RINGBUF */
	int (*type)[27];
	int (*max_entries)[1 << 22];
} ring SEC(".maps");

struct {
	/* BPF_MAP_TYPE_ARRAY */
	int (*type)[2];
	int (*max_entries)[1];
	u32 *key;
	struct losses *value;
} losses SEC(".maps");

/* What a task has written last. */
struct ticket {
	u64 object;
	u32 hook;
	u32 copy;
};

struct {
	/* BPF_MAP_TYPE_LRU_HASH */
	int (*type)[9];
	int (*max_entries)[16384];
	u32 *key;
	struct ticket *value;
} tickets SEC(".maps");

/* The inode of the System V segment that a task is just making. */
struct {
	/* BPF_MAP_TYPE_LRU_HASH */
	int (*type)[9];
	int (*max_entries)[8192];
	u32 *key;
	u64 *value;
} segments SEC(".maps");

/* The inode number of each dma-buf whose file is closed, and whose memory is not given back yet. */
struct {
	/* BPF_MAP_TYPE_LRU_HASH */
	int (*type)[9];
	int (*max_entries)[16384];
	u64 *key;
	u64 *value;
} closed SEC(".maps");

/* The processes of the command that is traced: pid, and when it was started. */
struct {
	/* BPF_MAP_TYPE_HASH */
	int (*type)[1];
	int (*max_entries)[65536];
	int (*map_flags)[1];
	u32 *key;
	u64 *value;
} family SEC(".maps");

/* In place of the start of a process: it is known to live. */
#define ANY_START (~0ULL)

/* The buffers that they have made, by their address. */
struct {
	/* BPF_MAP_TYPE_HASH */
	int (*type)[1];
	int (*max_entries)[65536];
	int (*map_flags)[1];
	u64 *key;
	u8 *value;
} theirs SEC(".maps");

/* Addresses in the kernel that are to have names. */
#define MOST_ASKED 64

struct {
	/* BPF_MAP_TYPE_ARRAY */
	int (*type)[2];
	int (*max_entries)[MOST_ASKED];
	u32 *key;
	u64 *value;
} asked SEC(".maps");

/* Which copy of the program this is. The first one runs first. */
volatile const u32 copy = 1;

/* Whether only the processes of one command and their buffers are of interest. */
volatile const u32 only_family = 0;

/* Which events have stacks. */
#define STACKS_OF_NONE 0
#define STACKS_OF_BIRTHS 1
#define STACKS_OF_ALL 2

volatile const u32 stacks = STACKS_OF_NONE;

/* Whether those have a copy of the thread's stack, too. */
volatile const u32 copy_stacks = 0;

/* How many arguments shmem_mknod, hugetlbfs_mknod and shmem_tmpfile have. */
volatile const u32 mknod_arguments = 0;
volatile const u32 huge_mknod_arguments = 0;
volatile const u32 tmpfile_arguments = 0;

#define lose(cause)                                                \
	({                                                         \
		u32 at = 0;                                        \
		struct losses *all = map_lookup(&losses, &at);     \
		if (all)                                           \
			__sync_fetch_and_add(&all->cause, 1);      \
	})

/* A buffer that an event is about. */
struct object {
	/* That of its dma_buf or of its inode. */
	u64 address;
	struct inode *inode;
	u32 of;
	u32 magic;
};

static always_inline u32 magic_of(struct inode *inode)
{
	struct super_block *fs = 0;
	u64 magic = 0;

	peek(fs, inode->i_sb);
	peek(magic, fs->s_magic);
	return magic;
}

/* Whether an open file is a buffer. */
static always_inline int is_buffer(struct file *file, struct object *object)
{
	struct inode *inode = 0;
	void *private = 0;
	u16 mode = 0;

	peek(inode, file->f_inode);
	object->magic = magic_of(inode);
	object->inode = inode;
	object->of = EVENT_OF_FILE;
	object->address = unknown((u64 *)&inode);
	switch (object->magic) {
	case DMA_BUF_MAGIC:
		/* An fd with O_PATH has no dma_buf. */
		peek(private, file->private_data);
		if (private) {
			object->of = EVENT_OF_DMABUF;
			object->address = unknown((u64 *)&private);
		}
		return 1;
	case TMPFS_MAGIC:
	case HUGETLBFS_MAGIC:
		peek(mode, inode->i_mode);
		return (mode & S_IFMT) == S_IFREG;
	case SECRETMEM_MAGIC:
	case GUEST_MEMFD_MAGIC:
		return 1;
	}
	return 0;
}

static always_inline void of_dmabuf(u64 address, struct object *object)
{
	struct dma_buf *dmabuf = (void *)address;
	struct file *file = 0;

	peek(file, dmabuf->file);
	peek(object->inode, file->f_inode);
	object->address = address;
	object->of = EVENT_OF_DMABUF;
	object->magic = DMA_BUF_MAGIC;
}

static always_inline u64 started_of(struct task_struct *task)
{
	struct task_struct *leader = 0;
	u64 started = 0;

	peek(leader, task->group_leader);
	peek(started, leader->start_boottime);
	return started;
}

static always_inline int in_family(u64 started)
{
	u32 tgid = current_pid_tgid() >> 32;
	u64 *since;

	if (!only_family)
		return 0;
	since = map_lookup(&family, &tgid);
	return since && (*since == started || *since == ANY_START);
}

/* Whether another copy of the program has written this event. */
static always_inline int is_written(u32 hook, u64 object)
{
	u32 tid = current_pid_tgid();
	struct ticket *last = map_lookup(&tickets, &tid);
	struct ticket ticket = { .object = object, .hook = hook, .copy = copy };

	if (last && last->hook == hook && last->object == object && last->copy < copy) {
		last->copy = copy;
		return 1;
	}
	map_update(&tickets, &tid, &ticket, 0);
	return 0;
}

static always_inline void describe_file(struct event *event, struct dentry *dentry)
{
	const unsigned char *name = 0;
	struct dentry *above = 0;
	u32 length = 0;

	peek(above, dentry->d_parent);
	if (above == dentry)
		event->flags |= EVENT_NO_FOLDER;
	peek(length, dentry->d_name.len);
	peek(name, dentry->d_name.name);
	probe_read_str(event->name, sizeof(event->name), name);
	if (length >= sizeof(event->name))
		event->flags |= EVENT_NAME_CUT;
}

static always_inline void describe_object(struct event *event, struct object *object)
{
	struct dma_buf *dmabuf = (void *)object->address;
	struct super_block *fs = 0;
	const char *text = 0;
	u64 blocks = 0;

	event->of = object->of;
	event->magic = object->magic;
	event->object = mixed(object->address);
	peek(event->ino, object->inode->i_ino);
	peek(event->size, object->inode->i_size);
	peek(blocks, object->inode->i_blocks);
	event->memory = blocks << 9;
	peek(fs, object->inode->i_sb);
	peek(event->dev, fs->s_dev);
	if (object->of == EVENT_OF_DMABUF) {
		peek(event->size, dmabuf->size);
		peek(text, dmabuf->exp_name);
		probe_read_str(event->exporter, sizeof(event->exporter), text);
		peek(text, dmabuf->name);
		if (text)
			probe_read_str(event->name, sizeof(event->name), text);
	}
}

static always_inline void describe_actor(struct event *event, u64 started)
{
	struct task_struct *task = (void *)current_task(), *leader = 0;
	u64 ids = current_pid_tgid();

	event->started = started;
	event->cgroup = current_cgroup();
	event->uid = current_uid();
	event->tid = ids;
	event->tgid = ids >> 32;
	current_comm(event->thread, sizeof(event->thread));
	peek(leader, task->group_leader);
	probe_read(event->comm, sizeof(event->comm), &leader->comm);
	peek(event->task_flags, task->flags);
}

/* Room for an event with its stacks. */
#define has_stacks(what) (stacks == STACKS_OF_ALL || (stacks == STACKS_OF_BIRTHS && (what) == EVENT_MADE))

/*
 * Begins an event. Returns null if nobody asks for it, if another copy has written it, or if there
 * is no room. The caller fills in what only it knows, and ends it.
 */
static always_inline struct event *begin(u32 hook, u32 what, struct object *object)
{
	u64 started = started_of((void *)current_task());
	u64 address = object->address;
	struct event *event;
	u64 size;

	if (only_family) {
		int by = in_family(started);
		u8 one = 1;

		if (what == EVENT_MADE && by && map_update(&theirs, &address, &one, 0))
			lose(map);
		if (!by && !map_lookup(&theirs, &address))
			return 0;
	}
	if (is_written(hook, address))
		return 0;
	if (only_family && what == EVENT_FREED)
		map_delete(&theirs, &address);
	if (has_stacks(what) && copy_stacks) {
		event = ring_reserve(&ring, sizeof(struct event_copied), 0);
		size = sizeof(struct event_copied);
	} else if (has_stacks(what)) {
		event = ring_reserve(&ring, sizeof(struct event_stacks), 0);
		size = sizeof(struct event_stacks);
	} else {
		event = ring_reserve(&ring, sizeof(struct event), 0);
		size = sizeof(struct event);
	}
	if (!event) {
		lose(ring);
		return 0;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->head.kind = EVENT;
	event->head.size = size;
	event->at = boot_ns();
	event->what = what;
	event->fd = -1;
	describe_object(event, object);
	describe_actor(event, started);
	return event;
}

/*
 * THREAD_SIZE of x86-64, without KASAN. The registers are at the end of the kernel's stack
 * (task_pt_regs). Used only where the helper for that is missing.
 */
#define X86_THREAD_SIZE (16 << 10)
#define X86_USER_CS 0x33
#define X86_USER_DS 0x2b

/* Copies the registers of the current thread. Returns its stack pointer, or 0. */
static always_inline u64 copy_registers(struct event_copied *with)
{
	struct task_struct___stack *task = (void *)current_task();
	struct pt_regs___x86 *x86 = 0;
	struct pt_regs___arm64 *arm64;
	u64 pointer = 0, cs = 0, ss = 0;
	void *stack = 0;

	if (registers) {
		x86 = registers_of(current_task_btf());
	} else if (exists(x86->orig_ax)) {
		peek(stack, task->stack);
		x86 = stack + X86_THREAD_SIZE - (place_of(x86->ss) + sizeof(u64));
	} else {
		return 0;
	}
	arm64 = (void *)x86;
	if (exists(x86->orig_ax)) {
		probe_read(with->registers, 21 * sizeof(u64), x86);
		peek(cs, x86->cs);
		peek(ss, x86->ss);
		peek(pointer, x86->sp);
		/* The upper half of these is of no segment from Linux 6.9 on. */
		if ((cs & 0xffff) == X86_USER_CS && (ss & 0xffff) == X86_USER_DS)
			return pointer;
	} else if (exists(arm64->pstate)) {
		probe_read(with->registers, MOST_REGISTERS * sizeof(u64), arm64);
		peek(pointer, arm64->sp);
		return pointer;
	}
	return 0;
}

/*
 * Copies the top of the current thread's stack, until a piece cannot be read. Not inlined, so that
 * each program has one call and not all of this.
 */
static never_inline void copy_stack(struct event_copied *with)
{
	struct task_struct *task = (void *)current_task();
	struct mm_struct___start *mm = 0;
	u64 from;

	__builtin_memset(with->registers, 0, sizeof(with->registers));
	with->start_stack = with->start_code = with->copied_from = 0;
	with->copied = with->unused = 0;
	peek(mm, task->mm);
	if (!mm)
		return;
	peek(with->start_stack, mm->start_stack);
	peek(with->start_code, mm->start_code);
	from = copy_registers(with);
	if (!from)
		return;
	from &= ~(u64)(COPIED_PIECE - 1);
	with->copied_from = from;
#pragma clang loop unroll(disable)
	for (u32 at = 0; at < COPIED_STACK; at += COPIED_PIECE) {
		if (probe_read_user(with->copy + at, COPIED_PIECE, (void *)(from + at)))
			break;
		with->copied = at + COPIED_PIECE;
	}
}

static always_inline void end(void *context, struct event *event, u32 what)
{
	u32 at = 0;
	struct losses *all = map_lookup(&losses, &at);

	if (has_stacks(what)) {
		struct event_stacks *with = (void *)event;

		event->kernel_bytes = get_stack(context, with->kernel, sizeof(with->kernel), 0);
		event->user_bytes = get_stack(context, with->user, sizeof(with->user), USER_STACK | USER_BUILD_ID);
		if (copy_stacks)
			copy_stack((void *)event);
	}
	if (all)
		event->lost = all->ring;
	ring_submit(event, 0);
}

/* The programs, as events of theirs are told apart in a ticket. */
enum hook {
	DMABUF_MADE = 1, FILE_MADE, HUGE_MADE, SEGMENT_MADE, NAMED_MADE, HUGE_NAMED_MADE, UNNAMED_MADE,
	FD_INSTALLED, FD_REPLACED, FILE_MAPPED, SEGMENT_MAPPED, NODE_MAPPED, ATTACHED, DETACHED, RENAMED,
	DMABUF_FREED, FILE_FREED, HUGE_FREED,
};

/* struct dma_buf *dma_buf_export(const struct dma_buf_export_info *exp_info) */
SEC("fexit/dma_buf_export")
int trace_dmabuf_made(u64 *context)
{
	u64 result = context[1], address = unknown(&result);
	struct object object = {};
	struct event *event;

	if (is_error(address))
		return 0;
	of_dmabuf(address, &object);
	event = begin(DMABUF_MADE, EVENT_MADE, &object);
	if (event)
		end(context, event, EVENT_MADE);
	return 0;
}

/* The kernel has made a file of shared memory that is in no folder. */
static always_inline int kernel_file_made(void *context, u64 result, u32 hook)
{
	u64 address = unknown(&result);
	struct file *file = (void *)address;
	struct object object = {};
	struct dentry *dentry = 0;
	struct event *event;

	if (is_error(address) || !is_buffer(file, &object))
		return 0;
	peek(dentry, file->f_path.dentry);
	if (begins_as_segment(dentry)) {
		/* Its id comes later. */
		u32 tid = current_pid_tgid();

		map_update(&segments, &tid, &object.address, 0);
		return 0;
	}
	event = begin(hook, EVENT_MADE, &object);
	if (event) {
		describe_file(event, dentry);
		end(context, event, EVENT_MADE);
	}
	return 0;
}

/* How many arguments __shmem_file_setup and hugetlb_file_setup have. */
volatile const u32 setup_arguments = 0;
volatile const u32 huge_setup_arguments = 0;

/* struct file *__shmem_file_setup(…) */
SEC("fexit/__shmem_file_setup")
int trace_file_made(u64 *context)
{
	u64 file;

	if (setup_arguments == 6)
		file = result_after(context, 6);
	else
		file = result_after(context, 5);
	return kernel_file_made(context, file, FILE_MADE);
}

/* struct file *hugetlb_file_setup(…) */
SEC("fexit/hugetlb_file_setup")
int trace_huge_made(u64 *context)
{
	u64 file;

	if (huge_setup_arguments == 6)
		file = result_after(context, 6);
	else
		file = result_after(context, 5);
	return kernel_file_made(context, file, HUGE_MADE);
}

/* int newseg(struct ipc_namespace *ns, struct ipc_params *params) */
SEC("fexit/newseg")
int trace_segment_made(u64 *context)
{
	struct ipc_namespace *namespace = (void *)context[0];
	struct ipc_params *params = (void *)context[1];
	struct object object = { .of = EVENT_OF_FILE };
	s32 id = (s32)context[2], key = 0;
	u32 tid = current_pid_tgid();
	struct event *event;
	u64 *inode;

	inode = map_lookup(&segments, &tid);
	if (id < 0 || !inode)
		return 0;
	object.address = *inode;
	object.inode = (void *)object.address;
	object.magic = magic_of(object.inode);
	event = begin(SEGMENT_MADE, EVENT_MADE, &object);
	if (!event)
		return 0;
	event->flags |= EVENT_NO_FOLDER;
	peek(event->ipc, namespace->ns.inum);
	peek(key, params->key);
	event->name[0] = 'S';
	event->name[1] = 'Y';
	event->name[2] = 'S';
	event->name[3] = 'V';
#pragma unroll
	for (u32 at = 0; at < 8; at++) {
		u32 digit = (u32)key >> (28 - 4 * at) & 15;

		event->name[4 + at] = digit < 10 ? '0' + digit : 'a' + digit - 10;
	}
	end(context, event, EVENT_MADE);
	return 0;
}

static always_inline int named_made(void *context, struct dentry *dentry, struct inode *inode, u32 hook)
{
	struct object object = { .of = EVENT_OF_FILE };
	struct event *event;
	u16 mode = 0;

	peek(mode, inode->i_mode);
	if (!inode || (mode & S_IFMT) != S_IFREG)
		return 0;
	object.inode = inode;
	object.address = unknown((u64 *)&inode);
	object.magic = magic_of(inode);
	event = begin(hook, EVENT_MADE, &object);
	if (event) {
		describe_file(event, dentry);
		end(context, event, EVENT_MADE);
	}
	return 0;
}

static always_inline int mknod_made(u64 *context, u32 arguments, u32 hook)
{
	struct dentry *dentry;
	struct inode *inode = 0;
	u64 result;

	/* The first argument is the idmap of the mount from Linux 5.12 on. */
	if (arguments == 5) {
		dentry = (void *)context[2];
		result = result_after(context, 5);
	} else {
		dentry = (void *)context[1];
		result = result_after(context, 4);
	}
	if ((s32)result)
		return 0;
	peek(inode, dentry->d_inode);
	return named_made(context, dentry, inode, hook);
}

/* int shmem_mknod(…, struct inode *dir, struct dentry *dentry, umode_t mode, dev_t dev) */
SEC("fexit/shmem_mknod")
int trace_named_made(u64 *context)
{
	return mknod_made(context, mknod_arguments, NAMED_MADE);
}

/* int hugetlbfs_mknod(…, struct inode *dir, struct dentry *dentry, umode_t mode, dev_t dev) */
SEC("fexit/hugetlbfs_mknod")
int trace_huge_named_made(u64 *context)
{
	return mknod_made(context, huge_mknod_arguments, HUGE_NAMED_MADE);
}

/*
 * int shmem_tmpfile(struct inode *dir, struct dentry *dentry, umode_t mode), before Linux 6.1 with
 * a namespace before these; later the third argument of four is the file.
 */
SEC("fexit/shmem_tmpfile")
int trace_unnamed_made(u64 *context)
{
	struct dentry *dentry = 0;
	struct inode *inode = 0;
	struct file *file;
	u64 result;

	if (tmpfile_arguments == 4) {
		file = (void *)context[2];
		result = result_after(context, 4);
		peek(dentry, file->f_path.dentry);
	} else {
		dentry = (void *)context[1];
		result = result_after(context, 3);
	}
	if ((s32)result)
		return 0;
	peek(inode, dentry->d_inode);
	return named_made(context, dentry, inode, UNNAMED_MADE);
}

/*
 * int security_file_receive(struct file *file): the current process receives a file. If passing.h
 * does not know from whom, the way is another one.
 */
SEC("fentry/security_file_receive")
int trace_received(u64 *context)
{
	u64 file = context[0];
	struct giver giver = {};

	giver_of_current(&giver);
	if (giver.way != PASSED_UNKNOWN && giver.way != PASSED_OTHERWISE)
		return 0;
	giver.way = PASSED_OTHERWISE;
	giver.list = unknown(&file);
	remember_giver(&giver);
	return 0;
}

/* From whom the current process has this file. */
static always_inline void find_giver(struct giver *giver, struct file *file)
{
	u64 address = unknown((u64 *)&file);

	giver_of_current(giver);
	if (giver->way != PASSED_OTHERWISE)
		return;
	/* What the process opens later is its own. */
	forget_giver();
	if (giver->list != address)
		giver->way = PASSED_UNKNOWN;
}

static always_inline int fd_installed(void *context, struct file *file, s32 fd, u32 hook)
{
	struct object object = {};
	struct giver giver = {};
	struct dentry *dentry = 0;
	struct event *event;
	u32 mode = 0;

	if (!is_buffer(file, &object))
		return 0;
	find_giver(&giver, file);
	event = begin(hook, EVENT_FD, &object);
	if (!event)
		return 0;
	event->fd = fd;
	event->way = giver.way;
	event->from = giver.tgid;
	event->from_started = giver.started;
	__builtin_memcpy(event->from_comm, giver.comm, sizeof(event->from_comm));
	peek(mode, file->f_mode);
	if (mode & FMODE_PATH)
		event->flags |= EVENT_PATH_ONLY;
	peek(dentry, file->f_path.dentry);
	if (object.magic != DMA_BUF_MAGIC)
		describe_file(event, dentry);
	end(context, event, EVENT_FD);
	return 0;
}

/* void fd_install(unsigned int fd, struct file *file) */
SEC("fentry/fd_install")
int trace_fd_installed(u64 *context)
{
	return fd_installed(context, (void *)context[1], (s32)context[0], FD_INSTALLED);
}

/* int do_dup2(struct files_struct *files, struct file *file, unsigned fd, unsigned flags) */
SEC("fexit/do_dup2")
int trace_fd_replaced(u64 *context)
{
	s32 result = (s32)context[4];

	if (result < 0)
		return 0;
	return fd_installed(context, (void *)context[1], result, FD_REPLACED);
}

static always_inline int mapped(void *context, struct file *file, u64 start, u64 length, u64 protection,
				u64 sharing, u32 hook)
{
	struct object object = {};
	struct dentry *dentry = 0;
	struct event *event;

	if (!is_buffer(file, &object))
		return 0;
	event = begin(hook, EVENT_MAPPED, &object);
	if (!event)
		return 0;
	event->start = start;
	event->length = length;
	event->protection = protection;
	event->sharing = sharing & 3;
	peek(dentry, file->f_path.dentry);
	if (object.magic != DMA_BUF_MAGIC)
		describe_file(event, dentry);
	end(context, event, EVENT_MAPPED);
	return 0;
}

/*
 * unsigned long vm_mmap_pgoff(struct file *file, unsigned long addr, unsigned long len,
 * unsigned long prot, unsigned long flag, unsigned long pgoff)
 */
SEC("fexit/vm_mmap_pgoff")
int trace_file_mapped(u64 *context)
{
	u64 start = context[6], file = context[0];

	if (!file || is_error(start))
		return 0;
	return mapped(context, (void *)file, start, context[2], context[3], context[4], FILE_MAPPED);
}

/* int security_mmap_file(struct file *file, unsigned long prot, unsigned long flags): for shmat. */
SEC("fexit/security_mmap_file")
int trace_segment_mapped(u64 *context)
{
	struct file *file = (void *)context[0];
	struct dentry *dentry = 0, *above = 0;
	struct inode *inode = 0;
	s64 size = 0;

	if (!file || (s32)context[3])
		return 0;
	peek(dentry, file->f_path.dentry);
	peek(above, dentry->d_parent);
	if (above != dentry || !begins_as_segment(dentry))
		return 0;
	peek(inode, file->f_inode);
	peek(size, inode->i_size);
	return mapped(context, file, 0, size, context[1], context[2], SEGMENT_MAPPED);
}

/* int dma_buf_mmap(struct dma_buf *dmabuf, struct vm_area_struct *vma, unsigned long pgoff) */
SEC("fexit/dma_buf_mmap")
int trace_node_mapped(u64 *context)
{
	u64 argument = context[0], address = unknown(&argument);
	struct vm_area_struct *vma = (void *)context[1];
	u64 first = 0, last = 0, flags = 0;
	struct object object = {};
	struct event *event;

	if ((s32)context[3])
		return 0;
	of_dmabuf(address, &object);
	event = begin(NODE_MAPPED, EVENT_MAPPED, &object);
	if (!event)
		return 0;
	peek(first, vma->vm_start);
	peek(last, vma->vm_end);
	peek(flags, vma->vm_flags);
	event->start = first;
	event->length = last - first;
	/* VM_READ, VM_WRITE and VM_EXEC are as PROT_READ, PROT_WRITE and PROT_EXEC. */
	event->protection = flags & 7;
	event->sharing = flags & VM_MAYSHARE ? 1 : 2;
	end(context, event, EVENT_MAPPED);
	return 0;
}

static always_inline int at_device(void *context, u64 dmabuf, struct dma_buf_attachment *attachment, u32 hook,
				   u32 what)
{
	u64 address = unknown(&dmabuf);
	struct object object = {};
	struct device *device = 0;
	const char *name = 0;
	struct event *event;

	of_dmabuf(address, &object);
	event = begin(hook, what, &object);
	if (!event)
		return 0;
	peek(device, attachment->dev);
	peek(name, device->init_name);
	if (!name)
		peek(name, device->kobj.name);
	probe_read_str(event->device, sizeof(event->device), name);
	end(context, event, what);
	return 0;
}

/*
 * struct dma_buf_attachment *dma_buf_dynamic_attach(struct dma_buf *dmabuf, struct device *dev,
 * const struct dma_buf_attach_ops *importer_ops, void *importer_priv)
 */
SEC("fexit/dma_buf_dynamic_attach")
int trace_attached(u64 *context)
{
	u64 result = context[4], attachment = unknown(&result);

	if (is_error(attachment))
		return 0;
	return at_device(context, context[0], (void *)attachment, ATTACHED, EVENT_ATTACHED);
}

/* void dma_buf_detach(struct dma_buf *dmabuf, struct dma_buf_attachment *attach) */
SEC("fentry/dma_buf_detach")
int trace_detached(u64 *context)
{
	u64 argument = context[1], attachment = unknown(&argument);

	if (is_error(attachment))
		return 0;
	return at_device(context, context[0], (void *)attachment, DETACHED, EVENT_DETACHED);
}

/* DMA_BUF_SET_NAME_A and _B of include/uapi/linux/dma-buf.h */
#define SET_NAME_A 0x40046201
#define SET_NAME_B 0x40086201

/* long dma_buf_ioctl(struct file *file, unsigned int cmd, unsigned long arg) */
SEC("fexit/dma_buf_ioctl")
int trace_renamed(u64 *context)
{
	struct file *file = (void *)context[0];
	u32 command = context[1];
	struct object object = {};
	struct event *event;

	if (context[3] || (command != SET_NAME_A && command != SET_NAME_B) || !is_buffer(file, &object))
		return 0;
	event = begin(RENAMED, EVENT_RENAMED, &object);
	if (event)
		end(context, event, EVENT_RENAMED);
	return 0;
}

/* int dma_buf_file_release(struct inode *inode, struct file *file) */
SEC("fentry/dma_buf_file_release")
int trace_dmabuf_closed(u64 *context)
{
	struct inode *inode = (void *)context[0];
	struct file *file = (void *)context[1];
	u64 address = 0, ino = 0;

	peek(address, file->private_data);
	peek(ino, inode->i_ino);
	if (address)
		map_update(&closed, &address, &ino, 0);
	return 0;
}

/* void dma_buf_release(struct dentry *dentry): the buffer's memory is given back. */
SEC("fentry/dma_buf_release")
int trace_dmabuf_freed(u64 *context)
{
	struct dentry *dentry = (void *)context[0];
	struct object object = { .of = EVENT_OF_DMABUF, .magic = DMA_BUF_MAGIC };
	struct event *event;
	u64 *ino;

	peek(object.address, dentry->d_fsdata);
	if (!object.address)
		return 0;
	event = begin(DMABUF_FREED, EVENT_FREED, &object);
	if (!event)
		return 0;
	ino = map_lookup(&closed, &object.address);
	if (ino)
		event->ino = *ino;
	end(context, event, EVENT_FREED);
	return 0;
}

static always_inline int inode_freed(void *context, u64 argument, u32 hook)
{
	u64 address = unknown(&argument);
	struct inode *inode = (void *)address;
	struct object object = { .of = EVENT_OF_FILE, .address = address, .inode = inode };
	struct event *event;
	u16 mode = 0;

	peek(mode, inode->i_mode);
	if ((mode & S_IFMT) != S_IFREG)
		return 0;
	object.magic = magic_of(inode);
	event = begin(hook, EVENT_FREED, &object);
	if (event)
		end(context, event, EVENT_FREED);
	return 0;
}

/* void shmem_evict_inode(struct inode *inode) */
SEC("fentry/shmem_evict_inode")
int trace_file_freed(u64 *context)
{
	return inode_freed(context, context[0], FILE_FREED);
}

/* void hugetlbfs_evict_inode(struct inode *inode) */
SEC("fentry/hugetlbfs_evict_inode")
int trace_huge_freed(u64 *context)
{
	return inode_freed(context, context[0], HUGE_FREED);
}

/* void wake_up_new_task(struct task_struct *p): the current task has made another one. */
SEC("fentry/wake_up_new_task")
int trace_forked(u64 *context)
{
	struct task_struct *task = (void *)context[0];
	u32 tgid = 0, own = current_pid_tgid() >> 32;
	u64 started;

	if (!in_family(started_of((void *)current_task())))
		return 0;
	peek(tgid, task->tgid);
	if (tgid == own)
		return 0;
	started = started_of(task);
	if (map_update(&family, &tgid, &started, 0))
		lose(map);
	return 0;
}

RECORDS(enum trace_kind trace_kind; enum event_what event_what; struct event event; struct event_stacks event_stacks; struct event_copied event_copied; struct losses losses; struct user_frame user_frame;);

struct context {
	struct bpf_iter_meta *meta;
	void *map;
	u32 *key;
	u64 *value;
};

/* Writes the kernel's own names of the addresses that are asked, each on a line. */
SEC("iter/bpf_map_elem")
int trace_names(struct context *context)
{
	static const char format[] = "%pB\n";
	u64 *value = context->value, address;

	if (!value)
		return 0;
	address = *value;
	seq_printf(context->meta->seq, format, sizeof(format), &address, sizeof(address));
	return 0;
}
