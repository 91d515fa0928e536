/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Lists every mapping of a dma-buf and of an io_uring, and of shared memory if that is looked for.
 * The kernel runs this for every VMA of every process, and holds the process's `mmap_lock` for
 * reading meanwhile. So the VMA cannot change, but the iterator waits if the process holds the
 * lock.
 */
#include "shmem.h"

struct context {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	struct vm_area_struct *vma;
};

static always_inline struct range range_of(struct vm_area_struct *vma, struct task_struct *task)
{
	return (struct range){
		.mm = id_of(vma->vm_mm),
		.start = vma->vm_start,
		.end = vma->vm_end,
		.pgoff = vma->vm_pgoff,
		.tgid = task->tgid,
		.flags = vma->vm_flags,
	};
}

RECORDS(struct vma vma; struct buffer buffer; struct shm_inode shm_inode; struct shm_vma shm_vma; struct keeper keeper; struct end end;);

SEC("iter/task_vma")
int vmas(struct context *context)
{
	struct vm_area_struct *vma = context->vma;
	struct task_struct *task = context->task;
	struct inode *inode;
	struct file *file;
	u64 magic;

	if (!task) {
		write_end(context->meta);
		return 0;
	}
	if (!vma)
		return 0;
	file = vma->vm_file;
	if (!file)
		return 0;
	inode = file->f_inode;
	magic = inode->i_sb->s_magic;
	if (magic == DMA_BUF_MAGIC) {
		record(vma, found);

		if (describe_each) {
			record(buffer, buffer);

			describe(&buffer, file->private_data, inode);
			/*
			 * references() leaves out the iterator's own reference, but here the
			 * iterator holds none.
			 */
			buffer.count = references(file, 0) + 1;
			buffer.count_after = buffer.count;
			put(context->meta->seq, buffer, BUFFER);
		}
		found.ino = inode->i_ino;
		found.range = range_of(vma, task);
		put(context->meta->seq, found, VMA);
	} else if (shmem && is_shmem(magic, inode->i_mode)) {
		record(shm_vma, found);

		if (!is_listed(magic))
			describe_unlisted(context->meta->seq, file);
		found.object = object_id(inode);
		found.file = file_id(file);
		/* As above. */
		found.count = references(file, 0) + 1;
		found.ipc = ipc_of(file);
		found.range = range_of(vma, task);
		put(context->meta->seq, found, SHM_VMA);
	} else if (magic == ANON_INODE_FS_MAGIC && is_ring(file)) {
		record(keeper, found);

		found.ino = inode->i_ino;
		found.tgid = task->tgid;
		found.tid = task->pid;
		found.what = KEEPER_RING_MAPPED;
		put(context->meta->seq, found, KEEPER);
	}
	return 0;
}
