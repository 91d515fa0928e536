/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Lists every inode of shared memory that is in the kernel's lists and that somebody holds, with
 * its mappings: memfds, System V segments, shared anonymous memory, memory of graphics drivers, and
 * the files of every tmpfs, devtmpfs and hugetlbfs. It does not matter who holds it, in which
 * namespace, or whether the filesystem is mounted. Files that have a name and that nobody holds are
 * only counted, unless the reader asks for them: by O_NONBLOCK, which he can set on the open
 * iterator, and which the kernel does not look at there.
 *
 * The kernel has no iterator for this. The program is called once for each element of an empty map
 * (`iter/bpf_map_elem`). Each call is a step, and goes on where the last one stopped: from
 * superblock to superblock (`s_list`), from inode to inode (`s_inodes`), from mapping to mapping
 * (`i_mmap`). So no mapping of anything else is looked at.
 *
 * The lists are walked without their locks. Within a step nothing is freed that was in a list,
 * because inodes and superblocks are freed after an RCU grace period. Between two steps all of it
 * can be freed and its memory used again, so a step begins by finding out whether the place where
 * the last one stopped is still in its list, and still the same. New inodes are added at the head
 * of the list, and the walk goes from the head to the tail. If an inode was removed, the walk goes
 * on from one that it saw before, and so passes nothing over. It may then write an inode twice. New
 * superblocks are added at the tail, so one that has the memory of another one must not be taken
 * for it: the walk would pass over all between them.
 *
 * The mappings of an inode are in a tree, and can be used again even within a step. Linux before
 * 6.4 frees them at once, and from 6.15 on another mapping can have their memory at once. So
 * nothing is taken from a mapping before it proved to be one of the inode's. The walk is in order:
 * it goes from each mapping to the next one. Turning a tree to balance it does not change that
 * order, and so disturbs only a walk that is just between two mappings. Each link is followed only
 * if it leads back, too, which shows nearly every such disturbance; then the tree is begun again.
 * The reference counts show it if a mapping is missed all the same.
 */
#include "shmem.h"
#ifndef PAYERS
#define PAYERS 0
#endif
#if PAYERS
#include "payers.h"
#endif

#define SB_KERNMOUNT (1 << 22)
/* The longest path, which is no page size, and the longest name with a NUL. */
#define PATH_ROOM 4096
#define NAME_ROOM 256
#define O_NONBLOCK 04000

/*
 * So many moves are made in one step, while other work that the kernel has for this processor may
 * wait, and so many steps in one reading.
 */
volatile const u32 moves = 2048;
#define MOST_STEPS 65536
/* So many names of one inode, and so many folders above it, are looked at. */
#define MOST_ALIASES 256
#define MOST_FOLDERS 64
/* How often the walk begins a list again before it gives the list up. */
#define MOST_RESTARTS 64
/* How often it loses its way among the mappings of one inode before it gives them up. */
#define MOST_LOST 16
/* How often the names of an inode are read if they change meanwhile. */
#define MOST_TRIES 4

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

struct inode___root {
	u32 i_generation;
};

struct super_block___mounted {
	struct {
		int counter;
	} s_active;
	struct list_head s_mounts;
};

/* From Linux 6.18 on. */
struct super_block___6_18 {
	struct mount *s_mounts;
};

struct vfsmount {
	struct dentry *mnt_root;
	struct super_block *mnt_sb;
};

struct mount {
	struct vfsmount mnt;
	struct list_head mnt_instance;
	struct mnt_namespace *mnt_ns;
};

/* From Linux 6.18 on. */
struct mount___6_18 {
	struct mount *mnt_next_for_sb;
};

struct seqcount_spinlock {
	struct seqcount seqcount;
};

struct dentry___moving {
	struct seqcount_spinlock d_seq;
};

#pragma clang attribute pop

/* What was counted on a filesystem and not listed. */
struct unlisted {
	/* Regular files that nobody holds. */
	u64 files;
	u64 pages;
	u64 swapped;
	/* Pages of folders and symbolic links. */
	u64 other_pages;
	/*
	 * Who uses its folders, and its other files that are not regular. It is what the dentries
	 * of these count, less the references that a name and the dentries in a folder have. Left
	 * are one reference of each mount, and those of processes that have a folder open or work
	 * in it. The reference that the filesystem has to its root makes up for the root's dentry,
	 * which is in no folder.
	 */
	u64 uses;
};

/* A filesystem of shared memory. It follows its inodes. */
struct shm_filesystem {
	struct head head;
	u64 filesystem;
	u64 magic;
	struct unlisted unlisted;
	u32 dev;
	/* 1 if the kernel has mounted it for itself. */
	u32 kernels;
	/*
	 * How many mounts it has, and how many references that keep it: one of each mount. The
	 * inode number of the mount namespace that they are in, as far as they are still in one; 0:
	 * none is.
	 */
	u32 mounts;
	u32 active;
	u32 namespace;
	/* 1 if they are in several, or not all were seen. */
	u32 elsewhere;
};

/* The record before the last. */
struct shm_walk {
	struct head head;
	/* 1 if inodes, or mappings of an inode, may be missing. */
	u32 inodes_cut;
	u32 mappings_cut;
	/* 1 if an inode may have been written twice. */
	u32 repeated;
	u32 unused;
};

/* So many inodes are remembered: the last one, and of those before an 8th, 64th, 512th, 4096th. */
#define SEEN 5

/* Where the walk is. */
struct place {
	/* A superblock of shared memory, or the anchor, and what root_of() says of it. */
	struct super_block *fs;
	u64 root;
	/* The superblock of shared memory before that in the list. */
	struct super_block *fs_before;
	u64 root_before;
	u64 magic;
	u64 flags;
	struct inode *seen[SEEN];
	u64 numbers[SEEN];
	/* What had been counted when the walk left each of `seen`. Of the last it is `unlisted`. */
	struct unlisted counted[SEEN];
	struct unlisted unlisted;
	u64 nth;
	/* The id of seen[0]. */
	u64 object;
	/* The mapping of seen[0] that was written last; null: none. */
	struct rb_node *node;
	/* By which it is known again. */
	struct rb_node links;
	u64 start;
	struct mm_struct *mm;
	/*
	 * Where the way to the next mapping has led within this step, and from where; null:
	 * nowhere.
	 */
	struct rb_node *at;
	struct rb_node *from;
	u32 going_down;
	u32 in_tree;
	u32 lost;
	/* Else the walk is between `fs` and the next superblock. */
	u32 in_filesystem;
	u32 dev;
	u32 restarts;
	u32 inodes_cut;
	u32 mappings_cut;
	u32 done;
	u32 repeated;
#if PAYERS
	struct pages_place pages;
#endif
};

/*
 * Where a step began and where it stopped. The kernel repeats a step (seq_num) whose records did
 * not fit.
 */
struct cursor {
	u64 step;
	struct place begin;
	struct place end;
};

/* The cursors of the readings under way, by session_id. */
struct {
	/* BPF_MAP_TYPE_LRU_HASH */
	int (*type)[9];
	int (*max_entries)[1024];
	u64 *key;
	struct cursor *value;
} cursors SEC(".maps");

/* Its elements are the steps. */
struct {
	/* BPF_MAP_TYPE_ARRAY */
	int (*type)[2];
	int (*max_entries)[MOST_STEPS];
	u32 *key;
	u64 *value;
} steps SEC(".maps");

/*
 * The state of the walk over the dentries of an inode: its names, if it has several. A dentry is
 * hashed as long as the file has that name in a folder, and then the filesystem keeps one reference
 * to it. Those of memfds, unlinked files and O_TMPFILE files are not hashed.
 */
struct piece;

struct aliases {
	u64 next;
	/* One of them, a hashed one if there is any. */
	u64 dentry;
	u64 opens;
	/* How many there are. */
	u64 dentries;
	struct inode *inode;
	struct piece *piece;
	u32 hashed;
	u32 tries;
};

/* So much of a dentry is copied at most. */
#define DENTRY_ROOM 256

/* Where in `raw` the inode begins. What the filesystem keeps beside it may be before it. */
#define INODE_AT 512

/*
 * Memory for a step, which does not fit on the stack. Each piece is used by one run of the program
 * at a time, whatever else runs on this or another processor. A run is never stopped half way, so
 * it always returns its piece.
 */
#define PIECES 16

struct piece {
	u64 taken;
	/*
	 * The address of a superblock that is in the list as long as the iterator is open: the
	 * iterator's own.
	 */
	u64 anchor;
	/* Whether files that nobody holds are written. */
	u64 with_unheld;
	/* The folder of such a file whose whole path was written last in this step; 0: none. */
	u64 folder;
	struct cursor cursor;
	/* A copy of the inode. */
	u8 raw[INODE_AT + 2048];
	/* A copy of the dentry that was looked at last, and its address. */
	u8 dentry[DENTRY_ROOM];
	u64 dentry_at;
	struct aliases aliases;
#if PAYERS
	struct pages_scratch pages;
	struct shm_cgroup cgroup;
	/* The names of its path. */
	char cgroup_path[PATH_ROOM + NAME_ROOM];
#endif
	struct shm_inode found;
	/* The names, each with a NUL. The last may begin at PATH_ROOM - 1. */
	char path[PATH_ROOM + NAME_ROOM];
};

struct {
	/* BPF_MAP_TYPE_ARRAY */
	int (*type)[2];
	int (*max_entries)[PIECES];
	u32 *key;
	struct piece *value;
} pieces SEC(".maps");

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

/* The fields of the copied inode, and of the structure that it is in. */
#define of_inode(type, field) (*(type *)(piece->raw + INODE_AT + place_of(((struct inode *)0)->field)))
#define of_shmem(type, field)                                                                \
	(*(type *)(piece->raw + INODE_AT - place_of(((struct shmem_inode_info *)0)->vfs_inode) + \
		   place_of(((struct shmem_inode_info *)0)->field)))

/* The most that one move writes: an inode with the longest path. */
#define MOST_WRITTEN (sizeof(struct shm_inode) + PATH_ROOM)
/* More than what the last records of a reading take. */
#define ENDING 64

struct walk {
	struct seq_file *seq;
	struct piece *piece;
};

/* How much room is left in what the kernel keeps for one read. */
static always_inline u64 room(struct seq_file *seq)
{
	u64 size = seq->size, count = seq->count;

	return size > count ? size - count : 0;
}

static always_inline u64 next_of(const void *links)
{
	u64 next = 0;

	probe_read(&next, sizeof(next), links);
	return next;
}

static always_inline void leave_inode(struct place *place)
{
	place->in_tree = 0;
#if PAYERS
	place->pages.in_pages = 0;
#endif
}

static always_inline void begin_inodes(struct place *place)
{
	forget(place->seen);
	forget(place->unlisted);
	place->nth = 0;
	leave_inode(place);
}

/* Begins the inodes of a filesystem again, or gives them up. */
static always_inline void restart_inodes(struct place *place)
{
	begin_inodes(place);
	place->repeated = 1;
	if (place->restarts++ >= MOST_RESTARTS) {
		place->inodes_cut = 1;
		place->in_filesystem = 0;
	}
}

/*
 * A number for the root of a filesystem, by which a superblock is known again; 0: it has no root,
 * because it is new or being unmounted, or it is the head of the list. A tmpfs chooses i_generation
 * at random, and hugetlbfs takes i_ino from a counter of the whole machine.
 */
verified_once u64 root_of(u64 address)
{
	struct inode___root *made;
	struct super_block *fs, *of = 0;
	struct dentry *root = 0;
	struct inode *inode = 0;
	u64 number = 0, its = 0;
	u32 generation = 0;

	probe_read(&fs, sizeof(fs), &address);
	peek(root, fs->s_root);
	peek(of, root->d_sb);
	probe_read(&its, sizeof(its), &of);
	if (!address || its != address)
		return 0;
	peek(inode, root->d_inode);
	peek(number, inode->i_ino);
	made = (void *)inode;
	peek(generation, made->i_generation);
	return (number ^ (u64)generation << 32) * 2 + 1;
}

/* The state of a walk over superblocks. */
struct search {
	u64 at;
	u64 anchor;
	/* Those that are looked for, and what root_of() said of them. */
	u64 fs;
	u64 before;
	u64 root;
	u64 root_before;
	u32 has_fs;
	u32 has_before;
};

/* Goes on to the next superblock, until it is one of shared memory or the anchor. */
static long skip_others(u32 at, struct search *search)
{
	struct super_block *of = 0;
	u64 self = search->at + place_of(of->s_list), next = next_of((void *)self), magic = 0;

	/* It was removed meanwhile. */
	if (!next || next == self)
		return 1;
	search->at = next - place_of(of->s_list);
	probe_read(&of, sizeof(of), &search->at);
	peek(magic, of->s_magic);
	if (is_listed(magic))
		search->root = root_of(search->at);
	search->has_fs = search->root || search->at == search->anchor;
	return search->has_fs;
}

/* Makes the superblock before the present one the present one; if there is none, the anchor. */
static always_inline void back_to_filesystem_before(struct piece *piece)
{
	struct place *place = &piece->cursor.end;

	place->repeated |= !!place->fs_before;
	place->root = place->fs_before ? place->root_before : root_of(piece->anchor);
	if (!place->fs_before)
		probe_read(&place->fs_before, sizeof(place->fs_before), &piece->anchor);
	place->fs = place->fs_before;
	place->fs_before = 0;
}

/* Goes on to the next filesystem of shared memory. */
verified_once long next_filesystem(struct piece *piece)
{
	struct search search;
	struct super_block *fs;
	struct place *place;

	if (!piece)
		return 1;
	forget(search);
	place = &piece->cursor.end;
	search.at = search.fs = next_of(&place->fs);
	search.anchor = piece->anchor;
	loop(1 << 16, skip_others, &search, 0);
	if (!search.has_fs) {
		if (place->restarts++ >= MOST_RESTARTS) {
			place->inodes_cut = place->done = 1;
			return 1;
		}
		/* If it was this one that was removed, the one before may still be in the list. */
		if (search.at == search.fs) {
			back_to_filesystem_before(piece);
		}
		return 0;
	}
	if (search.at == search.anchor) {
		place->done = 1;
		return 1;
	}
	place->fs_before = place->fs;
	place->root_before = place->root;
	probe_read(&place->fs, sizeof(place->fs), &search.at);
	place->root = search.root;
	fs = place->fs;
	peek(place->magic, fs->s_magic);
	peek(place->flags, fs->s_flags);
	peek(place->dev, fs->s_dev);
	begin_inodes(place);
	place->in_filesystem = 1;
	return 0;
}

/* The state of a walk over the mounts of a filesystem. */
struct mounted {
	/* The next mount, or where its links are, and the end of the list. */
	u64 at;
	u64 end;
	u64 fs;
	u64 namespace;
	u32 mounts;
	u32 elsewhere;
	u32 done;
};

#define MOST_MOUNTS 64

static long one_mount(u32 at, struct mounted *mounted)
{
	struct mount___6_18 *newer = 0;
	struct mount *mount = 0;
	u64 of = 0, namespace = 0, next;

	next = mounted->at;
	if (next == mounted->end) {
		mounted->done = 1;
		return 1;
	}
	if (!exists(newer->mnt_next_for_sb))
		next -= place_of(mount->mnt_instance);
	probe_read(&mount, sizeof(mount), &next);
	peek(of, mount->mnt.mnt_sb);
	/* It was unmounted meanwhile. */
	if (of != mounted->fs)
		return 1;
	peek(namespace, mount->mnt_ns);
	if (namespace && mounted->namespace && namespace != mounted->namespace)
		mounted->elsewhere = 1;
	if (namespace)
		mounted->namespace = namespace;
	mounted->mounts++;
	newer = (void *)mount;
	/* Or the compiler would compute the place of a field that this kernel does not have. */
	if (exists(newer->mnt_next_for_sb)) {
		asm volatile("" : "+r"(newer));
		peek(mounted->at, newer->mnt_next_for_sb);
	} else {
		asm volatile("" : "+r"(mount));
		peek(mounted->at, mount->mnt_instance.next);
	}
	return 0;
}

/* Describes the mounts of the filesystem where the walk is. */
verified_once int see_mounts(struct shm_filesystem *found, struct piece *piece)
{
	struct super_block___mounted *older;
	struct super_block___6_18 *newer;
	struct mnt_namespace *namespace;
	struct mounted mounted;

	if (!found || !piece)
		return 0;
	older = (void *)piece->cursor.end.fs;
	newer = (void *)older;
	forget(mounted);
	mounted.fs = next_of(&piece->cursor.end.fs);
	if (exists(newer->s_mounts)) {
		peek(mounted.at, newer->s_mounts);
	} else {
		peek(mounted.at, older->s_mounts.next);
		mounted.end = mounted.fs + place_of(older->s_mounts);
	}
	loop(MOST_MOUNTS, one_mount, &mounted, 0);
	peek(found->active, older->s_active);
	found->mounts = mounted.mounts;
	probe_read(&namespace, sizeof(namespace), &mounted.namespace);
	peek(found->namespace, namespace->ns.inum);
	/* Those of the kernel have an error code for a namespace, and those of open_tree a 0. */
	found->elsewhere = mounted.elsewhere || !mounted.done || (mounted.namespace && !found->namespace);
	return 0;
}

static never_inline long end_filesystem(struct walk *walk)
{
	struct piece *piece = walk->piece;
	record(shm_filesystem, found);
	struct place *place;
	u64 address = 0;

	if (!piece)
		return 1;
	place = &piece->cursor.end;
	probe_read(&address, sizeof(address), &place->fs);
	found.filesystem = mixed(address);
	found.magic = place->magic;
	found.dev = place->dev;
	found.kernels = !!(place->flags & SB_KERNMOUNT);
	found.unlisted = place->unlisted;
	if (!found.kernels)
		see_mounts(&found, piece);
	put(walk->seq, found, SHM_FILESYSTEM);
	place->in_filesystem = 0;
	return 0;
}

/* Whether an inode is still in the list of its superblock. */
static always_inline int is_in_list(struct place *place, u32 nth)
{
	struct inode *inode = place->seen[nth];
	u64 of = 0, number = 0, self, next, back = 0;

	self = next_of(&place->seen[nth]) + place_of(inode->i_sb_list);
	peek(of, inode->i_sb);
	peek(number, inode->i_ino);
	next = next_of((void *)self);
	if (!next || next == self || of != next_of(&place->fs) || number != place->numbers[nth])
		return 0;
	probe_read(&back, sizeof(back), (char *)next + 8);
	return back == self;
}

/*
 * The last inode was removed from the list. Goes back to the newest of those before it that is
 * still there, or begins the list again.
 */
verified_once int go_back(struct piece *piece)
{
	struct place *place;

	if (!piece)
		return 0;
	place = &piece->cursor.end;
	leave_inode(place);
	place->repeated = 1;
	for (u32 nth = 1; nth < SEEN; nth++) {
		if (!place->seen[nth] || !is_in_list(place, nth))
			continue;
		/* What follows it in the list will be seen and counted once more. */
		for (u32 newer = 0; newer < nth; newer++) {
			place->seen[newer] = place->seen[nth];
			place->numbers[newer] = place->numbers[nth];
			place->counted[newer] = place->counted[nth];
		}
		place->unlisted = place->counted[nth];
		return 0;
	}
	restart_inodes(place);
	return 0;
}

/* Remembers an inode before it is counted. */
static always_inline void remember(struct place *place, u64 inode, u64 number)
{
	place->counted[0] = place->unlisted;
	for (u32 nth = SEEN - 1; nth > 0; nth--)
		if (!(place->nth & ((1 << 3 * nth) - 1))) {
			place->seen[nth] = place->seen[nth - 1];
			place->numbers[nth] = place->numbers[nth - 1];
			place->counted[nth] = place->counted[nth - 1];
		}
	place->nth++;
	probe_read(&place->seen[0], sizeof(place->seen[0]), &inode);
	place->numbers[0] = number;
}

static always_inline u64 place_of_alias(void)
{
	struct dentry___7_2 *new = 0;
	struct dentry *old = 0;

	return exists(new->d_alias) ? place_of(new->d_alias) : place_of(old->d_u.d_alias);
}

#define of_dentry(type, field) (*(type *)(piece->dentry + place_of(((struct dentry *)0)->field)))

/* Up to the last field of a dentry that is looked at. */
static always_inline u32 dentry_size(void)
{
	struct dentry___moving *moving = 0;
	struct dentry *of = 0;
	u32 size = place_of_alias();

	if (size < place_of(of->d_lockref.count))
		size = place_of(of->d_lockref.count);
	if (size < place_of(of->d_inode))
		size = place_of(of->d_inode);
	if (size < place_of(of->d_name.name))
		size = place_of(of->d_name.name);
	if (size < place_of(of->d_parent))
		size = place_of(of->d_parent);
	if (size < place_of(of->d_hash.pprev))
		size = place_of(of->d_hash.pprev);
	if (exists(moving->d_seq.seqcount.sequence) && size < place_of(moving->d_seq.seqcount.sequence))
		size = place_of(moving->d_seq.seqcount.sequence);
	return size + 8 > DENTRY_ROOM ? DENTRY_ROOM : size + 8;
}

static long one_alias(u32 at, struct aliases *aliases)
{
	u64 links = aliases->next, dentry, hashed, own = 0, next;
	struct piece *piece = aliases->piece;
	struct inode *inode;
	s32 count;

	if (!links || !piece)
		return 1;
	dentry = links - place_of_alias();
	/* All fields at once, as of the inode. */
	probe_read(piece->dentry, dentry_size(), (void *)dentry);
	piece->dentry_at = dentry;
	hashed = of_dentry(u64, d_hash.pprev);
	count = of_dentry(s32, d_lockref.count);
	next = *(u64 *)(piece->dentry + place_of_alias());
	/*
	 * A dentry loses its inode before it leaves the inode's list. So while it has the inode, it
	 * is in the list, and its link leads to the next one. Else the list is begun again.
	 */
	probe_read(&own, sizeof(own), &aliases->inode);
	if (of_dentry(u64, d_inode) != own) {
		if (aliases->tries++ >= MOST_TRIES)
			return 1;
		inode = aliases->inode;
		forget(aliases->opens);
		forget(aliases->dentries);
		forget(aliases->dentry);
		forget(aliases->hashed);
		peek(aliases->next, inode->i_dentry.first);
		return 0;
	}
	aliases->next = next;
	aliases->dentries = unknown(&aliases->dentries) + 1;
	/* A dentry that is being freed has a negative count. */
	if (count > !!hashed)
		aliases->opens = unknown(&aliases->opens) + count - !!hashed;
	if (!aliases->dentry || (hashed && !aliases->hashed))
		aliases->dentry = dentry;
	aliases->hashed |= !!hashed;
	return 0;
}

/* Looks at the dentries of the inode of which the piece has a copy. */
verified_once int see_aliases(struct piece *piece)
{
	struct aliases aliases;

	if (!piece)
		return 0;
	forget(aliases);
	aliases.inode = piece->cursor.end.seen[0];
	aliases.piece = piece;
	aliases.next = of_inode(u64, i_dentry.first);
	if (aliases.next)
		one_alias(0, &aliases);
	if (aliases.next)
		loop(MOST_ALIASES, one_alias, &aliases, 0);
	probe_read(&piece->aliases, sizeof(piece->aliases), &aliases);
	return 0;
}

/* The state of the walk over the names of a path, from its end. */
struct names {
	struct piece *piece;
	u64 dentry;
	u64 length;
	/* A sum of the sequence numbers of its dentries, and what it must be the next time. */
	u64 sum;
	u64 expected;
	u32 done;
	/* A name changed while it was read. */
	u32 torn;
};

/* The sequence number of a dentry. It is odd while the dentry gets another name or folder. */
static always_inline u32 sequence_of(struct dentry *dentry)
{
	struct dentry___moving *moving = (void *)dentry;
	u32 sequence = 0;

	if (exists(moving->d_seq.seqcount.sequence))
		peek(sequence, moving->d_seq.seqcount.sequence);
	return sequence;
}

/* The same of the copy. */
static always_inline u32 sequence_of_copy(struct piece *piece)
{
	struct dentry___moving *moving = 0;

	if (!exists(moving->d_seq.seqcount.sequence))
		return 0;
	return *(u32 *)(piece->dentry + place_of(moving->d_seq.seqcount.sequence));
}

static long one_name(u32 at, struct names *names)
{
	u64 parent = 0, own, length = unknown(&names->length);
	const unsigned char *name = 0;
	struct piece *piece = names->piece;
	struct dentry *of;
	u32 sequence;
	long copied;

	if (!piece)
		return 1;
	own = names->dentry;
	probe_read(&of, sizeof(of), &own);
	if (!at && own == piece->dentry_at) {
		sequence = sequence_of_copy(piece);
		parent = of_dentry(u64, d_parent);
		name = of_dentry(const unsigned char *, d_name.name);
	} else {
		sequence = sequence_of(of);
		peek(parent, of->d_parent);
		peek(name, of->d_name.name);
	}
	/* The root of a filesystem is its own parent, and so is a file that is in no folder. */
	if (at && (!parent || parent == own)) {
		names->done = 1;
		return 1;
	}
	if (length >= PATH_ROOM)
		return 1;
	/*
	 * The compiler knows that it is small enough and would drop the mask, but the verifier
	 * needs it.
	 */
	asm volatile("" : "+r"(length));
	length &= PATH_ROOM - 1;
	copied = probe_read_str(piece->path + length, NAME_ROOM, name);
	if (copied <= 0)
		return 1;
	if (sequence & 1 || sequence_of(of) != sequence) {
		names->torn = 1;
		return 1;
	}
	names->sum = unknown(&names->sum) * 31 + sequence;
	names->length = length + copied;
	names->dentry = parent;
	return 0;
}

/* Makes the sum of the sequence numbers again. */
static long one_sequence(u32 at, struct names *names)
{
	u64 parent = 0, own = names->dentry;
	struct dentry *of;

	probe_read(&of, sizeof(of), &own);
	peek(parent, of->d_parent);
	if (at && (!parent || parent == own))
		return 1;
	names->sum = unknown(&names->sum) * 31 + sequence_of(of);
	names->dentry = parent;
	return 0;
}

/*
 * Copies the names into the piece. Returns their length together, and 1 more than fits if they
 * changed meanwhile: what was copied may then be a path that never was.
 */
verified_once u64 copy_names(struct piece *piece, u64 dentry)
{
	struct names names;
	u64 length;

	if (!piece)
		return 0;
	forget(names);
	names.piece = piece;
	names.dentry = dentry;
	loop(MOST_FOLDERS, one_name, &names, 0);
	length = unknown(&names.length);
	if (names.torn)
		return PATH_ROOM;
	if (!names.done || length >= PATH_ROOM)
		return length < PATH_ROOM ? length : 0;
	names.expected = unknown(&names.sum);
	names.sum = 0;
	names.dentry = dentry;
	loop(MOST_FOLDERS, one_sequence, &names, 0);
	if (names.sum != names.expected)
		return PATH_ROOM;
	if (names.piece)
		names.piece->found.flags |= SHM_PATH;
	return length;
}

/* Copies the last name alone. Returns its length; 0 if it changed meanwhile. */
verified_once u64 copy_name(struct piece *piece, u64 dentry)
{
	struct names names;

	if (!piece)
		return 0;
	forget(names);
	names.piece = piece;
	names.dentry = dentry;
	one_name(0, &names);
	return names.torn ? 0 : unknown(&names.length);
}

/*
 * Copies the names of the dentry by which the inode is known, whose folder is `parent`. Returns
 * their length.
 */
static never_inline u64 name_inode(struct piece *piece, u64 parent)
{
	u64 text = 0;

	if (!piece)
		return 0;
	if (piece->found.flags & SHM_UNHELD && parent == piece->folder) {
		text = copy_name(piece, piece->aliases.dentry);
		if (text) {
			piece->found.flags |= SHM_SAME_FOLDER;
			return text;
		}
	}
	text = copy_names(piece, piece->aliases.dentry);
	for (u32 nth = 1; nth < MOST_TRIES && text >= PATH_ROOM; nth++)
		text = copy_names(piece, piece->aliases.dentry);
	if (text >= PATH_ROOM)
		text = 0;
	if (piece->found.flags & SHM_UNHELD)
		piece->folder = piece->found.flags & SHM_PATH ? parent : 0;
	return text;
}

/* Describes the inode by its copy. */
static always_inline void describe_copy(struct piece *piece, struct place *place)
{
	struct inode *inode = place->seen[0];
	struct shm_inode *found = &piece->found;

	forget(*found);
	found->object = object_id(inode);
	found->magic = place->magic;
	found->dev = place->dev;
	found->ino = place->numbers[0];
	found->size = of_inode(u64, i_size);
	found->blocks = of_inode(u64, i_blocks);
	found->uid = of_inode(u32, i_uid.val);
	found->links = of_inode(u32, i_nlink);
	found->block_bits = of_inode(u8, i_blkbits);
	if (place->magic == TMPFS_MAGIC) {
		found->seals = of_shmem(u32, seals);
		found->swapped = of_shmem(u64, swapped);
		found->pages = of_inode(u64, i_data.nrpages);
		found->flags |= SHM_SEALS | SHM_PAGES;
		if (exists(((struct shmem_inode_info *)0)->i_crtime)) {
			found->created = of_shmem(s64, i_crtime.tv_sec);
			found->created_ns = of_shmem(s64, i_crtime.tv_nsec);
			found->flags |= SHM_CREATED;
		}
	} else {
		struct hugetlbfs_inode_info *info = container(inode, struct hugetlbfs_inode_info, vfs_inode);

		if (exists(info->seals)) {
			peek(found->seals, info->seals);
			found->flags |= SHM_SEALS;
		}
	}
}

#if PAYERS
#include "pages.h"
#endif

/* Writes the inode of which the piece has a copy, unless it is only counted. */
static never_inline long see_inode(struct walk *walk)
{
	struct piece *piece = walk->piece;
	struct aliases *aliases;
	struct place *place;
	struct dentry *of;
	u64 parent = 0;
	u32 unheld = 0;
	u64 text;

	if (!piece)
		return 1;
	place = &piece->cursor.end;
	see_aliases(piece);
	aliases = &piece->aliases;
	place->unlisted.uses -= aliases->dentries;
	/* If not all dentries were seen, somebody may hold it. */
	if (!aliases->opens && !aliases->next && !of_inode(u64, i_data.i_mmap.rb_root.rb_node)) {
		place->unlisted.files++;
		place->unlisted.pages += of_inode(u64, i_data.nrpages);
		if (place->magic == TMPFS_MAGIC)
			place->unlisted.swapped += of_shmem(u64, swapped);
		if (!piece->with_unheld || place->flags & SB_KERNMOUNT)
			return 0;
		unheld = SHM_UNHELD;
	}
	describe_copy(piece, place);
	piece->found.flags |= unheld;
	if (!aliases->next && of_inode(u32, i_count.counter) > aliases->dentries)
		piece->found.pins = of_inode(u32, i_count.counter) - aliases->dentries;
	place->object = piece->found.object;
	if (!aliases->next) {
		piece->found.opens = aliases->opens;
		piece->found.flags |= SHM_OPENS;
	}
	if (piece->dentry_at == aliases->dentry) {
		parent = of_dentry(u64, d_parent);
	} else {
		probe_read(&of, sizeof(of), &aliases->dentry);
		peek(parent, of->d_parent);
	}
	if (parent == aliases->dentry && place->flags & SB_KERNMOUNT)
		piece->found.flags |= SHM_KERNELS;
	text = name_inode(piece, parent);
	asm volatile("" : "+r"(text));
	text &= PATH_ROOM - 1;
	piece->found.head.kind = SHM_INODE;
	piece->found.head.size = sizeof(piece->found) + text;
	seq_write(walk->seq, &piece->found, sizeof(piece->found) + text);
#if PAYERS
	begin_pages(piece);
#endif
	if (of_inode(u64, i_data.i_mmap.rb_root.rb_node)) {
		place->in_tree = 1;
		place->node = place->at = 0;
		place->lost = 0;
	}
	return 0;
}

/* Writes a mapping. Returns 0 if it is none of this inode's. */
static never_inline int write_mapping(struct walk *walk, struct vm_area_struct *vma)
{
	struct piece *piece = walk->piece;
	struct task_struct *owner = 0;
	struct mm_struct *mm = 0;
	struct file *file = 0;
	record(shm_vma, found);
	u64 flags = 0, of = 0;

	if (!piece)
		return 0;
	peek(file, vma->vm_file);
	peek(of, file->f_inode);
	if (!of || of != next_of(&piece->cursor.end.seen[0]))
		return 0;
	found.object = piece->cursor.end.object;
	found.file = file_id(file);
	/* references() leaves out the iterator's own reference, but here it holds none. */
	found.count = references(file, 0) + 1;
	peek(mm, vma->vm_mm);
	peek(found.range.start, vma->vm_start);
	peek(found.range.end, vma->vm_end);
	peek(found.range.pgoff, vma->vm_pgoff);
	peek(flags, vma->vm_flags);
	found.range.flags = flags;
	found.range.mm = mixed((u64)mm);
	if (exists(mm->owner)) {
		peek(owner, mm->owner);
		peek(found.range.tgid, owner->tgid);
	}
	if (piece->cursor.end.flags & SB_KERNMOUNT)
		found.ipc = ipc_of(file);
	put(walk->seq, found, SHM_VMA);
	return 1;
}

/* The mapping is no longer where a link led to it. Goes back to the last one, or to the first. */
static always_inline long lose_way(struct place *place)
{
	place->at = 0;
	if (place->lost++ & 1)
		place->node = 0;
	if (place->lost >= MOST_LOST) {
		place->mappings_cut = 1;
		place->in_tree = 0;
	}
	return 0;
}

/* One move through the tree of mappings, on the way from one to the next one. */
static never_inline long see_mapping(struct walk *walk)
{
	struct piece *piece = walk->piece;
	struct rb_node links = {};
	struct rb_node *at;
	struct place *place;
	u64 up, from;

	if (!piece)
		return 1;
	place = &piece->cursor.end;
	at = place->at;
	if (!at) {
		/* The way begins at the last mapping, or at the root. */
		place->from = place->node;
		place->going_down = 1;
		if (!place->node) {
			peek(at, place->seen[0]->i_data.i_mmap.rb_root.rb_node);
		} else {
			probe_read(&links, sizeof(links), place->node);
			at = links.rb_right;
			if (!at) {
				place->going_down = 0;
				at = (struct rb_node *)(links.__rb_parent_color & ~3ULL);
			}
		}
		place->at = at;
		if (!at) {
			place->in_tree = 0;
			return 0;
		}
	}
	probe_read(&links, sizeof(links), at);
	up = links.__rb_parent_color & ~3ULL;
	from = next_of(&place->from);
	if (place->going_down) {
		if (up != from)
			return lose_way(place);
		if (links.rb_left) {
			place->from = at;
			place->at = links.rb_left;
			return 0;
		}
	} else if (from != (u64)links.rb_left) {
		if (from != (u64)links.rb_right)
			return lose_way(place);
		place->from = at;
		place->at = (struct rb_node *)up;
		place->in_tree = !!up;
		return 0;
	}
	if (!write_mapping(walk, container(at, struct vm_area_struct, shared.rb)))
		return lose_way(place);
	place->node = at;
	place->at = 0;
	return 0;
}

/* One move: to the next superblock, inode or mapping. */
static long move(u32 at, struct walk *walk)
{
	struct piece *piece = walk->piece;
	u64 self, next, head, own;
	struct super_block *fs;
	struct inode *inode = 0;
	struct place *place;
	u32 mode;

	if (!piece || room(walk->seq) < MOST_WRITTEN + ENDING)
		return 1;
	place = &piece->cursor.end;
#if PAYERS
	if (place->pages.in_pages)
		return see_pages(walk);
#endif
	if (place->in_tree)
		return see_mapping(walk);
	if (!place->in_filesystem)
		return next_filesystem(piece) ? 1 : 0;
	fs = place->fs;
	own = next_of(&place->fs);
	head = own + place_of(fs->s_inodes);
	if (place->seen[0]) {
		self = next_of(&place->seen[0]) + place_of(inode->i_sb_list);
		next = next_of((void *)self);
		if (!next || next == self) {
			go_back(piece);
			return 0;
		}
	} else {
		next = next_of((void *)head);
	}
	if (next == head)
		return end_filesystem(walk);
	next -= place_of(inode->i_sb_list);
	probe_read(&inode, sizeof(inode), &next);
	/*
	 * All fields at once: several reads of less take as long each. What a tmpfs keeps of an
	 * inode is in front of it.
	 */
	if (place->magic == TMPFS_MAGIC)
		probe_read(piece->raw + INODE_AT - place_of(((struct shmem_inode_info *)0)->vfs_inode),
			   place_of(((struct shmem_inode_info *)0)->vfs_inode) + place_of(inode->i_data.nrpages) + 8,
			   (char *)inode - place_of(((struct shmem_inode_info *)0)->vfs_inode));
	else
		probe_read(piece->raw + INODE_AT, place_of(inode->i_data.nrpages) + 8, inode);
	if (of_inode(u64, i_sb) != own) {
		restart_inodes(place);
		return 0;
	}
	remember(place, next, of_inode(u64, i_ino));
	mode = of_inode(u16, i_mode);
	if ((mode & S_IFMT) == S_IFREG)
		return see_inode(walk);
	place->unlisted.other_pages += of_inode(u64, i_data.nrpages);
	see_aliases(piece);
	place->unlisted.uses += piece->aliases.opens - piece->aliases.dentries;
	return 0;
}

/* Looks for the superblocks of the last step. */
static long one_filesystem(u32 at, struct search *search)
{
	struct super_block *of = 0;
	u64 self = search->at + place_of(of->s_list), next = next_of((void *)self);

	if (search->at == search->fs) {
		search->has_fs = root_of(search->at) == search->root;
		if (search->has_fs)
			return 1;
	}
	if (search->at == search->before)
		search->has_before = root_of(search->at) == search->root_before;
	if (!next || next == self)
		return 1;
	search->at = next - place_of(of->s_list);
	return search->at == search->anchor;
}

/* Whether a mapping is still one of this inode, the same one, and at the same place in the tree. */
static always_inline int is_in_tree(struct place *place)
{
	struct vm_area_struct *vma = container(place->node, struct vm_area_struct, shared.rb);
	struct rb_node links = {};
	struct file *file = 0;
	u64 of = 0, start = 0, mm = 0;

	peek(file, vma->vm_file);
	peek(of, file->f_inode);
	peek(start, vma->vm_start);
	peek(mm, vma->vm_mm);
	probe_read(&links, sizeof(links), place->node);
	return of == next_of(&place->seen[0]) && start == place->start && mm == next_of(&place->mm) &&
	       links.__rb_parent_color == place->links.__rb_parent_color &&
	       links.rb_left == place->links.rb_left && links.rb_right == place->links.rb_right;
}

/* Finds the place again where the last step stopped, or one before it. */
verified_once int find_place(struct piece *piece)
{
	struct search search;
	struct place *place;

	if (!piece)
		return 0;
	forget(search);
	place = &piece->cursor.end;
	search.anchor = search.at = piece->anchor;
	search.fs = next_of(&place->fs);
	search.root = place->root;
	search.before = next_of(&place->fs_before);
	search.root_before = place->root_before;
	loop(1 << 16, one_filesystem, &search, 0);
	if (!search.has_before)
		place->fs_before = 0;
	if (!search.has_fs) {
		/* What follows the one before it comes next. */
		place->in_filesystem = 0;
		leave_inode(place);
		back_to_filesystem_before(piece);
		if (place->restarts++ >= MOST_RESTARTS)
			place->inodes_cut = place->done = 1;
		return 0;
	}
	if (!place->in_filesystem || !place->seen[0])
		return 0;
	if (!is_in_list(place, 0)) {
		go_back(piece);
		return 0;
	}
	place->at = 0;
	if (place->in_tree && place->node && !is_in_tree(place)) {
		/* All of its mappings once more. */
		place->lost |= 1;
		lose_way(place);
	}
	return 0;
}

static never_inline int write_ending(struct bpf_iter_meta *meta, u32 inodes_cut, u32 mappings_cut, u32 repeated)
{
	record(shm_walk, found);

	found.inodes_cut = inodes_cut;
	found.mappings_cut = mappings_cut;
	found.repeated = repeated;
	put(meta->seq, found, SHM_WALK);
	write_end(meta);
	return 0;
}

struct context {
	struct bpf_iter_meta *meta;
	void *map;
	void *key;
	void *value;
};

#if PAYERS
RECORDS(struct shm_inode shm_inode; struct shm_vma shm_vma; struct shm_filesystem shm_filesystem; struct shm_walk shm_walk; struct end end; struct shm_cgroup shm_cgroup; struct shm_pages shm_pages; struct payer payer;);
#else
RECORDS(struct shm_inode shm_inode; struct shm_vma shm_vma; struct shm_filesystem shm_filesystem; struct shm_walk shm_walk; struct end end;);
#endif

SEC("iter/bpf_map_elem")
int inodes(struct context *context)
{
	struct bpf_iter_meta *meta = context->meta;
	struct seq_file *seq = meta->seq;
	u64 session = meta->session_id, step = meta->seq_num;
	struct cursor *last = map_lookup(&cursors, &session);
	struct walk walk = { .seq = seq };
	struct inode *inode = 0;
	struct file *file = 0;
	struct piece *piece;
	struct place *place;
	u32 mode = 0;

	if (!context->value || (step && !last)) {
		/* There are no steps left, or the cursor was lost. */
		if (!last || !last->end.done)
			write_ending(meta, 1, 1, 1);
		return 0;
	}
	/* After the end, ends the read, too, if it has something to return. */
	if (last && last->end.done && last->step < step)
		return !!seq->count;
	/* Ends the read. The next one begins with this step. */
	if (room(seq) < MOST_WRITTEN + ENDING)
		return 1;
	piece = take_piece();
	if (!piece)
		return 1;
	walk.piece = piece;
	place = &piece->cursor.end;
	if (!last)
		forget(piece->cursor);
	else if (last->step == step)
		probe_read(&piece->cursor.begin, sizeof(piece->cursor.begin), &last->begin);
	else
		probe_read(&piece->cursor.begin, sizeof(piece->cursor.begin), &last->end);
	piece->cursor.step = step;
	probe_read(place, sizeof(*place), &piece->cursor.begin);
	peek(file, seq->file);
	peek(inode, file->f_inode);
	peek(piece->anchor, inode->i_sb);
	peek(mode, file->f_flags);
	piece->with_unheld = mode & O_NONBLOCK;
	piece->folder = 0;
	piece->dentry_at = 0;
#if PAYERS
	forget(piece->pages.data);
	piece->pages.last = 0;
#endif
	if (place->fs)
		find_place(piece);
	else
		back_to_filesystem_before(piece);
	if (!place->done)
		loop(moves, move, &walk, 0);
	if (place->in_tree && place->node) {
		struct vm_area_struct *vma = container(place->node, struct vm_area_struct, shared.rb);

		probe_read(&place->links, sizeof(place->links), place->node);
		peek(place->start, vma->vm_start);
		peek(place->mm, vma->vm_mm);
	}
	map_update(&cursors, &session, &piece->cursor, 0);
	if (place->done)
		write_ending(meta, place->inodes_cut, place->mappings_cut, place->repeated);
	return_piece(piece);
	return 0;
}
