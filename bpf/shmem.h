/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Shared memory of the shmem family, for the iterators over tasks, fds and mappings.
 *
 * A file is of the family if it is a regular one on a filesystem with one of four magic numbers. It is described once in a
 * reading, before the first reference to it: what kind it is, its device and its path tell who reads this.
 */
#ifndef LSBUF_SHMEM_H
#define LSBUF_SHMEM_H

#include "lsbuf.h"

#define TMPFS_MAGIC 0x01021994
#define HUGETLBFS_MAGIC 0x958458f6
#define SECRETMEM_MAGIC 0x5345434d
#define GUEST_MEMFD_MAGIC 0x474d454d
#define S_IFREG 0100000
#define PATH_ROOM 4096
/* Of one name: NAME_MAX and a NUL. */
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

/* What a mapping of a System V segment has of its own behind the segment's file. */
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
	/* In pages: in memory, and in swap. */
	u64 pages;
	u64 swapped;
	u64 magic;
	s64 created;
	/* The dentry that it was opened by. */
	u64 dentry;
	/* The references to that dentry, and those to the inode. */
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
/* seals are told. */
#define SHM_SEALS 1
/* pages and swapped are told. */
#define SHM_PAGES 2
/* created is told. */
#define SHM_CREATED 4
/* What follows is the whole path; else only the name at its end. */
#define SHM_PATH 8
/* It only names the inode (O_PATH), and its references are none of those that hold it open. */
#define SHM_PATH_ONLY 16
/*
 * dentry_count is told. Every open file has one reference to its dentry, O_PATH files too; dup and
 * mmap add none.
 */
#define SHM_DENTRY_COUNT 32
/*
 * The dentry is hashed: the file is linked, and one reference keeps it so. A memfd, an unlinked
 * file and an O_TMPFILE are not: all references to their dentries are others'.
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

/* Which files a reading has described, and at which of its steps: one that did not fit is repeated, and must then describe
 * them again. */
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

/* Room for descriptions, which the stack has not. Each piece is one run's at a time, whoever else runs here or elsewhere; a
 * run is never stopped half way. */
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

/* Whether a file is new to this reading. */
static always_inline int is_news(struct bpf_iter_meta *meta, u64 id)
{
	struct described key = { .session = meta->session_id, .file = id };
	u64 *first = map_lookup(&described, &key);

	return !first || *first == meta->seq_num;
}

/*
 * A piece to describe a new file in, which is thereby no longer new. If all are taken, it is said
 * that nothing is told, and the next reference to the file tries again.
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

/* The namespace of a segment, if the file is what somebody has attached of one. */
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
 * Who keeps the dentry: open files, and what else the kernel may hold one by, as a bind mount.
 * Nothing is told where the dentry is another filesystem's, as overlayfs had it in files that it
 * opened for itself (open_with_fake_path, before Linux 6.7).
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

/* The magic number is read anew: each of those that it can be would have the verifier follow all of this once more. */
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

/* Writes the description with the first `length` bytes of the text behind it. Returns how many bytes that were. */
static always_inline u32 put_shm_file(void *seq, struct piece *piece, long length)
{
	u32 text = 0;

	if (length > 0 && length < PATH_ROOM)
		text = length;
	/* The compiler knows that it is small enough; the verifier has to be shown. */
	asm volatile("" : "+r"(text));
	text &= PATH_ROOM - 1;
	piece->known.head.kind = SHM_FILE;
	piece->known.head.size = sizeof(piece->known) + text;
	seq_write(seq, &piece->known, sizeof(piece->known) + text);
	return sizeof(piece->known) + text;
}

/* Describes a file that the verifier knows. */
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

/* Describes one of which it knows nothing: only the end of its path is to be had. Returns how many bytes that were. */
static never_inline int describe_waiting(struct bpf_iter_meta *meta, void *seq, struct file *file,
							      struct inode *inode, u64 id)
{
	struct piece *piece = begin_description(meta, seq, id);
	const unsigned char *name = 0;
	struct dentry *dentry = 0;
	u32 written;

	if (!piece)
		return sizeof(struct shm_undescribed);
	/* No reference is the iterator's own here. */
	piece->known.count = references(file, 0) + 1;
	describe_shmem(&piece->known, file, inode);
	peek(dentry, file->f_path.dentry);
	peek(name, dentry->d_name.name);
	written = put_shm_file(seq, piece, probe_read_str(piece->path, NAME_ROOM, name));
	return_piece(piece);
	return written;
}

#endif
