/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Shared memory of all kinds but dma-bufs: what the iterators over tasks, fds, mappings and inodes
 * have in common.
 *
 * A file is shared memory if it is a regular file on a filesystem with one of four magic numbers:
 * tmpfs, hugetlbfs, memfd_secret, guest_memfd. Before Linux 7 a guest_memfd is an anonymous inode;
 * the iterator over fds knows it by its name. From the magic number, the device and the name lsbuf
 * concludes what kind it is.
 *
 * The inodes of tmpfs and hugetlbfs are in lists of the kernel, and shmem_inodes.bpf.c describes
 * each of them once. Those of memfd_secret and guest_memfd are in no list. They are described at
 * each reference to them.
 */
#ifndef LSBUF_SHMEM_H
#define LSBUF_SHMEM_H

#include "lsbuf.h"

#define S_IFREG 0100000

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* The private data of the file that shmat(2) opens in addition to the segment's own file. */
struct shm_file_data {
	struct ipc_namespace *ns;
};

#pragma clang attribute pop

/* An inode of shared memory. Its name follows, and then those of the folders above it. */
struct shm_inode {
	struct head head;
	u64 object;
	u64 ino;
	u64 size;
	u64 blocks;
	/* Pages in memory, and pages in swap. */
	u64 pages;
	u64 swapped;
	u64 magic;
	s64 created;
	/*
	 * How many files are open on it. Each has one reference to its dentry, O_PATH files too.
	 * dup and mmap add none. Others in the kernel can have a reference as well, such as a bind
	 * mount.
	 */
	u64 opens;
	u32 created_ns;
	u32 dev;
	u32 uid;
	u32 links;
	u32 block_bits;
	u32 seals;
	/*
	 * References to the inode beside those of its dentries: of a fanotify or inotify mark, or a
	 * Landlock rule.
	 */
	u32 pins;
	u32 flags;
};

/* shm_inode.flags */
/* seals is set. */
#define SHM_SEALS 1
/* pages and swapped are set. */
#define SHM_PAGES 2
/* created is set. */
#define SHM_CREATED 4
/* opens is set. */
#define SHM_OPENS 8
/* The kernel made the file for itself, and chose its name. It is in no folder. */
#define SHM_KERNELS 16
/* The names that follow are the whole path, up to the root of its filesystem. */
#define SHM_PATH 32
/* Nobody holds the file: no file is open on it, and it is not mapped. */
#define SHM_UNHELD 64
/* The name that follows is its own alone. It is in the same folder as the inode before it. */
#define SHM_SAME_FOLDER 128

/* An fd of shared memory. */
struct shm_fd {
	struct head head;
	/* The ids of the inode and of the open file, and the file's reference count. */
	u64 object;
	u64 file;
	u64 count;
	u64 files;
	u64 program;
	u32 tgid;
	u32 tid;
	u32 fd;
	u32 path_only;
};

/* A mapping of shared memory. */
struct shm_vma {
	struct head head;
	/* As in struct shm_fd. */
	u64 object;
	u64 file;
	u64 count;
	struct range range;
	/* The IPC namespace, if it is an attached System V segment. */
	u32 ipc;
	u32 unused;
};

/* A file of shared memory in a message that nobody has received yet. */
struct shm_in_flight {
	struct head head;
	/* As in struct shm_fd. */
	u64 object;
	u64 file;
	u64 count;
	/* As in struct in_flight. */
	u64 socket;
	u32 tgid;
	u32 tid;
	u32 fd;
	u32 path_only;
};

static always_inline int is_shmem(u64 magic, u32 mode)
{
	return (mode & S_IFMT) == S_IFREG && (magic == TMPFS_MAGIC || magic == HUGETLBFS_MAGIC ||
					      magic == SECRETMEM_MAGIC || magic == GUEST_MEMFD_MAGIC);
}

/* Whether the inodes of a filesystem are in the kernel's lists. */
static always_inline int is_listed(u64 magic)
{
	return magic == TMPFS_MAGIC || magic == HUGETLBFS_MAGIC;
}

/*
 * The id of an inode. Its number is part of it, because while a reading goes on, another inode can
 * get the address of one that was freed.
 */
static always_inline u64 object_id_of(u64 inode, u64 ino)
{
	return mixed(inode ^ ino * 0x9e3779b97f4a7c15ULL);
}

/* The same, if the verifier may not know the address of the inode. */
static always_inline u64 object_id(struct inode *inode)
{
	u64 address = 0, number = 0;

	probe_read(&address, sizeof(address), &inode);
	peek(number, inode->i_ino);
	return object_id_of(address, number);
}

/* The IPC namespace of an attached System V segment; 0: it is no segment, or not attached. */
static never_inline u32 ipc_of(struct file *file)
{
	const unsigned char *name = 0;
	struct shm_file_data *data = 0;
	struct ipc_namespace *ns = 0;
	struct dentry *dentry = 0;
	char begin[5] = {};
	u32 number = 0;

	if (!exists(data->ns))
		return 0;
	peek(dentry, file->f_path.dentry);
	peek(name, dentry->d_name.name);
	probe_read_str(begin, sizeof(begin), name);
	if (begin[0] != 'S' || begin[1] != 'Y' || begin[2] != 'S' || begin[3] != 'V')
		return 0;
	peek(data, file->private_data);
	peek(ns, data->ns);
	peek(number, ns->ns.inum);
	return number;
}

/*
 * Describes an inode by a file that is open on it, if it is in no list of the kernel. Returns how
 * many bytes were written. Not inlined, because its callers have little stack left.
 */
static never_inline u32 describe_unlisted(void *seq, struct file *file)
{
	struct super_block *fs = 0;
	struct dentry *dentry = 0;
	struct inode *inode = 0;
	record(shm_inode, found);
	u32 opens = 0;
	u8 bits = 0;

	peek(inode, file->f_inode);
	peek(fs, inode->i_sb);
	peek(found.magic, fs->s_magic);
	if (is_listed(found.magic))
		return 0;
	found.object = object_id(inode);
	peek(found.dev, fs->s_dev);
	peek(found.ino, inode->i_ino);
	peek(found.size, inode->i_size);
	peek(found.blocks, inode->i_blocks);
	peek(found.uid, inode->i_uid.val);
	peek(found.links, inode->i_nlink);
	peek(bits, inode->i_blkbits);
	found.block_bits = bits;
	if (exists(dentry->d_lockref.count)) {
		peek(dentry, file->f_path.dentry);
		peek(opens, dentry->d_lockref.count);
		found.opens = opens;
		found.flags |= SHM_OPENS;
	}
	put(seq, found, SHM_INODE);
	return sizeof(found);
}

#endif
