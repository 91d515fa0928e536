/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Shared memory of all kinds but dma-bufs, for the iterators over tasks, fds and mappings.
 *
 * A file is shared memory if it is a regular file on a filesystem with one of four magic numbers:
 * tmpfs, hugetlbfs, memfd_secret, guest_memfd. Before Linux 7 a guest_memfd is an anonymous inode;
 * the iterator over fds knows it by its name. In a reading it is described once, before the first
 * reference to it. From the magic number, the device and the path lsbuf concludes what kind it is.
 */
#ifndef LSBUF_SHMEM_H
#define LSBUF_SHMEM_H

#include "lsbuf.h"

#define TMPFS_MAGIC 0x01021994
#define HUGETLBFS_MAGIC 0x958458f6
#define SECRETMEM_MAGIC 0x5345434d
#define GUEST_MEMFD_MAGIC 0x474d454d
#define S_IFREG 0100000
#define PATH_ROOM 4096 /* PATH_MAX, which is no page size */
/* The longest name is NAME_MAX bytes and a NUL. */
#define NAME_ROOM 256

static long (*const d_path)(const struct path *path, char *to, u32 size) = (void *)147;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct shmem_inode_info {
	u32 seals;
	u64 swapped;
	struct timespec64 i_crtime;
	struct inode vfs_inode;
};

struct hugetlbfs_inode_info {
	struct inode vfs_inode;
	u32 seals;
};

/* The private data of the file that shmat(2) opens in addition to the segment's own file. */
struct shm_file_data {
	struct ipc_namespace *ns;
};

#pragma clang attribute pop

/* An open file of shared memory. Its path follows. */
struct shm_file {
	struct head head;
	u64 file;
	u64 count;
	u64 ino;
	u64 size;
	u64 blocks;
	/* Pages in memory, and pages in swap. */
	u64 pages;
	u64 swapped;
	u64 magic;
	s64 created;
	/* The id of the dentry that it was opened by. */
	u64 dentry;
	/* The number of references to that dentry, and of those to the inode. */
	u32 dentry_count;
	u32 inode_count;
	u32 created_ns;
	u32 dev;
	u32 uid;
	u32 links;
	u32 block_bits;
	u32 seals;
	u32 ipc;
	u32 flags;
};

/* shm_file.flags */
/* seals is set. */
#define SHM_SEALS 1
/* pages and swapped are set. */
#define SHM_PAGES 2
/* created is set. */
#define SHM_CREATED 4
/*
 * The text that follows is the whole path. Without this flag it is only the last name of the path.
 */
#define SHM_PATH 8
/*
 * Opened with O_PATH. It only names the inode and does not hold it open, and neither do the
 * references to it.
 */
#define SHM_PATH_ONLY 16
/*
 * dentry_count is set. Every open file has one reference to its dentry, O_PATH files too. dup and
 * mmap add none.
 */
#define SHM_DENTRY_COUNT 32
/*
 * The dentry is hashed: the file has a name in a folder, for which the filesystem keeps one
 * reference to the dentry. Memfds, unlinked files and O_TMPFILE files are not hashed, and the
 * filesystem keeps no reference to their dentries.
 */
#define SHM_HASHED 64

struct shm_undescribed {
	struct head head;
	u64 file;
};

struct shm_vma {
	struct head head;
	u64 file;
	u64 count;
	struct range range;
};

/*
 * The files that a reading has described, each with the step (seq_num) that did so. The kernel
 * repeats a step whose records did not fit, and the step must then describe the same files again.
 */
struct described {
	u64 session;
	u64 file;
};

shmem_map struct {
	/* BPF_MAP_TYPE_LRU_HASH */
	int (*type)[9];
	int (*max_entries)[16384];
	struct described *key;
	u64 *value;
} described SHMEM_MAP;

/*
 * Memory for descriptions, which do not fit on the stack. Each piece is used by one run of a
 * program at a time, whatever else runs on this or another processor. A run is never stopped half
 * way, so it always returns its piece.
 */
#define PIECES 16

struct piece {
	u64 taken;
	struct shm_file known;
	char path[PATH_ROOM];
};

shmem_map struct {
	/* BPF_MAP_TYPE_ARRAY */
	int (*type)[2];
	int (*max_entries)[PIECES];
	u32 *key;
	struct piece *value;
} pieces SHMEM_MAP;

static always_inline struct piece *take_piece(void)
{
	for (u32 nth = 0; nth < PIECES; nth++) {
		u32 key = nth;
		struct piece *piece = map_lookup(&pieces, &key);

		if (piece && !__sync_val_compare_and_swap(&piece->taken, 0, 1))
			return piece;
	}
	return 0;
}

static always_inline void return_piece(struct piece *piece)
{
	__sync_val_compare_and_swap(&piece->taken, 1, 0);
}

static always_inline int is_shmem(u64 magic, u32 mode)
{
	return (mode & S_IFMT) == S_IFREG && (magic == TMPFS_MAGIC || magic == HUGETLBFS_MAGIC ||
					      magic == SECRETMEM_MAGIC || magic == GUEST_MEMFD_MAGIC);
}

/* Whether this reading has not yet described a file, or has done so in the current step. */
static always_inline int is_news(struct bpf_iter_meta *meta, u64 id)
{
	struct described key = { .session = meta->session_id, .file = id };
	u64 *first = map_lookup(&described, &key);

	return !first || *first == meta->seq_num;
}

/*
 * Takes a piece to describe a new file in, and remembers that the file is described. If all pieces
 * are taken, a record says that the file was not described, and the next reference to it tries
 * again.
 */
static always_inline struct piece *begin_description(struct bpf_iter_meta *meta, void *seq, u64 id)
{
	struct described key = { .session = meta->session_id, .file = id };
	struct piece *piece = take_piece();
	u64 own = meta->seq_num;

	if (!piece) {
		record(shm_undescribed, found);

		found.file = id;
		put(seq, found, SHM_UNDESCRIBED);
		return 0;
	}
	map_update(&described, &key, &own, 0);
	__builtin_memset(&piece->known, 0, sizeof(piece->known));
	piece->known.file = id;
	return piece;
}

/* The IPC namespace of a System V segment if the file is an attachment of one, else 0. */
static never_inline u32 ipc_of(struct file *file, const unsigned char *name)
{
	struct shm_file_data *data = 0;
	struct ipc_namespace *ns = 0;
	char begin[5] = {};
	u32 number = 0;

	probe_read_str(begin, sizeof(begin), name);
	if (!exists(data->ns))
		return 0;
	if (begin[0] != 'S' || begin[1] != 'Y' || begin[2] != 'S' || begin[3] != 'V')
		return 0;
	peek(data, file->private_data);
	peek(ns, data->ns);
	peek(number, ns->ns.inum);
	return number;
}

/*
 * The references to the dentry: those of open files, and others in the kernel, such as a bind
 * mount's. The count is not set if the dentry belongs to another filesystem. It did in files that
 * overlayfs opened for itself (open_with_fake_path, before Linux 6.7).
 */
static never_inline int describe_dentry(struct shm_file *found, struct dentry *dentry, struct inode *inode)
{
	struct hlist_bl_node **hashed = 0;
	struct inode *of = 0;
	u64 address = 0;

	probe_read(&address, sizeof(address), &inode);
	peek(of, dentry->d_inode);
	if ((u64)of == address && exists(dentry->d_lockref.count)) {
		peek(found->dentry_count, dentry->d_lockref.count);
		found->flags |= SHM_DENTRY_COUNT;
	}
	peek(hashed, dentry->d_hash.pprev);
	if (hashed)
		found->flags |= SHM_HASHED;
	if (exists(inode->i_count.counter))
		peek(found->inode_count, inode->i_count.counter);
	return 0;
}

/*
 * The magic number is read again. If the verifier knew the values that it can have, it would follow
 * all of this once for each of them.
 */
static always_inline void describe_shmem(struct shm_file *found, struct file *file, struct inode *inode)
{
	struct address_space *mapping = 0;
	const unsigned char *name = 0;
	struct super_block *fs = 0;
	struct dentry *dentry = 0;
	u64 magic = 0;
	u32 mode = 0;
	u8 bits = 0;

	peek(mode, file->f_mode);
	if (mode & FMODE_PATH)
		found->flags |= SHM_PATH_ONLY;
	peek(fs, inode->i_sb);
	peek(magic, fs->s_magic);
	found->magic = magic;
	peek(found->ino, inode->i_ino);
	peek(found->size, inode->i_size);
	peek(found->blocks, inode->i_blocks);
	peek(found->uid, inode->i_uid.val);
	peek(found->links, inode->i_nlink);
	peek(bits, inode->i_blkbits);
	found->block_bits = bits;
	peek(found->dev, fs->s_dev);
	if (magic == TMPFS_MAGIC) {
		struct shmem_inode_info *info = container(inode, struct shmem_inode_info, vfs_inode);

		peek(found->seals, info->seals);
		peek(found->swapped, info->swapped);
		peek(mapping, inode->i_mapping);
		peek(found->pages, mapping->nrpages);
		found->flags |= SHM_SEALS | SHM_PAGES;
		if (exists(info->i_crtime)) {
			peek(found->created, info->i_crtime.tv_sec);
			peek(found->created_ns, info->i_crtime.tv_nsec);
			found->flags |= SHM_CREATED;
		}
	} else if (magic == HUGETLBFS_MAGIC) {
		struct hugetlbfs_inode_info *info = container(inode, struct hugetlbfs_inode_info, vfs_inode);

		if (exists(info->seals)) {
			peek(found->seals, info->seals);
			found->flags |= SHM_SEALS;
		}
	}
	peek(dentry, file->f_path.dentry);
	peek(name, dentry->d_name.name);
	found->ipc = ipc_of(file, name);
	describe_dentry(found, dentry, inode);
	found->dentry = id_of(file->f_path.dentry);
}

/*
 * Writes the description, followed by the first `length` bytes of the text. Returns the number of
 * bytes written.
 */
static always_inline u32 put_shm_file(void *seq, struct piece *piece, long length)
{
	u32 text = 0;

	if (length > 0 && length < PATH_ROOM)
		text = length;
	/*
	 * The compiler knows that text is small enough and would drop the mask, but the verifier
	 * needs it.
	 */
	asm volatile("" : "+r"(text));
	text &= PATH_ROOM - 1;
	piece->known.head.kind = SHM_FILE;
	piece->known.head.size = sizeof(piece->known) + text;
	seq_write(seq, &piece->known, sizeof(piece->known) + text);
	return sizeof(piece->known) + text;
}

/* Describes a file whose address the verifier knows, as d_path requires. */
static never_inline int describe_open(struct bpf_iter_meta *meta, struct file *file, u64 id, u64 count)
{
	struct piece *piece = begin_description(meta, meta->seq, id);
	long length;

	if (!piece)
		return 0;
	piece->known.count = count;
	describe_shmem(&piece->known, file, file->f_inode);
	length = d_path(&file->f_path, piece->path, sizeof(piece->path));
	if (length > 0)
		piece->known.flags |= SHM_PATH;
	put_shm_file(meta->seq, piece, length);
	return_piece(piece);
	return 0;
}

/*
 * Describes a file whose address the verifier does not know. d_path is not allowed then, so only
 * the last name of its path is written. Returns the number of bytes written.
 */
static never_inline int describe_waiting(struct bpf_iter_meta *meta, void *seq, struct file *file,
							      struct inode *inode, u64 id)
{
	struct piece *piece = begin_description(meta, seq, id);
	const unsigned char *name = 0;
	struct dentry *dentry = 0;
	u32 written;

	if (!piece)
		return sizeof(struct shm_undescribed);
	/*
	 * references() leaves out the iterator's own reference, but here the iterator holds none.
	 */
	piece->known.count = references(file, 0) + 1;
	describe_shmem(&piece->known, file, inode);
	peek(dentry, file->f_path.dentry);
	peek(name, dentry->d_name.name);
	written = put_shm_file(seq, piece, probe_read_str(piece->path, NAME_ROOM, name));
	return_piece(piece);
	return written;
}

#endif
